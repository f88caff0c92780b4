"""GGUF files, llama.cpp's format, as if they were directories of the Hugging Face hub.

The one file holds what config.json, tokenizer.json and model.safetensors would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_sql import gguf_config, gguf_tokenizer
from llm_sql.errors import UsageError
from llm_sql.gguf_header import Header, is_gguf, read_header
from llm_sql.gguf_weights import GGUFSource
from llm_sql.tokenizer_files import TokenizerFiles, from_contents

SUFFIX = ".gguf"
_OTHERS = ("config.json", "modules.json", "model.safetensors", "model.safetensors.index.json")


class GGUF:
    """A file: its header, its configuration as config.json would have it, and its tensors."""

    def __init__(self, path: Path) -> None:
        """UsageError: no such file, no gguf library. LLMSQLError: damaged, or not supported."""
        self.path = path
        self.header: Header = read_header(path)
        self.config: dict[str, Any] = gguf_config.config_of(self.header)
        # What the file lacks, or has beyond what is known, is told before anything is read.
        self.tensors = GGUFSource(self.header, self.config)

    def tokenizer(self) -> TokenizerFiles | None:
        """None if there is none."""
        found = gguf_tokenizer.contents_of(self.header)
        return None if found is None else from_contents(self.path, *found)


def of(path: Path) -> Path | None:
    """The GGUF file that is meant: the file itself, or the one in a directory that holds no other model."""
    if path.is_dir():
        return _inside(path)
    return path if is_gguf(path) else None


def _inside(directory: Path) -> Path | None:
    if any((directory / name).exists() for name in _OTHERS):
        return None
    try:
        found = sorted(
            path for path in directory.iterdir() if path.suffix.lower() == SUFFIX and path.is_file()
        )
    except OSError as error:
        raise UsageError(f"cannot read {directory}: {error.strerror}") from error
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{directory} has several GGUF files: {names}", hint="Give one of these files.")
    return found[0] if found else None
