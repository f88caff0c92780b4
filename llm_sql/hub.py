"""Models in the layout of the Hugging Face hub: config.json beside model.safetensors.

Only what this package computes exactly is taken: GPT-2's equations, with one of the activations below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.models.config import ACTIVATIONS

HUB_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)


# Columns of llm_model_config, the names that transformers' configuration has for them, and its defaults.
_COLUMNS: dict[str, tuple[str, Any]] = {
    "n_layer": ("n_layer", 12),
    "n_head": ("n_head", 12),
    "d_model": ("n_embd", 768),
    "n_positions": ("n_positions", 1024),
    "vocab": ("vocab_size", 50257),
    "d_ff": ("n_inner", None),
    "layer_norm_eps": ("layer_norm_epsilon", 1e-5),
    "activation_function": ("activation_function", "gelu_new"),
    "tied": ("tie_word_embeddings", True),
}
_TYPES: dict[str, type] = {"layer_norm_eps": float, "activation_function": str, "tied": bool}


def download(name: str) -> Path:
    """The directory of a model of the hub, downloaded (or found in huggingface_hub's cache)."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UsageError(
            "hf: downloads with huggingface_hub, which is not installed",
            hint="pip install huggingface_hub, or give a directory with config.json and model.safetensors",
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise LLMSQLError(f"cannot download {name}: {str(error).strip().splitlines()[0]}") from error


def read_config(directory: Path) -> dict[str, Any]:
    """The columns of llm_model_config that a directory's config.json asks for; refuses what is not GPT-2."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "gpt2":
        raise LLMSQLError(
            f"{path} describes a model of type {kind!r}",
            hint="Models of type gpt2 can be loaded: GPT-2, DistilGPT2, Cerebras-GPT.",
        )
    _refuse_differences(path, config)
    columns = {column: config.get(name, default) for column, (name, default) in _COLUMNS.items()}
    for column, value in columns.items():
        wanted = _TYPES.get(column, int)
        is_right = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
        if not (is_right or (column == "d_ff" and value is None)):
            raise UsageError(f"{path} has {value!r} for {_COLUMNS[column][0]}")
    return columns


def _refuse_differences(path: Path, config: dict[str, Any]) -> None:
    activation = config.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise LLMSQLError(
            f"{path} has the activation function {activation!r}, which is not supported",
            hint=f"Supported are {', '.join(ACTIVATIONS)}.",
        )
    for name, supported in {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }.items():
        if config.get(name, supported) is not supported:
            raise LLMSQLError(f"{path} has {name} = {config[name]!r}, which is not supported")


_EXISTING = text(
    "SELECT n_layer, n_head, d_model, n_positions, vocab, d_ff, layer_norm_eps, activation_function"
    " FROM public.llm_model_config WHERE model = :model"
)
_INSERT = text(
    "INSERT INTO public.llm_model_config"
    " (model, arch, n_layer, n_head, d_model, n_positions, vocab, d_ff, layer_norm_eps,"
    " activation_function, tied)"
    " VALUES (:model, 'gpt2', :n_layer, :n_head, :d_model, :n_positions, :vocab, :d_ff, :layer_norm_eps,"
    " :activation_function, :tied)"
)


def ensure_config(connection: Connection, model: str, columns: dict[str, Any]) -> None:
    """Register the model with these sizes, or hold them against the ones it has."""
    row = connection.execute(_EXISTING, {"model": model}).mappings().one_or_none()
    if row is None:
        connection.execute(_INSERT, {"model": model, **columns})
        return
    for name, value in row.items():
        wanted = columns[name]
        if name == "d_ff":
            value, wanted = (x or 4 * columns["d_model"] for x in (value, wanted))
        if name == "activation_function":
            value, wanted = ACTIVATIONS[value], ACTIVATIONS[wanted]
        if value != wanted:
            raise LLMSQLError(
                f'config.json has {name} {wanted}, model "{model}" has {value}',
                hint="Import it under another name, or drop the model first (llm_drop_model).",
            )
