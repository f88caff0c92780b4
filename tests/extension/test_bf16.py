"""Elements stored as bf16: half the room, and for everybody who reads them float32's numbers to the bit."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from psycopg import errors

from ..support.hostile import Function, functions
from ..support.hostile_values import MODEL
from ..support.small_models import Connection, make_names, train
from ..support.tensors import ARRAYS, RELAXED, Array, binary_of, text_of, value

HALVES = hnp.arrays(np.uint16, hnp.array_shapes(min_dims=0, max_dims=4, max_side=5))


def rounded(a: Array) -> Array:
    """The nearest number of bf16, of two as near the even one, by integers."""
    bits = np.asarray(a, np.float32).view(np.uint32).astype(np.uint64)
    near = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(a), np.float32(np.nan), near).astype(np.float32)


def widened(halves: np.ndarray[Any, np.dtype[np.uint16]]) -> Array:
    return (np.asarray(halves).astype(np.uint32) << 16).view(np.float32).reshape(np.shape(halves))


def canonical(a: Array) -> bytes:
    """NaN leaves the server as one number."""
    return np.where(np.isnan(a), np.float32(np.nan), a).astype("<f4").tobytes()


@given(a=ARRAYS)
@RELAXED
def test_rounding(conn: Connection, a: Array) -> None:
    expected = rounded(a)
    query = "SELECT pg_llm_to_bf16(%s::tensor)::bytea"
    if np.isinf(expected[np.isfinite(a)] if a.ndim else expected[()] if np.isfinite(a) else 0).any():
        with pytest.raises(errors.NumericValueOutOfRange):
            value(conn, query, [text_of(a)])
        return
    assert value(conn, query, [text_of(a)]) == canonical(expected)


@given(halves=HALVES)
@RELAXED
def test_every_form_is_float32s(conn: Connection, halves: Any) -> None:
    """Text, send, bytea, equality, order and hash, of what was given as two bytes for each element."""
    a = widened(halves)
    shape = list(a.shape)
    row = conn.execute(
        """SELECT x.b::text, x.b, x.b::bytea, x.b = x.f, x.b <= x.f AND x.b >= x.f,
            pg_llm_tensor_cmp(x.b, x.f),
            pg_llm_tensor_hash(x.b) = pg_llm_tensor_hash(x.f), dtype(x.b), dtype(x.f), shape(x.b), ndims(x.b),
            pg_llm_tensor_hash_extended(x.b, 7) = pg_llm_tensor_hash_extended(x.f, 7), x.f::text,
            dtype(pg_llm_to_float32(x.b)), pg_llm_to_float32(x.b)::bytea, dtype(pg_llm_to_bf16(x.b)),
            dtype(pg_llm_to_bf16(x.f)), pg_llm_to_bf16(x.f)::bytea
        FROM (SELECT tensor(%s, %s::int[], 'bf16') AS b, tensor(%s, %s::int[], 'float32') AS f OFFSET 0) x""",
        (np.asarray(halves, "<u2").tobytes(), shape, a.tobytes(), shape),
        binary=True,
    ).fetchone()
    assert row is not None
    bytes_ = canonical(a)
    assert row[0] == row[12]
    assert (row[1].tobytes(), row[1].shape) == (bytes_, a.shape)
    assert (row[2], row[14], row[17]) == (bytes_, bytes_, bytes_)
    assert (*row[3:7], row[11]) == (True, True, 0, True, True)
    assert row[7:11] == ("bf16", "float32", shape, a.ndim)
    assert (row[13], row[15], row[16]) == ("float32", "bf16", "bf16")


@pytest.mark.parametrize("elements", [1, 20, 40, 600, 100_000, 3_000_000])
def test_stored_values(conn: Connection, elements: int) -> None:
    """In a short header, in line, out of line, and what hands values on."""
    conn.execute(f"CREATE TEMP TABLE t (f tensor, b tensor, c tensor({elements}), d tensor[])")
    made = f"pg_llm_to_bf16(pg_llm_normal(ARRAY[{elements}], 0, 1, 1, 1))"
    conn.execute(f"INSERT INTO t (b) VALUES ({made})")
    conn.execute("UPDATE t SET f = pg_llm_to_float32(b), c = b, d = ARRAY[b]")
    row = conn.execute(
        f"""SELECT pg_column_size(f), pg_column_size(b), dtype(f), dtype(b), dtype(c), dtype(d[1]), f = b,
            b = c, b = {made}, norm(f) = norm(b), (f + 1) = (b + 1), b::bytea = f::bytea, dtype(b + 0)
        FROM t"""
    ).fetchone()
    assert row is not None
    assert 0 <= row[0] - row[1] - 2 * elements <= 3, "a header of one byte"
    assert row[1] <= 2 * elements + 28
    assert row[2:6] == ("float32", "bf16", "bf16", "bf16")
    assert row[6:] == (True,) * 6 + ("float32",)
    conn.execute("ALTER TABLE t ALTER b SET STORAGE EXTENDED")
    conn.execute("UPDATE t SET b = b")
    conn.execute(f"UPDATE t SET b = pg_llm_to_bf16(pg_llm_full(ARRAY[{elements}], 3))")
    assert value(conn, f"SELECT b = pg_llm_full(ARRAY[{elements}], 3) AND dtype(b) = 'bf16' FROM t")


@pytest.mark.parametrize("form", ["text", "binary"])
def test_copies_are_float32(conn: Connection, form: str) -> None:
    """What pg_dump and subscriptions do: the same numbers, and rows as large as float32's."""
    conn.execute("CREATE TEMP TABLE a (x tensor)")
    conn.execute("CREATE TEMP TABLE b (LIKE a)")
    conn.execute(
        "INSERT INTO a SELECT pg_llm_to_bf16(pg_llm_normal(ARRAY[i, 3], 0, 1, i, 0))"
        " FROM generate_series(1, 99) i"
    )
    with conn.cursor() as cursor, cursor.copy(f"COPY a TO STDOUT (FORMAT {form})") as copy:
        data = b"".join(bytes(block) for block in copy)
    with conn.cursor() as cursor, cursor.copy(f"COPY b FROM STDIN (FORMAT {form})") as copy:
        copy.write(data)
    assert value(conn, "SELECT count(*) FROM a JOIN b USING (x) WHERE a.x::bytea = b.x::bytea") == 99
    assert value(conn, "SELECT array_agg(DISTINCT dtype(x)) FROM b") == ["float32"]


