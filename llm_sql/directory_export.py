"""A model as a directory that transformers or sentence-transformers loads: what an import of it reads.

The small files are those of encoder_export.py or decoder_export.py, and tokenizer_export.py's; of an adapter,
which PEFT loads, those of adapter_export.py.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from llm_sql import adapter_export, decoder_export, encoder_export, weights
from llm_sql.connections import atomic
from llm_sql.errors import UsageError
from llm_sql.tokenizer_export import HINT
from llm_sql.tokenizer_files import CHAT_TEMPLATE

_MODEL = text(
    "SELECT to_jsonb(c) AS config, a.arch FROM (SELECT (public.llm_config(CAST(:model AS text))).*) c"
    " INNER JOIN public.llm_arch a ON a.arch = c.arch"
)

_TEMPLATE = text("SELECT chat_template FROM public.llm_tokenizer WHERE model = :model")


def is_directory(path: Path, format: str | None) -> bool:
    """Whether to write a directory: it is one, or its name has no suffix and no format is given."""
    return format is None and (path.is_dir() or not path.suffix)


def export_directory(
    connection: Connection, model: str, path: Path, *, progress: weights.Advance | None = None
) -> int:
    """Write the directory; it appears whole or not at all. Returns the number of weights.

    UsageError for an architecture that Hugging Face's libraries do not know, and where something lies at
    `path` already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is there already and not empty", hint="Name a new directory.")
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.absolute().parent))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        # One snapshot for all: one version of the model.
        with atomic(connection, "ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            files = _files(connection, model)
            count = weights.export_weights(
                connection,
                model,
                staging / (adapter_export.WEIGHTS if adapter_export.CONFIG in files else "model.safetensors"),
                progress=progress,
            )
        for name, contents in files.items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_text(contents, encoding="utf-8")
        staging.chmod(0o755)
        try:
            staging.replace(path)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return count


def _files(connection: Connection, model: str) -> dict[str, str]:
    """The small files by their names."""
    row = connection.execute(_MODEL, {"model": model}).one()
    files: dict[str, Any] | None = adapter_export.files(connection, model)
    if files is not None:
        pass
    elif row.arch == "bert":
        files = encoder_export.files(connection, model, row.config)
    elif row.arch in decoder_export.ARCHITECTURES:
        files = decoder_export.files(connection, model, row.config)
    else:
        raise UsageError(
            f'model "{model}" of architecture {row.arch} is none that Hugging Face\'s libraries know',
            hint=HINT,
        )
    template = connection.execute(_TEMPLATE, {"model": model}).scalar_one_or_none()
    if template is not None:
        files[CHAT_TEMPLATE] = template
    return {
        name: contents
        if isinstance(contents, str)
        else json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
        for name, contents in files.items()
    }
