"""Every shape comes back as it went: through text, the binary protocol, COPY, a dump, and NumPy."""

from __future__ import annotations

import itertools
import math
import subprocess
from io import BytesIO
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from llm_sql.models.types import from_text, to_text

from ..conftest import Server
from ..support.durable import program
from ..support.tensors import value

Connection = psycopg.Connection[Any]

SHAPES = [list(shape) for rank in range(5) for shape in itertools.product(range(4), repeat=rank)]
EMPTY = [shape for shape in SHAPES if 0 in shape]
LARGE = [[0, 2**30], [2**30, 0], [1000, 1000, 0], [0] * 8, [3] * 7 + [0], [2, 0, 2**29]]
TABLE = "CREATE TEMP TABLE {} (t tensor UNIQUE)"


def fill(conn: Connection, table: str) -> None:
    conn.execute(TABLE.format(table))
    with conn.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} SELECT pg_llm_full(%s::int[], 1.5)", [(shape,) for shape in SHAPES + LARGE]
        )


def shapes_in(conn: Connection, table: str) -> list[list[int]]:
    return sorted(row[0] for row in conn.execute(f"SELECT shape(t) FROM {table}"))


def test_text(conn: Connection) -> None:
    for shape in SHAPES + LARGE:
        same, text = conn.execute(  # type: ignore[misc]
            "SELECT t::text::tensor = t AND shape(t::text::tensor) = %(s)s::int[], t::text"
            " FROM (SELECT pg_llm_full(%(s)s::int[], 1.5)) _(t)",
            {"s": shape},
        ).fetchone()
        assert same, (shape, text)


def test_texts_of_empty_tensors_are_different(conn: Connection) -> None:
    texts = [value(conn, "SELECT pg_llm_full(%s::int[], 1)::text", (shape,)) for shape in EMPTY + LARGE]
    assert len(set(texts)) == len(texts)
    assert all(len(text) < 3000 for text in texts)


def test_what_the_forms_are(conn: Connection) -> None:
    for shape, text in [
        ([0], "[]"),
        ([2, 0], "[[],[]]"),
        ([0, 3], "{0,3}[]"),
        ([2, 0, 1], "{2,0,1}[]"),
        ([1000, 0], "{1000,0}[]"),
    ]:
        assert value(conn, "SELECT pg_llm_full(%s::int[], 1)::text", (shape,)) == text
    for text, shape in [("[]", [0]), ("[[]]", [1, 0]), (" { 0 , 3 } [ ] ", [0, 3]), ("{0}[]", [0])]:
        assert value(conn, "SELECT shape(%s::text::tensor)", (text,)) == shape


@pytest.mark.parametrize(
    "text",
    ["{}[]", "{2,3}[]", "{0,3}", "{0,3}[1]", "{0,3}[[]]", "{0,-1}[]", "{0,}[]", "{0 3}[]", "{0,3}[]x",
     "{0,3}{0,3}[]", "{[0]}[]", "{0,1.5}[]", "{0,3]", "{", "{0,a}[]"],
)  # fmt: skip
def test_bad_shapes_are_refused(conn: Connection, text: str) -> None:
    with pytest.raises(errors.InvalidTextRepresentation):
        conn.execute("SELECT %s::text::tensor", (text,))


@pytest.mark.parametrize(
    "text", ["{0,1073741825}[]", "{0,99999999999999999999}[]", "{0,65536,65536}[]", "{0,0,0,0,0,0,0,0,0}[]"]
)
def test_shapes_beyond_the_limits_are_refused(conn: Connection, text: str) -> None:
    with pytest.raises(errors.ProgramLimitExceeded):
        conn.execute("SELECT %s::text::tensor", (text,))


def test_soft_errors(conn: Connection) -> None:
    if conn.info.server_version < 160000:
        pytest.skip("pg_input_is_valid came with PostgreSQL 16")
    for text in ("{0,3}", "{2,3}[]", "{0,99999999999}[]", "{0,0,0,0,0,0,0,0,0}[]"):
        assert value(conn, "SELECT pg_input_is_valid(%s, 'tensor')", (text,)) is False
    assert value(conn, "SELECT pg_input_is_valid('{0,3}[]', 'tensor')") is True


