"""The type tensor: text, binary protocol, type modifiers, casts, comparison, storage, aggregates.

Values are read back as text, real[] or bytes, so that no client-side adapter stands between the type and
the test.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from psycopg import errors

Connection = psycopg.Connection[Any]
Array = NDArray[np.float32]

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=5, max_side=5), elements=FLOATS)
RELAXED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def value(conn: Connection, query: str, parameters: Any = None) -> Any:
    row = conn.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def number(x: np.float32) -> str:
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "Infinity" if x > 0 else "-Infinity"
    return repr(float(x)) if x != 0 else ("-0" if np.signbit(x) else "0")


def text_of(a: Array) -> str:
    """The text form; a float32's own double has digits enough to read back as the same float32."""
    if a.ndim == 0:
        return number(a[()])
    return "[" + ",".join(text_of(row) for row in a) + "]"


def binary_of(a: Array) -> bytes:
    """int8 version, dtype, ndim, flags; int32 dimensions in network order; little-endian float32."""
    return (
        struct.pack("!4B", 1, 1, a.ndim, 0) + struct.pack(f"!{a.ndim}i", *a.shape) + a.astype("<f4").tobytes()
    )


def array_of(binary: bytes) -> Array:
    version, dtype, ndim, flags = binary[:4]
    assert (version, dtype, flags) == (1, 1, 0)
    shape = struct.unpack(f"!{ndim}i", binary[4 : 4 + 4 * ndim])
    return np.frombuffer(binary[4 + 4 * ndim :], "<f4").reshape(shape)


def receive(conn: Connection, payload: bytes, column_type: str = "tensor") -> bytes:
    """Sends one value through the type's receive function by binary COPY, and gives what its send returns."""
    conn.execute(f"CREATE TEMP TABLE received (x {column_type})")
    try:
        with conn.cursor() as cursor, cursor.copy("COPY received FROM STDIN (FORMAT binary)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
            copy.write(struct.pack("!hi", 1, len(payload)) + payload + struct.pack("!h", -1))
        return bytes(value(conn, "SELECT pg_llm_tensor_send(x) FROM received"))
    finally:
        conn.execute("DROP TABLE received")


# ---- text ----


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("[[1,2],[3,4]]", "[[1,2],[3,4]]"),
        ("7", "7"),
        ("  -2.5e-3 ", "-0.0025"),
        (" [ [ 1 , +2 ] ,\n\t[ .5 , 4. ] ] ", "[[1,2],[0.5,4]]"),
        ("[]", "[]"),
        ("[[],[]]", "[[],[]]"),
        ("[[[]]]", "[[[]]]"),
        ("[nan,NaN,-NaN]", "[NaN,NaN,NaN]"),
        ("[inf,-inf,Infinity,-INFINITY]", "[Infinity,-Infinity,Infinity,-Infinity]"),
        ("[0,-0]", "[0,-0]"),
        ("[0.1,16777216,1e10,1.17549435e-38,1e-45]", "[0.1,1.6777216e+07,1e+10,1.1754944e-38,1e-45]"),
        ("[0.30000001192092896]", "[0.3]"),
        ("[[[[[[[[1]]]]]]]]", "[[[[[[[[1]]]]]]]]"),
    ],
)
def test_text_form(conn: Connection, text: str, out: str) -> None:
    assert value(conn, "SELECT %s::text::tensor::text", [text]) == out