def test_indexes_and_groups_mix(conn: Connection) -> None:
    conn.execute("CREATE TEMP TABLE t (i int, x tensor)")
    conn.execute("INSERT INTO t SELECT i % 7, pg_llm_full('{3}', i % 7) FROM generate_series(1, 700) i")
    conn.execute("UPDATE t SET x = pg_llm_to_bf16(x) WHERE ctid < '(2,1)'")
    assert value(conn, "SELECT count(DISTINCT dtype(x)) FROM t") == 2
    for kind in ("btree", "hash"):
        conn.execute(f"CREATE INDEX ON t USING {kind} (x)")
        conn.execute("SET enable_seqscan = off")
        assert value(conn, "SELECT count(*) FROM t WHERE x = pg_llm_to_bf16('[3,3,3]')") == 100
        conn.execute("RESET enable_seqscan")
    assert value(conn, "SELECT array_agg(n) FROM (SELECT count(*) n FROM t GROUP BY x) q") == [100] * 7
    assert value(
        conn, "SELECT sum(x) = sum(pg_llm_to_float32(x)) AND avg(x) = avg(pg_llm_to_float32(x)) FROM t"
    )


@pytest.mark.parametrize("byte", [0, 2, 3, 255])
def test_an_unknown_type_byte_is_damage(conn: Connection, byte: int) -> None:
    """Who may write the data directory, or misuse functions of C's, is told so; nobody else can make one."""
    # A function of PostgreSQL's that returns what it is given.
    conn.execute(
        "CREATE FUNCTION pg_temp.raw(bytea, int, bool) RETURNS tensor LANGUAGE internal AS 'varchar'"
    )
    conn.execute("CREATE TEMP TABLE t (x bytea, y tensor)")
    # version, type, axes, flags; identity; one axis of three
    header = bytes((1, byte, 1, 0)) + bytes(12) + (3).to_bytes(4, "little")
    conn.execute("INSERT INTO t (x) VALUES (%s)", [header + bytes(12)])
    conn.execute("UPDATE t SET y = pg_temp.raw(x, -1, true)")
    for function in ("", "shape", "dtype", "pg_llm_relu", "pg_llm_to_bf16", "pg_llm_to_float32"):
        problem = "takes 36 bytes" if byte == 2 else "unknown format"
        with pytest.raises(errors.DataCorrupted, match=problem):
            conn.execute(f"SELECT {function}(y)::text FROM t").fetchone()


