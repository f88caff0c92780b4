"""Seed rows: the built-in architectures and the shapes of published models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .settings import BERT, GPT3, LLAMA, NEOX, OPT, Setting

_GPT2_VOCAB = 50257


def _architecture(
    arch: str, description: str, kind: str = "decoder", settings: Sequence[Setting] = ()
) -> dict[str, Any]:
    return {
        "arch": arch,
        "forward": f"public.llm_forward_{arch}",
        "parameters": f"public.llm_parameters_{arch}",
        "description": description,
        "kind": kind,
        "settings": {setting.name: setting.declaration() for setting in settings},
    }


ARCHITECTURE_ROWS: list[dict[str, Any]] = [
    _architecture(
        "gpt2", "GPT-2: pre-LayerNorm blocks, learned positions, tanh GELU, tied head (Radford et al. 2019)"
    ),
    _architecture(
        "gpt3",
        "GPT-3: GPT-2's equations at other sizes, odd layers banded if asked (Brown et al. 2020)",
        settings=GPT3,
    ),
    _architecture("microgpt", "microgpt: RMSNorm without gains, ReLU, no biases, head of its own (Karpathy)"),
    _architecture(
        "bert",
        "BERT as a sentence encoder: post-LayerNorm blocks, one vector for a text (Devlin et al. 2018)",
        "encoder",
        BERT,
    ),
    _architecture(
        "llama",
        "Llama, SmolLM2, Qwen2, Qwen3, Mistral: rotary positions, RMSNorm, gated MLP (Touvron et al. 2023)",
        settings=LLAMA,
    ),
    _architecture(
        "neox",
        "GPT-NeoX, Pythia: attention beside the MLP, rotary positions, LayerNorm (Black et al. 2022)",
        settings=NEOX,
    ),
    _architecture(
        "opt", "OPT: GPT-2's blocks with ReLU and projections of their own (Zhang et al. 2022)", settings=OPT
    ),
]


# Where it is not GPT-2's.
_ACTIVATIONS = {"bert": "gelu", "llama": "silu", "neox": "gelu", "opt": "relu"}


def _model(
    model: str,
    arch: str,
    n_layer: int,
    n_head: int,
    d_model: int,
    n_positions: int,
    vocab: int = _GPT2_VOCAB,
    d_ff: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    return {
        "model": model,
        "arch": arch,
        "n_layer": n_layer,
        "n_head": n_head,
        "d_model": d_model,
        "n_positions": n_positions,
        "vocab": vocab,
        "d_ff": d_ff,
        "layer_norm_eps": 1e-12 if arch == "bert" else 1e-5,
        "activation_function": _ACTIVATIONS.get(arch, "gelu_new"),
        "tied": arch not in ("microgpt", "neox"),
        "settings": settings,
    }


MODELS: list[dict[str, Any]] = [
    _model("gpt2-small", "gpt2", 12, 12, 768, 1024),
    _model("gpt2-medium", "gpt2", 24, 16, 1024, 1024),
    _model("gpt2-large", "gpt2", 36, 20, 1280, 1024),
    _model("gpt2-xl", "gpt2", 48, 25, 1600, 1024),
    _model("gpt3-125m", "gpt3", 12, 12, 768, 2048),
    _model("gpt3-350m", "gpt3", 24, 16, 1024, 2048),
    _model("gpt3-760m", "gpt3", 24, 16, 1536, 2048),
    # The paper prints 24 heads of 128, which is not 2048; 16 are.
    _model("gpt3-1.3b", "gpt3", 24, 16, 2048, 2048),
    _model("gpt3-2.7b", "gpt3", 32, 32, 2560, 2048),
    _model("gpt3-6.7b", "gpt3", 32, 32, 4096, 2048),
    # The paper prints d_model 5140, which 40 heads do not divide.
    _model("gpt3-13b", "gpt3", 40, 40, 5120, 2048),
    _model("gpt3-175b", "gpt3", 96, 96, 12288, 2048),
    _model("microgpt", "microgpt", 1, 4, 16, 16, vocab=27),
    _model("all-minilm-l6-v2", "bert", 6, 12, 384, 512, vocab=30522, max_tokens=256),
    _model("smollm2-135m", "llama", 30, 9, 576, 8192, vocab=49152, d_ff=1536, n_kv_head=3, rope_theta=1e5),
    _model("pythia-70m", "neox", 6, 8, 512, 2048, vocab=50304, rope_dims=16),
    _model("opt-125m", "opt", 12, 12, 768, 2048, vocab=50272),
]
