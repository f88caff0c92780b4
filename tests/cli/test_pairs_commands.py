"""dataset pairs, train and recall of an encoder: through the command line."""

from __future__ import annotations

import json

import psycopg
import pytest

from llm_sql.url import libpq_url

from ..support.encoder_pairs import make_bag
from .test_cli import Call, call, refuse, run, succeed

__all__ = ["call", "run"]

PAIRS = "SELECT 'a' || i, 'p' || i FROM generate_series(1, 30) i"


@pytest.fixture
def encoder(run: Call, db_url: str) -> Call:
    """Of characters: a, p and the digits."""
    with psycopg.connect(libpq_url(db_url), autocommit=True) as conn:
        conn.execute("SELECT llm_build_char_tokenizer('bag', 'SELECT ''ap0123456789''')")
        make_bag(conn, vocab=13, n_positions=8)
    return run


def test_from_pairs_to_recall(encoder: Call) -> None:
    rows = json.loads(
        succeed(encoder("dataset", "pairs", "bag", "-q", PAIRS, "--validation", "0.3", "--json"))
    )
    assert {row["split"]: row["rows"] for row in rows} == {"train": 21, "validation": 9}
    assert "validation" in succeed(encoder("dataset", "show", "bag"))
    said = succeed(encoder("train", "bag", "-n", "3", "-b", "4"))
    assert "nats per pair" in said
    found = json.loads(succeed(encoder("recall", "-m", "bag", "-k", "2", "--json")))
    assert found.keys() == {"model", "split", "k", "pairs", "candidates", "recall"}
    assert (found["pairs"], found["candidates"], found["k"]) == (9, 9, 2)
    cut = encoder(
        "dataset", "pairs", "bag", "-q", "VALUES ('aaaaaaaaa', 'p'), ('', 'p'), ('a', '0')", "--split", "s"
    )
    assert "1 of 4 texts are longer than the 8 tokens" in cut.stderr
    assert "1 rows of the query were left out" in cut.stderr
    assert "of 9 pairs" in succeed(encoder("recall", "-m", "bag", "--top", "2"))


def test_what_is_refused(encoder: Call) -> None:
    refuse(encoder("dataset", "pairs", "bag"), 2, "--query")
    refuse(encoder("dataset", "pairs", "bag", "-q", "SELECT 1"), 5, "fewer than two columns", "42804")
    refuse(encoder("dataset", "fill", "bag", "-q", "SELECT 'a'"), 5, "is an encoder", "0A000")
    refuse(encoder("dataset", "fill", "bag", "-q", "SELECT 'a'", "--stream"), 5, "dataset pairs")
    refuse(encoder("recall", "-m", "bag"), 5, "no rows", "P0002")
    succeed(encoder("dataset", "pairs", "bag", "-q", PAIRS))
    refuse(encoder("train", "bag", "-n", "1"), 5, "in a batch of one pair")
    refuse(encoder("recall", "-m", "bag", "--split", "train", "-k", "30"), 5, "k must be below 30")
