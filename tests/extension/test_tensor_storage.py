"""Stored tensors, accessors, constructors and aggregates; what the catalog says; memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from psycopg import errors

from ..amount import extended
from ..support.tensors import RELAXED, Array, Connection, text_of, value
from ..support.waiting import work_of

# ---- storage ----


@pytest.mark.parametrize("elements", [1, 20, 40, 600, 100_000, 3_000_000])
def test_stored_values(conn: Connection, elements: int) -> None:
    """In a short header, in line, and out of line in thousands of chunks."""
    conn.execute("CREATE TEMP TABLE t (x tensor)")
    conn.execute("INSERT INTO t VALUES (pg_llm_normal(ARRAY[%s], 0, 1, 1, 1))", [elements])
    assert value(conn, "SELECT x = pg_llm_normal(ARRAY[%s], 0, 1, 1, 1) FROM t", [elements])
    assert value(conn, "SELECT pg_column_size(x) >= %s FROM t", [4 * elements]), "stored uncompressed"
    conn.execute("UPDATE t SET x = x")
    assert value(conn, "SELECT norm(x) = norm(pg_llm_normal(ARRAY[%s], 0, 1, 1, 1)) FROM t", [elements])


def test_storage_is_external(conn: Connection) -> None:
    assert conn.execute(
        "SELECT typstorage, typalign, typlen FROM pg_type WHERE oid = 'tensor'::regtype"
    ).fetchone() == ("e", "d", -1)


@pytest.mark.parametrize("form", ["text", "binary"])
def test_copy_round_trip(conn: Connection, form: str) -> None:
    """What pg_dump does."""
    conn.execute("CREATE TEMP TABLE a (id int, x tensor, y tensor[])")
    conn.execute("CREATE TEMP TABLE b (LIKE a)")
    conn.execute(
        "INSERT INTO a SELECT i, pg_llm_normal(ARRAY[i, 3], 0, 1, i, 0), ARRAY['[1,2]', NULL, '7']::tensor[]"
        " FROM generate_series(1, 200) i"
    )
    conn.execute("INSERT INTO a VALUES (0, NULL, NULL), (-1, '[NaN,-Infinity,-0]', '{}')")
    with conn.cursor() as cursor, cursor.copy(f"COPY a TO STDOUT (FORMAT {form})") as copy:
        data = b"".join(bytes(block) for block in copy)
    with conn.cursor() as cursor, cursor.copy(f"COPY b FROM STDIN (FORMAT {form})") as copy:
        copy.write(data)
    assert (
        value(
            conn, "SELECT count(*) FROM a JOIN b USING (id) WHERE (a.x, a.y) IS NOT DISTINCT FROM (b.x, b.y)"
        )
        == 202
    )


def test_values_survive_plpgsql_records_and_subqueries(conn: Connection) -> None:
    conn.execute(
        """DO $$
        DECLARE
            a tensor := '[1,2,3]';
            b tensor;
            many tensor[];
            r record;
        BEGIN
            b := a;
            a := pg_llm_zeros_like(a);
            ASSERT b = '[1,2,3]', 'assignment copies';
            many := ARRAY[a, b];
            SELECT many[2] AS x, b AS y INTO r;
            ASSERT r.x = r.y;
            FOR i IN 1..1000 LOOP
                b := pg_llm_ones_like(b);
            END LOOP;
            ASSERT b = '[1,1,1]';
            BEGIN
                b := pg_llm_full('{-1}', 0);
            EXCEPTION WHEN invalid_parameter_value THEN NULL;
            END;
            ASSERT b = '[1,1,1]', 'an error leaves the variable';
        END $$"""
    )
    assert value(conn, "WITH t AS MATERIALIZED (SELECT '[1,2]'::tensor x) SELECT a.x = b.x FROM t a, t b")


# ---- accessors, constructors, aggregates ----


def test_accessors(conn: Connection) -> None:
    assert value(conn, "SELECT shape('[[1,2,3],[4,5,6]]')") == [2, 3]
    assert value(conn, "SELECT shape('5')") == []
    assert value(conn, "SELECT ndims('[[1]]')") == 2
    assert value(conn, "SELECT ndims('1')") == 0
    assert value(conn, "SELECT norm('[[3,0],[0,-4]]')") == 5
    assert value(conn, "SELECT norm('[]')") == 0
    assert value(conn, "SELECT '[[2.5]]'::tensor::double precision") == 2.5
    assert value(conn, "SELECT pg_llm_zeros_like('[[NaN,1]]')::text") == "[[0,0]]"
    assert value(conn, "SELECT pg_llm_ones_like('[[NaN,1]]')::text") == "[[1,1]]"
    assert value(conn, "SELECT pg_llm_full('{2,1}', -1.5)::text") == "[[-1.5],[-1.5]]"
    assert value(conn, "SELECT pg_llm_full('{}', 3)::text") == "3"
    assert value(conn, "SELECT pg_llm_full('{0}', 3)::text") == "[]"


def test_normal_numbers(conn: Connection) -> None:
    draw: Callable[[int, int], Array] = lambda seed, stream: np.array(  # noqa: E731
        value(conn, "SELECT pg_llm_normal('{100000}', 3, 2, %s, %s)::real[]", [seed, stream]), np.float32
    )
    x = draw(1, 2)
    np.testing.assert_array_equal(x, draw(1, 2))
    assert abs(x.mean() - 3) < 0.03
    assert abs(x.std() - 2) < 0.03
    for other in (draw(2, 2), draw(1, 3)):
        assert abs(np.corrcoef(x, other)[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("query", "state"),
    [
        ("pg_llm_full('{-1}', 0)", "22023"),
        ("pg_llm_full('{2,NULL}', 0)", "22004"),
        ("pg_llm_full('{{1,2}}', 0)", "22023"),
        ("pg_llm_full('{100000,100000}', 0)", "54000"),
        ("pg_llm_full('{20000,20000}', 0)", "54000"),
        ("pg_llm_full('{2147483647,2147483647,2147483647,2147483647}', 0)", "54000"),
        ("pg_llm_full('{1,1,1,1,1,1,1,1,1}', 0)", "54000"),
        ("pg_llm_full('{1}', 1e300)", "22003"),
        ("pg_llm_normal('{1}', 'NaN', 1, 1, 1)", "22023"),
        ("pg_llm_normal('{1}', 0, -1, 1, 1)", "22023"),
    ],
)
def test_constructor_errors(conn: Connection, query: str, state: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("SELECT " + query)
    assert caught.value.sqlstate == state


LONG = "('[' || repeat('0.12345678901234567,', 4999999) || '1]')"


@extended
@pytest.mark.parametrize(
    ("query", "argument"),
    [
        ("norm(pg_llm_normal('{8000,8000}', 0, 1, 1, 1))", "1"),
        ("length(pg_llm_full('{4000,4000}', 0.1)::text)", "1"),
        (f"shape({LONG}::tensor)", f"length({LONG})"),
    ],
    ids=["drawing", "writing", "reading"],
)
def test_long_calls_can_be_cancelled(conn: Connection, query: str, argument: str) -> None:
    """In their midst: PostgreSQL itself would see the cancel only once they are done.

    Nor does it while it builds the argument: that is left out of what is compared.
    """

    def cancelled() -> None:
        with pytest.raises(errors.QueryCanceled):
            conn.execute("SELECT " + query)

    built = work_of(conn, lambda: conn.execute("SELECT " + argument))
    whole = work_of(conn, lambda: conn.execute("SELECT " + query))
    conn.execute("SET statement_timeout = '100ms'")
    assert work_of(conn, cancelled) < built + (whole - built) / 2


@pytest.mark.parametrize(
    "function", ["shape", "ndims", "norm", "pg_llm_item", "pg_llm_zeros_like", "pg_llm_ones_like"]
)
def test_null_gives_null(conn: Connection, function: str) -> None:
    assert value(conn, f"SELECT {function}(NULL::tensor) IS NULL")


@RELAXED
@given(a=hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(2), st.integers(1, 4)),
                    elements=st.floats(-1000, 1000, width=32)))  # fmt: skip
def test_aggregates(conn: Connection, a: Array) -> None:
    row = conn.execute(
        "SELECT sum(x)::bytea, avg(x)::bytea FROM unnest(%s::text[]::tensor[]) x",
        [[text_of(part) for part in a] + [None]],
    ).fetchone() or (b"", b"")
    exact = a.astype(np.float64)
    np.testing.assert_array_equal(
        np.frombuffer(row[0], "<f4").reshape(a.shape[1:]), exact.sum(0).astype(np.float32)
    )
    np.testing.assert_array_equal(
        np.frombuffer(row[1], "<f4").reshape(a.shape[1:]), exact.mean(0).astype(np.float32)
    )


def test_aggregates_of_nothing_and_of_different_shapes(conn: Connection) -> None:
    assert conn.execute("SELECT sum(x), avg(x) FROM (SELECT '1'::tensor WHERE false) q(x)").fetchone() == (
        None,
        None,
    )
    assert value(conn, "SELECT sum(x) IS NULL FROM (SELECT NULL::tensor) q(x)")
    with pytest.raises(errors.InvalidParameterValue, match=r"\[2\] and \[1,2\]"):
        conn.execute("SELECT sum(x) FROM (VALUES ('[1,2]'::tensor), ('[[1,2]]')) q(x)")
    rows = conn.execute(
        "SELECT (sum(x) OVER (ORDER BY i))::text"
        " FROM (VALUES (1, '[1]'::tensor), (2, '[2]'), (3, '[3]')) q(i, x)"
    ).fetchall()
    assert rows == [("[1]",), ("[3]",), ("[6]",)]


# ---- catalog, memory ----


def test_undecorated_literals_are_tensors(conn: Connection) -> None:
    for query in (
        "pg_llm_gelu('[1,2]')",
        "pg_llm_relu('[1,2]')",
        "pg_llm_softmax('[1,2]')",
        "pg_llm_add('[1]', '[2]')",
        "pg_llm_rmsnorm('[1,2]')",
        "pg_llm_layernorm('[1,2]', '[1,1]', '[0,0]')",
        "pg_llm_layernorm('[1,2]', '[1,1]', '[0,0]', 1e-5)",
        "pg_llm_zeros_like('[1]')",
        "pg_llm_ones_like('[1]')",
        "pg_llm_transpose('[[1,2]]', 1, 2)",
        "pg_llm_grad_clip('[3,4]', 1)",
        "pg_llm_cross_entropy('[1,2]', 1)",
        "'[1,2]' + '[3,4]'::tensor",
        "'[1,2]'::tensor * '[3,4]'",
    ):
        assert value(conn, f"SELECT pg_typeof({query})::text") == "tensor", query


def test_type_functions_are_immutable_and_parallel_safe(conn: Connection) -> None:
    rows = conn.execute(
        r"""SELECT oid::regprocedure::text FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
              AND (provolatile <> 'i' OR proparallel <> 's' OR NOT proisstrict)
              AND proname <> 'pg_llm_tensor_id'
              AND (proname LIKE 'pg\_llm\_tensor\_%' OR proname IN ('tensor', 'shape', 'ndims', 'norm',
                   'pg_llm_full', 'pg_llm_normal', 'pg_llm_item', 'pg_llm_zeros_like', 'pg_llm_ones_like'))"""
    ).fetchall()
    assert rows == []


def test_every_object_of_the_type_is_described(conn: Connection) -> None:
    rows = conn.execute(
        """SELECT pg_describe_object(d.classid, d.objid, 0)
           FROM pg_depend d
           WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
             AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_llm')
             AND d.classid::regclass::text IN ('pg_proc', 'pg_operator', 'pg_cast', 'pg_opclass')
             AND obj_description(d.objid, d.classid::regclass::name) IS NULL"""
    ).fetchall()
    assert rows == []


def resident_megabytes(conn: Connection) -> float:
    try:
        status = Path(f"/proc/{conn.info.backend_pid}/status").read_text()
    except OSError:
        pytest.skip("the server's /proc is out of reach")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def test_errors_and_many_values_do_not_leak(conn: Connection) -> None:
    """2 GB pass through one backend, half of it through failing statements."""
    broken = "[" + "1," * 2_000_000 + "x]"
    query = (
        "SELECT sum(norm(pg_llm_zeros_like(x))) FROM (SELECT pg_llm_full('{1000,1000}', i)"
        " FROM generate_series(1, 20) i) q(x)"
    )
    for _ in range(2):
        conn.execute(query)
    before = resident_megabytes(conn)
    for _ in range(5):
        with pytest.raises(errors.InvalidTextRepresentation):
            conn.execute("SELECT %s::text::tensor", [broken])
        conn.execute(query)
    assert resident_megabytes(conn) - before < 100
