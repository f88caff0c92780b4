"""Encoders that left the database as directories: sentence-transformers makes the vectors it made before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from llm_sql.cli import app

from .encoders import PACKAGE, Tiny, bring_in, published_minilm
from .sentences import varied_texts
from .test_encoders import FORMS, SHAPES, TEXTS


def sent_out(url: str, model: str, folder: Path) -> SentenceTransformer:
    result = CliRunner().invoke(app, ["export", str(folder), "--model", model, "--url", url])
    assert result.exit_code == 0, result.output
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("tiny", [*FORMS, *SHAPES[1:4], SHAPES[6]], ids=str)
def test_tiny_ones(conn: psycopg.Connection, db_url: str, tmp_path: Path, tiny: Tiny) -> None:
    _, before = tiny.save(tmp_path / "saved")
    bring_in(db_url, tmp_path / "saved", "tiny")
    after = sent_out(db_url, "tiny", tmp_path / "sent")
    assert after.max_seq_length == tiny.max_tokens
    assert {name: prompt for name, prompt in after.prompts.items() if prompt} == tiny.prompts
    assert after.default_prompt_name == tiny.default_prompt
    for prompt in [None, *tiny.prompts]:
        vectors = [np.asarray(model.encode(TEXTS, prompt_name=prompt)) for model in (before, after)]
        assert np.array_equal(*vectors), prompt


def test_minilm(conn: psycopg.Connection, db_url: str, tmp_path: Path) -> None:
    published = published_minilm()
    bring_in(db_url, f"package:{PACKAGE}", "minilm")
    after = sent_out(db_url, "minilm", tmp_path / "sent")
    texts = varied_texts(100)
    before = SentenceTransformer(str(published), device="cpu")
    assert np.array_equal(before.encode(texts), after.encode(texts))
