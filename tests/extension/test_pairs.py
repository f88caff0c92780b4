"""Rows of pairs split into sequences, what a batch excludes from its negatives, and ranks of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..amount import extended
from ..support.tensors import RELAXED, value

Connection = psycopg.Connection[Any]
Row = list[list[int]]

EXCLUDED = np.float32(-1e30)


def packed(rows: list[Row]) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens and segments [B, T] of rows of sequences, padded as llm_train_batch does."""
    width = max(sum(map(len, row)) for row in rows)
    tokens = [[id_ for sequence in row for id_ in sequence] for row in rows]
    segments = [[n for n, sequence in enumerate(row) for _ in sequence] for row in rows]
    return (
        [ids + [0] * (width - len(ids)) for ids in tokens],
        [numbers + [-1] * (width - len(numbers)) for numbers in segments],
    )


def split(conn: Connection, rows: list[Row], max_tokens: int = 100) -> Any:
    found = conn.execute(
        "SELECT sequences, lengths, n_rows, exclusions FROM pg_llm_pairs(%s, %s, %s)",
        (*packed(rows), max_tokens),
    ).fetchone()
    assert found is not None
    return found


def in_order(rows: list[Row]) -> Row:
    """All anchors, all positives, then all negatives, each by row."""
    negatives = [sequence for row in rows for sequence in row[2:]]
    return [row[0] for row in rows] + [row[1] for row in rows] + negatives


def excluded(rows: list[Row]) -> np.ndarray[Any, Any]:
    candidates = in_order(rows)[len(rows) :]
    mask = np.zeros((len(rows), len(candidates)), np.float32)
    for i, row in enumerate(rows):
        for j, candidate in enumerate(candidates):
            again = j < len(rows) and rows[j][0] == row[0]
            if j != i and (candidate == row[1] or again):
                mask[i, j] = EXCLUDED
    return mask


def test_a_batch(conn: Connection) -> None:
    rows = [[[1, 2], [3]], [[4], [5, 6, 7], [8]], [[9, 10], [11], [12], [13, 14]]]
    sequences, lengths, n_rows, exclusions = split(conn, rows)
    assert sequences == [1, 2, 4, 9, 10, 3, 5, 6, 7, 11, 8, 12, 13, 14]
    assert lengths == [2, 1, 2, 1, 3, 1, 1, 1, 2]
    assert n_rows == 3
    assert exclusions is None


def test_one_row_may_be_a_list(conn: Connection) -> None:
    assert conn.execute("SELECT * FROM pg_llm_pairs('{7,8,9}', '{0,1,1}', 2)").fetchone() == (
        [7, 8, 9],
        [1, 2],
        1,
        None,
    )


def test_what_is_no_negative(conn: Connection) -> None:
    """The own positive's text elsewhere, and other positives of the same anchor; not the row's negatives."""
    rows = [
        [[1], [2]],
        [[3], [2], [9]],
        [[1], [4], [2]],
        [[5], [6], [6]],
    ]
    *_, exclusions = split(conn, rows)
    x, o = EXCLUDED, np.float32(0)
    # candidates: the positives 2, 2, 4, 6, then the negatives 9, 2, 6
    expected = [
        [o, x, x, o, o, x, o],
        [x, o, o, o, o, x, o],
        [x, o, o, o, o, o, o],
        [o, o, o, o, o, o, x],
    ]
    np.testing.assert_array_equal(exclusions, np.array(expected))
    np.testing.assert_array_equal(exclusions, excluded(rows))


SEQUENCES = st.lists(st.integers(0, 2), min_size=1, max_size=3)
ROWS = st.lists(st.lists(SEQUENCES, min_size=2, max_size=4), min_size=1, max_size=5)


@RELAXED
@given(rows=ROWS)
def test_any_batch(conn: Connection, rows: list[Row]) -> None:
    sequences, lengths, n_rows, exclusions = split(conn, rows)
    expected = in_order(rows)
    assert sequences == [id_ for sequence in expected for id_ in sequence]
    assert lengths == [len(sequence) for sequence in expected]
    assert n_rows == len(rows)
    mask = excluded(rows)
    if mask.any():
        np.testing.assert_array_equal(exclusions, mask)
    else:
        assert exclusions is None


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        ("{0,1,1}", None),
        ("{0,1,-1}", None),
        ("{0,1,2}", None),
        ("{0,1,-5}", None),
        ("{0,0,1}", None),
        ("{0,0,0}", "has no positive"),
        ("{0,-1,-1}", "has no positive"),
        ("{-1,-1,-1}", "has no anchor"),
        ("{1,1,1}", "begins with target 1"),
        ("{0,2,2}", "has target 2 after 0"),
        ("{0,1,0}", "has target 0 after 1"),
        ("{0,-1,1}", "has target 1 at position 3, after padding"),
        ("{-1,0,1}", "has target 0 at position 2, after padding"),
        ("{0,2147483647,1}", "has target 2147483647 after 0"),
        ("{-2147483648,0,1}", "after padding"),
    ],
)
def test_what_is_wrong_with_a_row(conn: Connection, segments: str, problem: str | None) -> None:
    found = value(conn, "SELECT pg_llm_pair_problem('{5,6,7}', %s, 3)", (segments,))
    assert (found is None) == (problem is None)
    if problem is None:
        value(conn, "SELECT pg_llm_pairs('{5,6,7}', %s, 3)", (segments,))
        return
    assert problem in found
    batch = f"{{{{0,1,1}},{segments}}}"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=rf"row 2 .*{problem}"):
        conn.execute("SELECT pg_llm_pairs('{{1,2,3},{5,6,7}}', %s, 3)", (batch,))


