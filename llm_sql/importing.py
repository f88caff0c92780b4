"""A model from a file or a directory: its configuration, tokenizer and weights, as one change.

Everything that can be refused without the database is refused before it is opened, and before a weight is
read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from llm_sql import adapter_export, decoder_files, gguf_files, hub, tokenizer_files, weights
from llm_sql.connections import atomic
from llm_sql.errors import UsageError
from llm_sql.tokenizer_files import TokenizerFiles


@dataclass(frozen=True)
class Source:
    """What is to be imported. `columns` is None for a weight file, whose model must be registered.

    `weights`: a file or directory, or what presents another as one (weights.Tensors).
    """

    path: Path
    weights: Path | weights.Tensors
    columns: dict[str, Any] | None
    tokenizer: TokenizerFiles | None


@dataclass(frozen=True)
class Imported:
    """What was imported: numbers of weights and of tokens."""

    weights: int
    tokens: int | None


def find(source: str | os.PathLike[str]) -> Path:
    """The file or directory that a source names, downloaded if it is the hub's."""
    path = hub.find(source) if isinstance(source, str) else Path(source)
    if not path.exists():
        name = str(source)
        is_short = name.count("/") == 1 and not name.startswith("/")
        raise UsageError(
            f"{path} does not exist", hint=f"a model of the hub: hf:{name}" if is_short else None
        )
    return path


def read(
    source: str | os.PathLike[str], *, tokenizer: bool = True, settings: Mapping[str, Any] | None = None
) -> Source:
    """A weight file, a GGUF file, a directory with config.json or a GGUF file, hf:NAME or package:NAME."""
    path = find(source)
    whole = gguf_files.of(path)
    if whole is not None:
        gguf = gguf_files.GGUF(whole)
        columns = decoder_files.columns_of(gguf.config, str(whole), settings)
        return Source(whole, gguf.tensors, columns, gguf.tokenizer() if tokenizer else None)
    if not path.is_dir():
        if settings:
            raise UsageError(
                "a weight file has no settings", hint="UPDATE llm_model_config SET settings = ..."
            )
        return Source(path, path, None, None)
    if (path / adapter_export.CONFIG).exists() and not (path / "config.json").exists():
        raise UsageError(
            f"{path} holds a LoRA adapter, not a model",
            hint=f"make one with the rank, alpha and targets of its {adapter_export.CONFIG}"
            f" (llm_create_adapter), and import its {adapter_export.WEIGHTS} into that",
        )
    model = hub.read(path, settings)
    # A directory without weights is told before a tokenizer is read.
    weights.weight_files(model.folder)
    files = tokenizer_files.read_directory(model.folder) if tokenizer else None
    return Source(path, model.folder, model.columns, files)


def store(
    connection: Connection,
    model: str,
    source: Source,
    *,
    megatron_version: float | None = None,
    progress: weights.Advance | None = None,
) -> Imported:
    """Register the model, or hold it against what is registered, and replace its tokenizer and weights."""
    tokens = None
    with atomic(connection):
        if source.columns is not None:
            hub.ensure_config(connection, model, source.columns)
        # A tokenizer that is refused should not wait for a gigabyte of weights.
        if source.tokenizer is not None:
            tokens = tokenizer_files.load(connection, model, source.tokenizer)
        count = weights.import_weights(
            connection, source.weights, model, megatron_version=megatron_version, progress=progress
        )
    return Imported(count, tokens)
