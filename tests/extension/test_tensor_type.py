"""The type tensor's text form, binary protocol and type modifiers."""

from __future__ import annotations

import struct

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from ..support.tensors import ARRAYS, RELAXED, Array, Connection, array_of, binary_of, receive, text_of, value

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
        ("[[1,2],[3]]", "22P02", "1 elements ends at character 10, earlier ones have 2"),
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
    state = None
    try:
        out = value(conn, "SELECT %s::text::tensor::text", [text])
        assert value(conn, "SELECT %s::text::tensor::text", [out]) == out
    except psycopg.Error as error:
        state = error.sqlstate
    assert state in (None, "22P02", "22003", "54000")
    assert value(conn, "SELECT pg_backend_pid()") == pid


def test_large_text_comes_back(conn: Connection) -> None:
    """Two million numbers there and back; a quadratic parser would take hours."""
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
        (b"\x01\x01\x02\x00" + struct.pack("!ii", 16384, 65536), "22P03"),
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
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'm'::regclass AND attnum = 1",
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


@pytest.mark.parametrize(
    "array", ["real[]", "double precision[]", "smallint[]", "integer[]", "bigint[]", "numeric[]"]
)
def test_arrays_are_assigned_to_tensors(conn: Connection, array: str) -> None:
    """What drivers send for a list fits a column, a parameter of a PL/pgSQL variable and an UPDATE."""
    conn.execute("CREATE TEMP TABLE assigned (t tensor, fixed tensor(2))")
    conn.execute(f"INSERT INTO assigned VALUES ('{{{{1,2}},{{3,4}}}}'::{array}, '{{5,6}}'::{array})")
    conn.execute(f"UPDATE assigned SET fixed = '{{7,8}}'::{array}")
    assert conn.execute("SELECT t::text, fixed::text FROM assigned").fetchall() == [
        ("[[1,2],[3,4]]", "[7,8]")
    ]
    conn.execute(f"DO $$ DECLARE t tensor := '{{1,2}}'::{array}; BEGIN ASSERT t = '[1,2]'; END $$")
    with pytest.raises(errors.DataException):
        conn.execute(f"INSERT INTO assigned (fixed) VALUES ('{{1,2,3}}'::{array})")
    # Assigned, but never taken for a tensor in an expression.
    for operator in ("+", "-", "*", "/", "@"):
        with pytest.raises(errors.UndefinedFunction):
            conn.execute(f"SELECT '{{1,2}}'::{array} {operator} '{{1,2}}'::{array}")


def test_lists_of_python_are_assigned(conn: Connection) -> None:
    conn.execute("CREATE TEMP TABLE listed (t tensor)")
    for numbers in ([1.5, 2.0], [1, 2], [[1, 2], [3, 4]], [40000, 2], [5_000_000_000, 2]):
        conn.execute("INSERT INTO listed VALUES (%s)", (numbers,))
    found = [row[0] for row in conn.execute("SELECT t::text FROM listed")]
    assert found == ["[1.5,2]", "[1,2]", "[[1,2],[3,4]]", "[40000,2]", "[5e+09,2]"]


def test_an_undecorated_literal_is_a_tensor_beside_every_operator(conn: Connection) -> None:
    operators = conn.execute(
        "SELECT oprname, oprleft <> 0 FROM pg_operator WHERE oprnamespace = 'public'::regnamespace"
        " AND oprright = 'tensor'::regtype AND oprleft IN ('tensor'::regtype, 0)"
    ).fetchall()
    assert len(operators) == 12
    for name, binary in operators:
        forms = (
            ("'[[1]]' {} '[[2]]'::tensor", "'[[1]]'::tensor {} '[[2]]'")
            if binary
            else ("{} '[[1]]'::tensor",)
        )
        for form in forms:
            kind = "boolean" if name in ("=", "<>", "<", "<=", ">", ">=") else "tensor"
            assert value(conn, f"SELECT pg_typeof({form.format(name)})::text") == kind, form
