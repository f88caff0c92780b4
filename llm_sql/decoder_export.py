"""Decoders as transformers loads them: config.json and its neighbours, which decoder_files.py reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from llm_sql import decoder_files
from llm_sql.errors import UsageError
from llm_sql.tokenizer_export import HINT, Exported

Settings = dict[str, Any]


def files(connection: Connection, model: str, config: dict[str, Any]) -> dict[str, Any]:
    """The small files by their names; `config` is the model's row of llm_model_config."""
    kind, own = ARCHITECTURES[config["arch"]](model, config, config["settings"])
    family = decoder_files.FAMILIES[kind]
    named = {theirs: config[ours] for ours, (theirs, _) in family.columns.items()}
    d_ff = family.columns["d_ff"][0]
    named[d_ff] = named[d_ff] or 4 * config["d_model"]
    tokenizer = Exported(connection, model)
    tokens = tokenizer.ids()
    return {
        "config.json": {
            "architectures": [family.classes[0]],
            "model_type": kind,
            **named,
            **own,
            **tokens,
            "torch_dtype": "float32",
        },
        "generation_config.json": tokens,
        # None of them takes token_type_ids.
        **tokenizer.files(config["n_positions"], model_input_names=["input_ids", "attention_mask"]),
    }


def _refuse(model: str, what: str) -> UsageError:
    return UsageError(
        f'model "{model}" has {what}, which no model of Hugging Face\'s libraries has',
        hint=HINT,
    )


def _gpt2(model: str, config: dict[str, Any], settings: Settings) -> tuple[str, dict[str, Any]]:
    if settings.get("band") is not None:
        raise _refuse(model, "the setting band")
    return "gpt2", {}


def _rope(settings: Settings) -> dict[str, Any]:
    # As before transformers 5, which reads it, too.
    return {"rope_scaling": settings["rope_scaling"] or None}


def _llama(model: str, config: dict[str, Any], settings: Settings) -> tuple[str, dict[str, Any]]:
    """Whichever of the kin has what the settings ask for."""
    qkv, o, mlp = settings["qkv_bias"], settings["o_bias"], settings["mlp_bias"]
    window = settings["window"]
    if settings["rope_dims"] not in (0, settings["d_head"] or config["d_model"] // config["n_head"]):
        raise _refuse(model, "rope_dims below the width of a head")
    own = {
        "num_key_value_heads": settings["n_kv_head"] or config["n_head"],
        "head_dim": settings["d_head"] or config["d_model"] // config["n_head"],
        "rope_theta": settings["rope_theta"],
        **_rope(settings),
    }
    qwens = {"use_sliding_window": window is not None, "sliding_window": window, "max_window_layers": 0}
    if settings["qk_norm"]:
        kind, more, biases = "qwen3", {**qwens, "attention_bias": qkv}, (qkv, qkv, False)
    elif qkv and not o:
        kind, more, biases = "qwen2", qwens, (True, False, False)
    elif window is not None:
        kind, more, biases = "mistral", {"sliding_window": window}, (False, False, False)
    else:
        kind, more, biases = "llama", {"attention_bias": qkv, "mlp_bias": mlp}, (qkv, qkv, mlp)
    if (qkv, o, mlp) != biases:
        raise _refuse(model, "biases" if (qkv or o or mlp) else "no biases")
    return kind, own | more


def _neox(model: str, config: dict[str, Any], settings: Settings) -> tuple[str, dict[str, Any]]:
    d_head = config["d_model"] // config["n_head"]
    share = (settings["rope_dims"] or d_head) / d_head
    if int(d_head * share) < settings["rope_dims"]:
        share = math.nextafter(share, 2.0)
    return "gpt_neox", {
        "rotary_emb_base": settings["rope_theta"],
        "rotary_pct": share,
        **_rope(settings),
        "use_parallel_residual": settings["parallel"],
        "attention_bias": True,
    }


def _opt(model: str, config: dict[str, Any], settings: Settings) -> tuple[str, dict[str, Any]]:
    if not math.isclose(config["layer_norm_eps"], 1e-5):
        raise _refuse(model, f"layer_norm_eps {config['layer_norm_eps']}")
    return "opt", {
        "do_layer_norm_before": settings["norm_first"],
        "word_embed_proj_dim": settings["d_embed"] or config["d_model"],
        "pad_token_id": 1 if config["vocab"] > 1 else 0,
    }


ARCHITECTURES: dict[str, Callable[[str, dict[str, Any], Settings], tuple[str, dict[str, Any]]]] = {
    "gpt2": _gpt2,
    "gpt3": _gpt2,
    "llama": _llama,
    "neox": _neox,
    "opt": _opt,
}
"""By architecture: the model_type, and what its config.json has beyond sizes."""
