"""Models in the layout of the Hugging Face hub: config.json beside model.safetensors.

Only what this package computes exactly is taken: decoders of the types in decoder_files.py, and BERT's
equations as a sentence encoder (encoder_files.py), with one of the activations of models/config.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection, text

from llm_sql import decoder_files, encoder_files, packages
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.models.config import ACTIVATIONS

HUB_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "vocab.txt",
    # Of sentence-transformers; each of its modules has a folder, named by its number.
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*/*.json",
    "[0-9]_*/vocab.txt",
)


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


@dataclass(frozen=True)
class HubModel:
    """What a directory holds: the columns of llm_model_config, and the folder of the weights and the
    tokenizer, which is the directory itself or one below it.
    """

    columns: dict[str, Any]
    folder: Path


def find(source: str) -> Path:
    """What a name stands for: hf:NAME of the hub, package:NAME of an installed package, or a path."""
    if source.startswith("hf:"):
        return download(source.removeprefix("hf:"))
    if source.startswith("package:"):
        return packages.find(source.removeprefix("package:"))
    return Path(source)


def read(directory: Path, settings: Mapping[str, Any] | None = None) -> HubModel:
    """The model that a directory's config.json describes; refuses by name what is not computed.

    `settings` stand above those that the files of a sentence encoder ask for.
    """
    folder = encoder_files.transformer(directory)
    path = folder / "config.json"
    config = encoder_files.read_object(path)
    if config.get("model_type") != "bert":
        return HubModel(decoder_files.columns_of(config, str(path), settings), folder)
    found = encoder_files.settings_of(directory, config)
    sizes = decoder_files.sizes(decoder_files.Config(config, str(path)), encoder_files.COLUMNS)
    return HubModel({"arch": "bert", **sizes, "settings": found | dict(settings or {})}, folder)


def read_config(directory: Path) -> dict[str, Any]:
    """The columns of llm_model_config that a directory's config.json asks for."""
    return read(directory).columns


_WITH_FILES_OF_THEIR_OWN = ("bert", "llama", "neox", "opt")
_EXISTING = text(
    "SELECT arch, n_layer, n_head, d_model, n_positions, vocab, d_ff, layer_norm_eps, activation_function"
    " FROM public.llm_model_config WHERE model = :model"
)
_SETTINGS = text("SELECT (public.llm_config(CAST(:model AS text))).settings")
_INSERT = text(
    "INSERT INTO public.llm_model_config"
    " (model, arch, n_layer, n_head, d_model, n_positions, vocab, d_ff, layer_norm_eps,"
    " activation_function, tied, settings)"
    " VALUES (:model, :arch, :n_layer, :n_head, :d_model, :n_positions, :vocab, :d_ff, :layer_norm_eps,"
    " :activation_function, :tied, CAST(:settings AS jsonb))"
)


def ensure_config(connection: Connection, model: str, columns: dict[str, Any]) -> None:
    """Register the model with these sizes and settings, or hold them against the ones it has."""
    row = connection.execute(_EXISTING, {"model": model}).mappings().one_or_none()
    if row is None:
        values = columns | {"model": model, "settings": json.dumps(columns["settings"])}
        connection.execute(_INSERT, values)
        # Settings that were given by name may be none that there are.
        connection.execute(_SETTINGS, {"model": model})
        return
    there = dict(row)
    if columns["arch"] == "gpt2" and there["arch"] not in _WITH_FILES_OF_THEIR_OWN:
        # gpt3 and architectures of one's own have GPT-2's files, too.
        del there["arch"]
    elif there["arch"] != columns["arch"]:
        _differs(model, "arch", columns["arch"], there["arch"])
    there |= connection.execute(_SETTINGS, {"model": model}).scalar_one()
    if unknown := sorted(columns["settings"].keys() - there):
        raise LLMSQLError(
            f'model "{model}" knows no setting {", ".join(unknown)}',
            hint="llm_arch.settings lists what its architecture knows.",
        )
    for name, value in there.items():
        wanted = columns.get(name, columns["settings"].get(name, value))
        if name == "d_ff":
            value, wanted = (x or 4 * columns["d_model"] for x in (value, wanted))
        if name == "activation_function":
            value, wanted = ACTIVATIONS[value], ACTIVATIONS[wanted]
        if value != wanted:
            _differs(model, name, wanted, value)


def _differs(model: str, name: str, wanted: Any, there: Any) -> NoReturn:
    shown, has = (value if isinstance(value, str) else json.dumps(value) for value in (wanted, there))
    raise LLMSQLError(
        f'config.json has {name} {shown}, model "{model}" has {has}',
        hint="Import it under another name, or drop the model first (llm_drop_model).",
    )
