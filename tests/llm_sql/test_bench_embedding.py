"""The bench's section embed, with a tiny encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from llm_sql import packages
from llm_sql.bench import embedding, embedding_peers
from llm_sql.bench.embedding import measure_embedding
from llm_sql.bench.encoder import (
    MINILM,
    Encoder,
    encoder_directory,
    known_words,
    shapes_of,
    text_of,
    write_directory,
)
from llm_sql.bench.scratch import scratch_database
from llm_sql.bench.worker import Worker
from llm_sql.errors import LLMSQLError

from ..amount import extended

TINY = Encoder(n_layer=2, n_head=2, d_model=16, d_ff=24, n_positions=40, vocab=900, max_tokens=32)


@extended
def test_a_row_for_each_thing_measured(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "missing_embedders", lambda: list(embedding_peers.MODULES))
    with scratch_database(engine) as scratch:
        rows = list(measure_embedding(scratch, 2, 1, quick=True, encoder=TINY, rows=50, age=0))
        with scratch.connect() as connection:
            assert connection.scalar(text("SELECT to_regclass('public.bench_text')")) is None
    assert [(row.what, row.unit) for row in rows] == [
        ("32 texts of 32 tokens, random weights", "texts/s"),
        ("products of the pass alone, 192 rows", "GFLOP/s"),
        ("products of the pass alone, 1024 rows", "GFLOP/s"),
        ("rows filled, 16 tokens each, random weights", "rows/s"),
        ("a new connection's first embedding, random weights", "s"),
    ]
    assert all(row.llm_sql is not None and row.llm_sql > 0 for row in rows)
    assert rows[0].of_peak
    assert "not installed" in rows[0].note


def test_the_texts_have_as_many_tokens_as_they_say(engine: Engine, tmp_path: Path) -> None:
    write_directory(tmp_path, TINY)
    texts = [text_of(known_words(tmp_path), 32, i) for i in range(32)]
    assert len(set(texts)) == 32
    with scratch_database(engine) as scratch:
        embedding.bring_in(scratch, tmp_path)
        with scratch.connect() as connection:
            lengths = connection.scalars(
                text(
                    "SELECT cardinality(llm_encode_sequence(t, :model)) FROM unnest(CAST(:t AS text[])) AS t"
                ),
                {"model": embedding.MODEL, "t": texts},
            ).all()
    assert set(lengths) == {32}


def test_random_weights_where_the_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> Path:
        raise LLMSQLError(f"{name} is not installed")

    monkeypatch.setattr(packages, "find", nowhere)
    folder, published = encoder_directory(tmp_path, MINILM)
    assert (folder, published) == (tmp_path, False)
    assert len((folder / "vocab.txt").read_text().splitlines()) == MINILM.vocab
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden_size"] == 384
    weights = sum(4 * _size(shape) for _, shape in shapes_of(MINILM))
    assert 0 < (folder / "model.safetensors").stat().st_size - weights < 50_000


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def test_the_flops_of_a_pass() -> None:
    """22 M weights, of which all but the embeddings are multiplied by."""
    weights = 6 * (4 * 384**2 + 2 * 384 * 1536)
    attention = 6 * 3 * 4 * 10 * 10 * 384
    assert MINILM.flops(3, 10) == 2 * 30 * weights + attention


@pytest.mark.parametrize("library", embedding_peers.MODULES)
def test_other_engines_embed_from_the_same_files(library: str, tmp_path: Path) -> None:
    if library in embedding_peers.missing_embedders():
        pytest.skip(f"{library} is not installed")
    write_directory(tmp_path, TINY)
    with Worker("embedding", 1) as worker:
        worker.make_embedder(library, str(tmp_path), TINY.max_tokens)
        assert 0 < worker.embed_seconds(["ab ac", "ad ae af"]) < 60