@pytest.mark.parametrize(
    ("text", "state", "message"),
    [
        ("", "22P02", "end, character 1"),
        ("[", "22P02", "end, character 2"),
        ("[1,]", "22P02", 'character 4, found "]"'),
        ("[1 2]", "22P02", 'Expected "," or "]" at character 4, found "2"'),
        ("[1,2]]", "22P02", "nothing more at character 6"),
        ("[1,2", "22P02", 'Expected "," or "]" at the end'),
        ("1,2", "22P02", "nothing more"),
        ("[a]", "22P02", 'a number or "[" at character 2'),
        ("[1e]", "22P02", "exponent"),
        ("[--1]", "22P02", "a number"),
        ("[.]", "22P02", "a number"),
        ("[0x10]", "22P02", '"," or "]"'),
        ("[né]", "22P02", 'found "n"'),
        ("[é]", "22P02", 'found "é"'),
        ("[[1,2],[3]]", "22P02", "1 elements ends at character 10, those before it have 2"),
        ("[[1],[2,3]]", "22P02", "2 elements"),
        ("[1,[2]]", "22P02", "Depth 2 at character 4, depth 1 before"),
        ("[[1],2]", "22P02", "Depth 1"),
        ("[[],[1]]", "22P02", "1 elements"),
        ("[[1],[]]", "22P02", "0 elements"),
        ("[[[1]],[]]", "22P02", "0 elements"),
        ("[[[]],[1]]", "22P02", "Depth 2"),
        ("[1e39]", "22003", '"1e39" is out of range'),
        ("[1,-1e9999]", "22003", "character 4"),
        ("[1e-60]", "22003", "out of range"),
        ("[" * 9 + "]" * 9, "54000", "at most 8"),
        ("[" * 100_000, "54000", "at most 8"),
    ],
)
def test_text_errors(conn: Connection, text: str, state: str, message: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("SELECT %s::text::tensor", [text])
    assert caught.value.sqlstate == state
    assert message in str(caught.value)


@RELAXED
@given(a=ARRAYS)
def test_text_round_trip(conn: Connection, a: Array) -> None:
    binary, out = conn.execute(
        "SELECT pg_llm_tensor_send(x), x::text FROM (SELECT %s::text::tensor) q(x)", [text_of(a)]
    ).fetchone() or (b"", "")
    np.testing.assert_array_equal(array_of(binary), a)
    again = value(conn, "SELECT pg_llm_tensor_send(%s::text::tensor)", [out])
    assert again == binary


@RELAXED
@given(x=st.floats(allow_nan=False, allow_infinity=False, min_value=-3e38, max_value=3e38))
def test_numbers_are_rounded_once(conn: Connection, x: float) -> None:
    if 0 < abs(x) < 1e-44:
        return  # out of range or subnormal on the edge of it
    got = np.frombuffer(value(conn, "SELECT %s::text::tensor::bytea", [repr(x)]), "<f4")[0]
    assert got == np.float32(x)


def test_halfway_numbers_round_to_even(conn: Connection) -> None:
    """16777217 lies between two float32 numbers; a digit far behind the point decides."""
    got = value(conn, "SELECT '[16777217,16777217.0000000001,16777219,16777218.9999999999]'::tensor::real[]")
    assert got == [16777216, 16777218, 16777220, 16777218]


@RELAXED
@given(text=st.text(alphabet="[],.+-eE0123456789naifNI xé\t", max_size=40))
def test_any_text_is_a_value_or_an_error(conn: Connection, text: str) -> None:
    pid = conn.info.backend_pid
    try:
        out = value(conn, "SELECT %s::text::tensor::text", [text])
        assert value(conn, "SELECT %s::text::tensor::text", [out]) == out
    except psycopg.DataError as error:
        assert error.sqlstate in ("22P02", "22003")
    except psycopg.OperationalError as error:
        assert error.sqlstate == "54000"
    assert value(conn, "SELECT pg_backend_pid()") == pid


def test_large_text_is_fast(conn: Connection) -> None:
    """Two million numbers there and back; a quadratic parser would take hours."""
    conn.execute("SET statement_timeout = '60s'")
    rows, cols = 2000, 1000
    shape, total, same = conn.execute(
        """WITH t AS MATERIALIZED (SELECT pg_llm_normal(ARRAY[%s, %s], 0, 1, 5, 6) AS x),
                u AS MATERIALIZED (SELECT x::text AS s FROM t)
           SELECT shape(s::tensor), length(s), s::tensor = x FROM t, u""",
        [rows, cols],
    ).fetchone() or ([], 0, False)
    assert shape == [rows, cols]
    assert total > 8 * rows * cols
    assert same


def test_soft_errors(conn: Connection) -> None:
    if conn.info.server_version < 160000:
        pytest.skip("pg_input_is_valid came with PostgreSQL 16")
    assert value(conn, "SELECT pg_input_is_valid('[1,2]', 'tensor')")
    for text in ("[1,", "[[1],[2,3]]", "[1,[2]]", "[1e99]", "[" * 9):
        assert not value(conn, "SELECT pg_input_is_valid(%s, 'tensor')", [text])
    assert not value(conn, "SELECT pg_input_is_valid('[1,2]', 'tensor(3)')")


# ---- binary ----


@RELAXED
@given(a=ARRAYS)
def test_binary_round_trip(conn: Connection, a: Array) -> None:
    out = receive(conn, binary_of(a))
    np.testing.assert_array_equal(array_of(out), a)


def test_binary_keeps_empty_shapes(conn: Connection) -> None:
    assert array_of(receive(conn, binary_of(np.zeros((3, 0, 2), np.float32)))).shape == (3, 0, 2)
    assert array_of(receive(conn, binary_of(np.zeros((0, 3), np.float32)))).shape == (0, 3)


def test_nan_leaves_in_one_form(conn: Connection) -> None:
    odd = np.array([0xFFC00001, 0x7F800001], "<u4").view("<f4")
    assert receive(conn, binary_of(odd))[8:] == struct.pack("<2I", 0x7FC00000, 0x7FC00000)


@pytest.mark.parametrize(
    ("payload", "state"),
    [
        (b"", "08P01"),
        (b"\x01\x01\x01", "08P01"),
        (b"\x01\x01\x02\x00\x00\x00\x00\x01", "08P01"),
        (b"\x02\x01\x00\x00" + bytes(4), "22P03"),
        (b"\x01\x02\x00\x00" + bytes(4), "22P03"),
        (b"\x01\x01\x09\x00" + bytes(36), "22P03"),
        (b"\x01\x01\x00\x01" + bytes(4), "22P03"),
        (b"\x01\x01\x00\x00", "22P03"),
        (b"\x01\x01\x00\x00" + bytes(5), "22P03"),
        (b"\x01\x01\x01\x00" + struct.pack("!i", 2) + bytes(4), "22P03"),
        (b"\x01\x01\x01\x00" + struct.pack("!i", -1) + bytes(4), "22023"),
        (b"\x01\x01\x02\x00" + struct.pack("!ii", 2**31 - 1, 2**31 - 1) + bytes(4), "54000"),
        (b"\x01\x01\x04\x00" + struct.pack("!iiii", 65536, 65536, 65536, 65536), "54000"),
        (b"\x01\x01\x02\x00" + struct.pack("!ii", 65536, 65536), "22P03"),
    ],
)
def test_hostile_binary(conn: Connection, payload: bytes, state: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        receive(conn, payload)
    assert caught.value.sqlstate == state


# ---- type modifiers ----


def test_typmods(conn: Connection) -> None:
    conn.execute("CREATE TEMP TABLE t (a tensor(3), b tensor(2,3), c tensor(50257,768), d tensor)")
    assert conn.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"
    ).fetchall() == [("tensor(3)",), ("tensor(2,3)",), ("tensor(50257,768)",), ("tensor",)]
    conn.execute("INSERT INTO t VALUES ('[1,2,3]', '[[1,2,3],[4,5,6]]', NULL, '5')")
    for column, bad in (
        ("a", "[1,2]"),
        ("a", "[[1,2,3]]"),
        ("b", "[1,2,3]"),
        ("b", "[[1,2],[3,4]]"),
        ("a", "1"),
    ):
        with pytest.raises(errors.DataException, match="expected a tensor of shape"):
            conn.execute(f"INSERT INTO t ({column}) VALUES (%s)", [bad])
        with pytest.raises(errors.DataException, match="expected a tensor of shape"):
            conn.execute(f"UPDATE t SET {column} = %s::text::tensor", [bad])
    assert value(conn, "SELECT '[1,2]'::tensor::tensor(2)::text") == "[1,2]"
    with pytest.raises(errors.DataException):
        receive(conn, binary_of(np.zeros(2, np.float32)), "tensor(3)")


@RELAXED
@given(
    dims=st.one_of(
        st.tuples(st.integers(1, 2**26 - 1)),
        st.integers(1, 25).flatmap(
            lambda bits: st.tuples(st.integers(1, 2**bits - 1), st.integers(1, 2 ** (26 - bits) - 1))
        ),
    )
)
def test_typmod_round_trip(conn: Connection, dims: tuple[int, ...]) -> None:
    name = f"tensor({','.join(map(str, dims))})"
    conn.execute(f"CREATE TEMP TABLE m (x {name})")
    got = value(
        conn,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'm'::regclass AND attnum = 1",
    )
    conn.execute("DROP TABLE m")
    assert got == name


@pytest.mark.parametrize("typmod", ["0", "-1", "3,0", "1,2,3", "100000000", "60000,60000"])
def test_typmod_errors(conn: Connection, typmod: str) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        conn.execute(f"CREATE TEMP TABLE t (x tensor({typmod}))")


def test_hostile_typmods(conn: Connection) -> None:
    for typmod in (2147483647, 27 << 26):
        for call in ("tensor('[1]'::tensor, %s, true)", "pg_llm_tensor_typmod_out(%s)"):
            with pytest.raises(errors.InvalidParameterValue):
                conn.execute("SELECT " + call, [typmod])


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


def test_casts_are_explicit(conn: Connection) -> None:
    conn.execute("CREATE TEMP TABLE t (x tensor)")
    with pytest.raises(errors.DatatypeMismatch):
        conn.execute("INSERT INTO t VALUES (ARRAY[1.0]::real[])")
    assert (
        value(
            conn, "SELECT count(*) FROM pg_cast WHERE castcontext <> 'e' AND castsource = 'tensor'::regtype"
        )
        == 1
    )


@RELAXED
@given(a=ARRAYS)
def test_bytes_round_trip(conn: Connection, a: Array) -> None:
    payload, back = conn.execute(
        "SELECT x::bytea, pg_llm_tensor_send(tensor(x::bytea, shape(x))) FROM (SELECT tensor(%b, %s::int[])) q(x)",
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
    assert value(conn, "SELECT pg_llm_tensor_hash_extended(x, 0) & 4294967295 = pg_llm_tensor_hash(x)::bigint & 4294967295"
                       " FROM (SELECT '[1,2]'::tensor) q(x)")  # fmt: skip


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
        "INSERT INTO t SELECT unnest(%s::text[]::tensor[])", [ASCENDING[::-1] + ["[0]", "[-0]", "[NaN]"]]
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
        "SELECT (sum(x) OVER (ORDER BY i))::text FROM (VALUES (1, '[1]'::tensor), (2, '[2]'), (3, '[3]')) q(i, x)"
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
        "SELECT oid::regprocedure::text FROM pg_proc WHERE (proname LIKE 'pg\\_llm\\_tensor\\_%' OR proname IN"
        " ('tensor', 'shape', 'ndims', 'norm', 'pg_llm_full', 'pg_llm_normal', 'pg_llm_item', 'pg_llm_zeros_like'))"
        " AND pronamespace = 'public'::regnamespace AND (provolatile <> 'i' OR proparallel <> 's' OR NOT proisstrict)"
    ).fetchall()
    assert rows == []


def test_every_object_of_the_type_is_described(conn: Connection) -> None:
    rows = conn.execute(
        """SELECT pg_describe_object(d.classid, d.objid, 0)
           FROM pg_depend d
           WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
             AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_llm')
             AND d.classid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_cast'::regclass, 'pg_opclass'::regclass)
             AND obj_description(d.objid, d.classid::regclass::name) IS NULL"""
    ).fetchall()
    assert rows == []


def resident_megabytes(conn: Connection) -> float:
    try:
        with open(f"/proc/{conn.info.backend_pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
    except OSError:
        pytest.skip("the server's /proc is out of reach")


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
