"""Tiny random decoders of every type that transformers saves, and how their names and layouts are ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import torch
import transformers
from numpy.typing import NDArray
from typer.testing import CliRunner

from llm_sql.cli import app

MODEL = "tiny"
VOCAB = 101
Array = NDArray[np.float32]
# Threads that wait for each other cost more than they bring at these sizes.
torch.set_num_threads(1)

_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Family:
    """A configuration of transformers, by its own names; `std` is how far the weights are from nothing."""

    name: str
    prefix: str
    more: dict[str, Any] = field(default_factory=dict, hash=False)
    std: float = 0.2

    def __str__(self) -> str:
        return self.name

    def config(self, **changes: Any) -> Any:
        sizes: dict[str, Any] = {
            "vocab_size": VOCAB,
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "max_position_embeddings": 128,
            "bos_token_id": VOCAB - 1,
            "eos_token_id": VOCAB - 1,
            "pad_token_id": None,
        }
        if self.prefix != "OPT":
            sizes["intermediate_size"] = 80
        config = getattr(transformers, f"{self.prefix}Config")(**{**sizes, **self.more, **changes})
        config._attn_implementation = "eager"
        return config

    def make(self, seed: int = 1, **changes: Any) -> Any:
        """Without dropout, every parameter away from its initial value, so that none can be mixed up."""
        torch.manual_seed(seed)
        model = getattr(transformers, f"{self.prefix}ForCausalLM")(self.config(**changes)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.randn_like(parameter) * self.std)
                if "norm" in name and name.endswith("weight"):
                    parameter.add_(1.0)
        return model


FAMILIES = [
    Family("llama", "Llama", {"num_key_value_heads": 2, "rope_parameters": {"rope_theta": 5e5, **_LLAMA3}}),
    Family("smollm2", "Llama", {"num_key_value_heads": 3, "tie_word_embeddings": True, "rope_theta": 1e5}),
    Family("llama with biases", "Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 10,
           "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    Family("llama of gelu", "Llama", {"hidden_act": "gelu", "num_key_value_heads": 1}),
    Family("mistral", "Mistral", {"num_key_value_heads": 2, "sliding_window": 7, "head_dim": 12}),
    Family("mistral without window", "Mistral", {"num_key_value_heads": 6, "sliding_window": None}),
    Family("qwen2", "Qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 1e6}),
    Family("qwen2 with a window", "Qwen2", {"num_key_value_heads": 3, "use_sliding_window": True,
           "sliding_window": 9, "max_window_layers": 0}),
    Family("qwen3", "Qwen3", {"num_key_value_heads": 3, "head_dim": 16, "rope_theta": 1e6}),
    Family("qwen3 with biases", "Qwen3", {"num_key_value_heads": 1, "head_dim": 8, "attention_bias": True}),
    Family("pythia", "GPTNeoX", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
           "partial_rotary_factor": 0.25}}),
    Family("neox one after the other", "GPTNeoX", {"use_parallel_residual": False, "hidden_act": "gelu_new",
           "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}}),
    Family("opt", "OPT", {"ffn_dim": 80, "word_embed_proj_dim": 48}, std=0.5),
    Family("opt of 350m's form", "OPT", {"ffn_dim": 80, "word_embed_proj_dim": 20,
           "do_layer_norm_before": False}, std=0.5),
]  # fmt: skip


def bring_in(url: str, source: Path, model: str = MODEL) -> None:
    """As the command does."""
    result = CliRunner().invoke(app, ["import", str(source), "--model", model, "--url", url])
    assert result.exit_code == 0, result.output


def as_ours(
    conn: psycopg.Connection[Any], theirs: Mapping[str, Array], n_head: int, model: str = MODEL
) -> dict[str, Array]:
    """What stands under transformers' names (weights or gradients), under ours and in our layout."""
    rows = conn.execute(
        "SELECT p.name, b.name, b.how FROM llm_parameters(%(m)s) p"
        " CROSS JOIN LATERAL llm_hub_name(llm_hub_family(%(m)s), p.name) b",
        {"m": model},
    ).fetchall()
    ours = {}
    for name, hub_name, how in rows:
        # transformers 5 has renamed it in memory, not in files.
        value = theirs[hub_name if hub_name in theirs else hub_name.replace("embed_out", "lm_head")]
        if how.startswith("part"):
            value = value.reshape(n_head, 3, -1, *value.shape[1:])[:, int(how.split()[1]) - 1]
            value = value.reshape(-1, *value.shape[2:])
        if how.startswith("after"):
            value = value[2:]
        ours[name] = value.T if how.endswith("transposed") else value
    return ours
