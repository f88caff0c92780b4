"""llm_recall: the share of pairs whose positive is among the k nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

from ..support.encoder_pairs import add_pairs, make_bag
from ..support.tensors import value

Connection = psycopg.Connection[Any]


def add(conn: Connection, *pairs: tuple[list[int], list[int]], split: str = "validation") -> None:
    for anchor, positive in pairs:
        conn.execute(
            "INSERT INTO llm_dataset (model, split, tokens, target) VALUES ('bag', %s, %s, %s)",
            (split, anchor + positive, [0] * len(anchor) + [1] * len(positive)),
        )


def recall(conn: Connection, k: int, split: str = "validation") -> Any:
    return conn.execute(
        "SELECT pairs, candidates, recall FROM llm_recall('bag', %s, %s)", (split, k)
    ).fetchone()


def one_hot(conn: Connection) -> None:
    """A model whose embedding of one token is that token's unit vector: what is near is known by hand."""
    make_bag(conn, vocab=8, d_model=8)
    eye = np.eye(8, dtype=np.float32)
    conn.execute("UPDATE llm_param SET data = %s WHERE name IN ('wte.weight', 'out.weight')", (eye,))


def test_known_neighbours(conn: Connection) -> None:
    one_hot(conn)
    # Of four pairs the second anchor is nearer to the first's positive, the third's positive is nobody's.
    add(conn, ([1], [1]), ([1, 1, 2], [2]), ([3], [4]), ([5], [5, 6]))
    assert recall(conn, 1) == (4, 4, 0.5)
    assert recall(conn, 2) == (4, 4, 0.75)
    # The third's similarity is 0 to all: a tie counts against a pair.
    assert recall(conn, 3) == (4, 4, 0.75)


def test_equal_texts_are_one(conn: Connection) -> None:
    one_hot(conn)
    add(conn, ([1], [1]), ([1], [1]), ([2, 1], [1]), ([2], [2, 2, 1]), ([2], [2]))
    # Two positives of anchor 2: neither stands in the other's way. [1] is one candidate of three.
    assert recall(conn, 1) == (4, 3, 0.75)
    # All are equally near to anchor (2, 1).
    assert recall(conn, 2) == (4, 3, 0.75)


def test_a_collapsed_model(conn: Connection) -> None:
    make_bag(conn)
    conn.execute("UPDATE llm_param SET data = pg_llm_zeros_like(data)")
    add_pairs(conn, rows=20, split="validation")
    assert recall(conn, 10) == (20, 20, 0.0)


def test_against_numpy(conn: Connection) -> None:
    """More rows than a pass takes, with negatives, which are no candidates."""
    make_bag(conn)
    rng = np.random.default_rng(3)
    pairs = [
        (rng.integers(0, 40, rng.integers(1, 4)).tolist(), rng.integers(0, 40, 2).tolist()) for _ in range(70)
    ]
    add(conn, *pairs)
    conn.execute("UPDATE llm_dataset SET tokens = tokens || 3, target = target || 2")

    def embedded(texts: list[list[int]]) -> Any:
        return np.concatenate(
            [value(conn, "SELECT llm_embed_sequences('bag', %s, %s)", (t, [len(t)])) for t in texts]
        )

    anchors, candidates = (
        [list(t) for t in {tuple(a) for a, _ in pairs}],
        [list(t) for t in {tuple(p) for _, p in pairs}],
    )
    scores = embedded(anchors) @ embedded(candidates).T
    different = {(tuple(a), tuple(p)) for a, p in pairs}
    found = 0
    for a, p in different:
        row = scores[anchors.index(list(a))]
        own = row[candidates.index(list(p))]
        others = [s for s, c in zip(row, candidates, strict=True) if (a, tuple(c)) not in different]
        found += sum(s >= own for s in others) < 5
    assert recall(conn, 5) == (
        len(different),
        len(candidates),
        pytest.approx(found / len(different), abs=0.03),
    )


@pytest.mark.parametrize("k", ["0", "-1", "NULL", "4", "2147483647"])
def test_k_out_of_range(conn: Connection, k: str) -> None:
    make_bag(conn)
    add_pairs(conn, rows=4, split="validation")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"^k must be"):
        conn.execute(f"SELECT llm_recall('bag', k => {k})".encode())


def test_rows_of_any_model_count(conn: Connection) -> None:
    make_bag(conn)
    add_pairs(conn, rows=4, split="held")
    conn.execute("UPDATE llm_dataset SET model = NULL")
    assert recall(conn, 3, "held")[:2] == (4, 4)


def test_nothing_is_written_or_recorded(conn: Connection) -> None:
    make_bag(conn)
    add_pairs(conn, rows=4, split="validation")
    conn.execute("SELECT pg_llm_tape_clear()")
    conn.execute("SET default_transaction_read_only = on")
    recall(conn, 2)
    assert value(conn, "SELECT count(*) FROM pg_llm_tape(false)") == 0