@pytest.mark.parametrize("options", ["", "(FORMAT binary)", "(FORMAT csv)"])
def test_copy_into_a_unique_column(conn: Connection, options: str) -> None:
    """As pg_dump and a restore do it."""
    fill(conn, "source")
    conn.execute(TABLE.format("copied"))
    data = BytesIO()
    with conn.cursor() as cursor:
        with cursor.copy(f"COPY source TO STDOUT {options}") as out:
            for block in out:
                data.write(block)
        with cursor.copy(f"COPY copied FROM STDIN {options}") as into:
            into.write(data.getvalue())
    assert shapes_in(conn, "copied") == sorted(SHAPES + LARGE)
    assert value(conn, "SELECT count(*) FROM source JOIN copied USING (t)") == len(SHAPES + LARGE)


def test_a_dump_of_a_unique_column_restores(conn: Connection, server: Server, dbname: str) -> None:
    fill(conn, "source")
    conn.execute("CREATE TABLE dumped (t tensor UNIQUE)")
    try:
        conn.execute("INSERT INTO dumped SELECT t FROM source")
        dump = subprocess.run(
            [program("pg_dump"), "-t", "dumped", server.url(dbname)], check=True, capture_output=True
        ).stdout
        conn.execute("DROP TABLE dumped")
        restore = [program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", server.url(dbname)]
        subprocess.run(restore, input=dump, check=True, capture_output=True)
        assert shapes_in(conn, "dumped") == sorted(SHAPES + LARGE)
        assert value(conn, "SELECT count(*) FROM source JOIN dumped USING (t)") == len(SHAPES + LARGE)
    finally:
        conn.execute("DROP TABLE IF EXISTS dumped")


def test_inside_arrays_and_rows(conn: Connection) -> None:
    query = "SELECT array_agg(pg_llm_full(s.s::int[], 1)) FROM unnest(%s::text[]) s (s)"
    braces = ["{" + ",".join(map(str, shape)) + "}" for shape in EMPTY]
    assert value(conn, f"SELECT a::text::tensor[] = a FROM ({query}) _(a)", (braces,))
    conn.execute("CREATE TYPE pg_temp.pair AS (a tensor, b tensor)")
    assert value(
        conn, "SELECT r::text::pg_temp.pair = r FROM (SELECT ROW('{0,3}[]', '[[]]')::pg_temp.pair) _(r)"
    )


@pytest.mark.parametrize("binary", [False, True])
def test_numpy(conn: Connection, binary: bool) -> None:
    for shape in SHAPES:
        array = np.full(shape, 1.5, dtype=np.float32)
        cast = "b" if binary else "t"
        row = conn.execute(f"SELECT %{cast}::tensor", (array,), binary=binary).fetchone()
        assert row is not None
        assert np.array_equal(row[0], array), shape
        assert row[0].shape == array.shape
        assert from_text(to_text(array)).shape == array.shape
        text = value(conn, f"SELECT %{cast}::tensor::text", (array,))
        assert from_text(text).shape == array.shape


def test_elements_are_written_whatever_the_rank(conn: Connection) -> None:
    for shape in SHAPES:
        text = value(conn, "SELECT pg_llm_full(%s::int[], 1.5)::text", (shape,))
        assert text.count("1.5") == math.prod(shape)


def test_losses_over_no_vocabulary_and_no_rows(conn: Connection) -> None:
    """A target below 0 needs no vocabulary, but a row of logits is no row without one."""
    for rows, vocab in itertools.product((0, 1, 2), (0, 3)):
        calls = {
            "pg_llm_lm_head_loss": f"pg_llm_full('{{{rows},2}}', 1), pg_llm_full('{{{vocab},2}}', 1)",
            "pg_llm_cross_entropy": f"pg_llm_full('{{{rows},{vocab}}}', 1)",
        }
        for name, arguments in calls.items():
            call = f"SELECT {name}({arguments}, array_fill(-1, ARRAY[{rows}]))"
            if vocab == 0:
                with pytest.raises(errors.InvalidParameterValue):
                    conn.execute(call)
            else:
                assert conn.execute(call).fetchone() == (0,)
