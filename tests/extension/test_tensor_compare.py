"""Casts from and to tensor; equality, order, hashes and indexes."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from psycopg import errors

from ..support.tensors import ARRAYS, FLOATS, RELAXED, Array, Connection, array_of, text_of, value

# ---- casts ----


@RELAXED
@given(a=hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=5, max_side=4), elements=FLOATS))
def test_array_round_trip(conn: Connection, a: Array) -> None:
    for element in ("real", "double precision"):
        binary, back = conn.execute(
            f"SELECT pg_llm_tensor_send(x), x::{element}[] FROM (SELECT %s::{element}[]::tensor) q(x)",
            [a.astype(np.float64).tolist()],
        ).fetchone() or (b"", [])
        np.testing.assert_array_equal(array_of(binary), a)
        np.testing.assert_array_equal(np.array(back, np.float32), a)


def test_other_arrays(conn: Connection) -> None:
    for query, out in (
        ("'{{1,2},{3,4}}'::integer[]::tensor", "[[1,2],[3,4]]"),
        ("ARRAY[1.5, 2]::tensor", "[1.5,2]"),
        ("'[3:4]={1,2}'::real[]::tensor", "[1,2]"),
        ("'{}'::real[]::tensor", "[]"),
        ("'{}'::double precision[]::tensor", "[]"),
        ("2.5::tensor", "2.5"),
        ("3::tensor", "3"),
        ("'NaN'::double precision::tensor", "NaN"),
    ):
        assert value(conn, f"SELECT ({query})::text") == out
    assert value(conn, "SELECT '7'::tensor::real[]") == [7]
    assert value(conn, "SELECT '[[],[]]'::tensor::real[]") == []


@pytest.mark.parametrize(
    ("query", "state"),
    [
        ("'{1,NULL}'::real[]::tensor", "22004"),
        ("'{1,NULL}'::double precision[]::tensor", "22004"),
        ("'{1,NULL}'::numeric[]::tensor", "22004"),
        ("'{1e39}'::double precision[]::tensor", "22003"),
        ("'{1e39}'::numeric[]::tensor", "22003"),
        ("1e39::double precision::tensor", "22003"),
        ("'[1,2]'::tensor::double precision", "22023"),
        ("'[]'::tensor::double precision", "22023"),
        ("'[[[[[[[1]]]]]]]'::tensor::real[]", "54000"),
        ("tensor('\\x0000'::bytea, '{1}')", "22023"),
        ("tensor('\\x00000000'::bytea, '{2}')", "22023"),
        ("tensor('\\x'::bytea, '{-1}')", "22023"),
        ("tensor('\\x'::bytea, '{{1,1}}')", "22023"),
        ("tensor('\\x'::bytea, '{NULL}')", "22004"),
        ("tensor('\\x'::bytea, '{100000,100000,100000}')", "54000"),
        ("tensor('\\x00000000'::bytea, '{1,1,1,1,1,1,1,1,1}')", "54000"),
    ],
)
def test_cast_errors(conn: Connection, query: str, state: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("SELECT " + query)
    assert caught.value.sqlstate == state


def test_casts_are_asked_for(conn: Connection) -> None:
    """Arrays become tensors where they are stored, nothing does unasked in an expression."""
    conn.execute("CREATE TEMP TABLE t (x tensor, y real[])")
    conn.execute("INSERT INTO t (x) VALUES (ARRAY[1.0]::real[])")
    with pytest.raises(errors.DatatypeMismatch):
        conn.execute("INSERT INTO t (y) VALUES ('[1]'::tensor)")
    with pytest.raises(errors.UndefinedFunction):
        conn.execute("SELECT ARRAY[1.0]::real[] + '[1]'::tensor")
    unasked = (
        "SELECT castsource = casttarget FROM pg_cast"
        " WHERE castcontext = 'i' AND 'tensor'::regtype IN (castsource, casttarget)"
    )
    assert conn.execute(unasked).fetchall() == [(True,)]
    given = "SELECT count(*) FROM pg_cast WHERE castcontext <> 'e' AND castsource = 'tensor'::regtype"
    assert value(conn, given) == 1


@RELAXED
@given(a=ARRAYS)
def test_bytes_round_trip(conn: Connection, a: Array) -> None:
    payload, back = conn.execute(
        "SELECT x::bytea, pg_llm_tensor_send(tensor(x::bytea, shape(x)))"
        " FROM (SELECT tensor(%b, %s::int[])) q(x)",
        [a.astype("<f4").tobytes(), list(a.shape)],
    ).fetchone() or (b"", b"")
    np.testing.assert_array_equal(np.frombuffer(payload, "<f4").reshape(a.shape), a)
    np.testing.assert_array_equal(array_of(back), a)


# ---- comparison ----

EQUAL_PAIRS = [("[NaN,1]", "[nan,1]"), ("[0,-0]", "[-0,0]"), ("5", "5.0"), ("[]", "[]")]
ASCENDING = [
    "[]",
    "[[],[]]",
    "[-Infinity]",
    "[-1,5]",
    "-0",
    "[0]",
    "[0,0]",
    "[[0,0]]",
    "[0,1]",
    "[1]",
    "[NaN]",
]


def test_equality_and_hashes(conn: Connection) -> None:
    for a, b in EQUAL_PAIRS:
        assert conn.execute(
            "SELECT x = y, x <> y, pg_llm_tensor_hash(x) = pg_llm_tensor_hash(y),"
            " pg_llm_tensor_hash_extended(x, 7) = pg_llm_tensor_hash_extended(y, 7), pg_llm_tensor_cmp(x, y)"
            " FROM (SELECT %s::text::tensor, %s::text::tensor) q(x, y)",
            [a, b],
        ).fetchone() == (True, False, True, True, 0)
    assert not value(conn, "SELECT '[1,2]'::tensor = '[[1,2]]'::tensor")
    assert not value(conn, "SELECT '[1]'::tensor = '1'::tensor")
    low_half = "pg_llm_tensor_hash_extended('[1,2]', 0) & 4294967295"
    assert value(conn, f"SELECT {low_half} = pg_llm_tensor_hash('[1,2]')::bigint & 4294967295")


@RELAXED
@given(a=ARRAYS, b=ARRAYS, c=ARRAYS)
def test_order_is_total(conn: Connection, a: Array, b: Array, c: Array) -> None:
    rows = conn.execute(
        """SELECT i, j, pg_llm_tensor_cmp(x, y), x < y, x <= y, x = y, x >= y, x > y,
                  pg_llm_tensor_hash(x) = pg_llm_tensor_hash(y)
           FROM unnest(%(t)s::text[]::tensor[]) WITH ORDINALITY p(x, i),
                unnest(%(t)s::text[]::tensor[]) WITH ORDINALITY q(y, j)""",
        {"t": [text_of(a), text_of(b), text_of(c)]},
    ).fetchall()
    order = {(i, j): cmp for i, j, cmp, *_ in rows}
    for i, j, cmp, less, less_equal, equal, greater_equal, greater, same_hash in rows:
        assert order[j, i] == -cmp
        assert (less, less_equal, equal, greater_equal, greater) == (
            cmp < 0,
            cmp <= 0,
            cmp == 0,
            cmp >= 0,
            cmp > 0,
        )
        assert same_hash or not equal
        for k in (1, 2, 3):
            if cmp <= 0 and order[j, k] <= 0:
                assert order[i, k] <= 0


def test_distinct_group_and_sort(conn: Connection) -> None:
    conn.execute("CREATE TEMP TABLE t (x tensor)")
    conn.execute(
        "INSERT INTO t SELECT unnest(%s::text[]::tensor[])", [[*ASCENDING[::-1], "[0]", "[-0]", "[NaN]"]]
    )
    for hashed in ("on", "off"):
        conn.execute(f"SET enable_hashagg = {hashed}")
        assert value(conn, "SELECT count(*) FROM (SELECT DISTINCT x FROM t) q") == len(ASCENDING)
        assert value(conn, "SELECT count(*) FROM t GROUP BY x HAVING x = '[0]'") == 3
    ordered = [
        text for (text,) in conn.execute("SELECT x::text FROM (SELECT DISTINCT x FROM t) q ORDER BY q.x")
    ]
    assert [t.replace("-0", "0") for t in ordered] == [t.replace("-0", "0") for t in ASCENDING]
    for join in ("hashjoin", "mergejoin", "nestloop"):
        for other in ("hashjoin", "mergejoin", "nestloop"):
            conn.execute(f"SET enable_{other} = {'on' if other == join else 'off'}")
        assert value(conn, "SELECT count(*) FROM t a JOIN t b USING (x)") == 9 + 4 + len(ASCENDING) - 2


def test_indexes(conn: Connection) -> None:
    conn.execute("CREATE TEMP TABLE t (x tensor PRIMARY KEY)")
    conn.execute("INSERT INTO t SELECT pg_llm_full('{4}', i % 500) FROM generate_series(1, 500) i")
    with pytest.raises(errors.UniqueViolation):
        conn.execute("INSERT INTO t VALUES ('[7,7,7,7]')")
    conn.execute("CREATE INDEX t_hash ON t USING hash (x)")
    conn.execute("SET enable_seqscan = off")
    assert "Index" in value(conn, "EXPLAIN SELECT * FROM t WHERE x = '[7,7,7,7]'")
    assert value(conn, "SELECT count(*) FROM t WHERE x = '[7,7,7,7]'") == 1
    assert value(conn, "SELECT count(*) FROM t WHERE x < '[7,7,7,7]'") == 7