def test_a_long_sequence(conn: Connection) -> None:
    query = "SELECT pg_llm_pair_problem('{5,6,7}', '{0,1,1}', %s)"
    assert value(conn, query, (2,)) is None
    assert value(conn, query, (1,)) == "has more than 1 tokens in its sequence 1, and the model takes no more"


@pytest.mark.parametrize(
    "call",
    [
        "pg_llm_pairs('{}', '{}', 4)",
        "pg_llm_pairs('{1,2}', '{0,1,1}', 4)",
        "pg_llm_pairs('{{1,2}}', '{0,1}', 4)",
        "pg_llm_pairs('{{{1},{2}}}', '{{{0},{1}}}', 4)",
        "pg_llm_pairs('{1,2}', '{0,1}', 0)",
        "pg_llm_pair_problem('{1,2}', '{0,1}', 0)",
        "pg_llm_pair_problem('{1,2}', '{}', 4)",
        "pg_llm_pair_problem('{{1,2}}', '{{0,1}}', 4)",
        "pg_llm_ranks('[1,2]', '{0}', '{0}')",
        "pg_llm_ranks('[[1,2]]', '{0,0}', '{0}')",
        "pg_llm_ranks('[[1,2]]', '{{0}}', '{{0}}')",
    ],
)
def test_refused(conn: Connection, call: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute(f"SELECT {call}".encode())


@pytest.mark.parametrize(
    "call", ["pg_llm_pairs('{1,NULL}', '{0,1}', 4)", "pg_llm_pairs('{1,2}', '{0,NULL}', 4)"]
)
def test_null_elements(conn: Connection, call: str) -> None:
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        conn.execute(f"SELECT {call}".encode())


def ranks(scores: np.ndarray[Any, Any], pairs: list[tuple[int, int]]) -> list[int]:
    """As the function's comment says."""
    found = []
    for row, column in pairs:
        paired = {c for r, c in pairs if r == row}
        found.append(
            1
            + sum(not scores[row, j] < scores[row, column] for j in range(scores.shape[1]) if j not in paired)
        )
    return found


@RELAXED
@given(data=st.data(), m=st.integers(1, 5), n=st.integers(1, 6))
def test_ranks(conn: Connection, data: st.DataObject, m: int, n: int) -> None:
    numbers = st.sampled_from([-1.0, 0.0, 0.5, 1.0, float("nan"), float("inf")])
    scores = np.array(data.draw(st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=m, max_size=m)))
    cells = st.tuples(st.integers(0, m - 1), st.integers(0, n - 1))
    pairs = data.draw(st.lists(cells, max_size=8))
    rows, columns = [r for r, _ in pairs], [c for _, c in pairs]
    found = value(
        conn,
        "SELECT pg_llm_ranks(%s::float8[]::tensor, %s::int[], %s::int[])",
        (scores.tolist(), rows, columns),
    )
    assert found == ranks(scores, pairs)


@pytest.mark.parametrize("pair", [("{2}", "{0}"), ("{0}", "{3}"), ("{-1}", "{0}"), ("{0}", "{-1}")])
def test_ranks_of_what_is_not_there(conn: Connection, pair: tuple[str, str]) -> None:
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match=r"have no element"):
        conn.execute("SELECT pg_llm_ranks(pg_llm_full('{2,3}', 1), %s, %s)", pair)


@extended
def test_a_large_batch(conn: Connection) -> None:
    """4,000 rows of which every tenth anchor is the same."""
    rows = [[[i if i % 10 else 0, 1], [i, i, 1]] for i in range(4000)]
    *_, lengths, n_rows, exclusions = split(conn, rows)
    assert (len(lengths), n_rows, exclusions.shape) == (8000, 4000, (4000, 4000))