def test_receive_takes_no_other_type(conn: Connection) -> None:
    conn.execute("CREATE TEMP TABLE t (x tensor)")
    binary = bytearray(binary_of(np.ones(3, np.float32)))

    def receive() -> None:
        with conn.cursor() as cursor, cursor.copy("COPY t FROM STDIN (FORMAT binary)") as copy:
            size = len(binary).to_bytes(4, "big")
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\0\1" + size + binary + b"\xff\xff")

    receive()
    for byte in (0, 2, 3):
        binary[1] = byte
        with pytest.raises(errors.InvalidBinaryRepresentation) as raised:
            receive()
        assert f"element type {byte}," in str(raised.value.diag.message_detail)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("tensor(bytea '\\x0000', '{1}', 'f16')", 'unknown element type "f16"'),
        ("tensor(bytea '\\x000000', '{1}', 'bf16')", "3 bytes are not a bf16 tensor of shape \\[1\\]"),
        ("tensor(bytea '\\x0000', '{1}', 'float32')", "2 bytes are not a tensor of shape \\[1\\]"),
        ("tensor(bytea '\\x', '{{1},{2}}', 'bf16')", "array of 2 dimensions"),
        ("tensor(bytea '\\x', '{0,-1}', 'bf16')", "cannot be -1"),
        ("pg_llm_to_bf16('3.4e38')", "out of range for bf16"),
        ("pg_llm_to_bf16('[1,-3.3961776e38]')", "out of range for bf16"),
    ],
)
def test_bad_arguments(conn: Connection, call: str, problem: str) -> None:
    with pytest.raises(psycopg.DataError, match=problem):
        conn.execute(f"SELECT {call}")


def test_limits(conn: Connection) -> None:
    with pytest.raises(errors.ProgramLimitExceeded):
        conn.execute("SELECT tensor(bytea '\\x', '{1,1,1,1,1,1,1,1,1}', 'bf16')")
    assert value(conn, "SELECT pg_llm_to_bf16('3.3895e38')::text") == "3.3895314e+38"
    assert (
        value(conn, "SELECT dtype(pg_llm_to_bf16('{0,3}[]')) || shape(pg_llm_to_bf16('{0,3}[]'))::text")
        == "bf16{0,3}"
    )


# ---- every function ----

# What tells versions of rows apart, not values: an UPDATE that changes no number makes another, too.
BY_STORAGE = ("dtype", "pg_llm_fingerprint")


def outcome(conn: Connection, function: Function, arguments: list[str]) -> Any:
    typed = ", ".join(f"({a})::{t}" for a, t in zip(arguments, function.types, strict=True))
    if function.kind == "p":
        statement = f"CALL {function.name}({typed})"
    elif function.kind == "a":
        statement = f"SELECT {function.name}({typed})::text FROM generate_series(1, 3)"
    else:
        statement = f"SELECT q::text FROM {function.name}({typed}) q"
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL statement_timeout = '20s'")
            cursor = conn.execute(statement)
            return cursor.fetchall() if cursor.description else None
    except psycopg.Error as error:
        return error.sqlstate, error.diag.message_primary


def test_every_function_of_a_tensor(fresh_conn: Connection) -> None:
    """The catalogue's: of bf16 tensors it gives, to the bit, what it gives of their float32 twins."""
    conn = fresh_conn
    make_names(conn, MODEL, n_positions=8, d_model=8)
    train(conn, MODEL, 1)
    problems, computed = [], 0
    walked = [f for f in functions(conn) if "tensor" in f.types and not f.name.startswith(BY_STORAGE)]
    assert len(walked) > 100
    for function in walked:
        for turn in range(2):
            arguments = function.sensible(Random(f"{function.signature}/{turn}"))
            if "training" in function.names:  # dropout's keys count calls
                arguments[function.names.index("training")] = "false"
            places = [i for i, t in enumerate(function.types) if t == "tensor" and arguments[i] != "NULL"]
            results = []
            for form in ("pg_llm_to_float32(pg_llm_to_bf16({}))", "pg_llm_to_bf16({})"):
                given = list(arguments)
                for i in places:
                    given[i] = form.format(arguments[i])
                results.append(outcome(conn, function, given))
            computed += isinstance(results[0], list)
            if results[1] != results[0]:
                problems.append(f"{function.signature}: {[str(r)[:200] for r in results]} {arguments}")
    assert not problems, "\n".join(problems)
    assert computed > len(walked)
