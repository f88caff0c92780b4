"""Queries that make up a file: whatever they give out, the file is right or an error tells what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.checkpoints import skip_unless_visible
from ..support.tensors import value

Connection = psycopg.Connection[Any]

TENSORS = "SELECT 'a'::text, 'F32'::text, ARRAY[1] WHERE $1 IS NOT NULL"
DATA = "SELECT '[7]'::tensor, NULL::bytea WHERE $1 IS NOT NULL"
# A column that is expected, as its query gives it; and what may stand for it
COLUMNS = {
    "name": ("'a'::text", "text"),
    "dtype": ("'F32'::text", "text"),
    "shape": ("ARRAY[1]", "integer[]"),
    "data": ("'[7]'::tensor", "tensor"),
    "bytes": ("NULL::bytea", "bytea"),
}
IN_TENSORS = ("name", "dtype", "shape")
FITTING = {"text": ("text", "character varying")}


@pytest.fixture
def folder(conn: Connection) -> Iterator[Path]:
    """A folder of the server's own, in its data directory."""
    conn.execute("SELECT pg_llm_checkpoint_name('x')")
    data = Path(value(conn, "SHOW data_directory"))
    yield data
    for path in data.glob("exported*"):
        path.unlink()


def write(
    conn: Connection, folder: Path, tensors: str = TENSORS, data: str = DATA, fmt: str = "safetensors"
) -> tuple[int, str]:
    row = conn.execute(
        "SELECT bytes, sha256 FROM pg_llm_file_write(%s, %s, %s, %s, 'm', '{}')",
        (str(folder / "exported"), fmt, tensors, data),
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def with_column(column: str, expression: str) -> dict[str, str]:
    """The query that holds the column, changed."""
    of = IN_TENSORS if column in IN_TENSORS else ("data", "bytes")
    columns = ", ".join(expression if name == column else COLUMNS[name][0] for name in of)
    return {"tensors" if of is IN_TENSORS else "data": f"SELECT {columns} WHERE $1 IS NOT NULL"}


def refused(conn: Connection, folder: Path, sqlstate: str, **queries: str) -> str:
    """The message of the error; no file and no temporary file is left."""
    with pytest.raises(psycopg.Error) as caught:
        write(conn, folder, **queries)
    assert caught.value.sqlstate == sqlstate, caught.value
    assert not list(folder.glob("exported*"))
    return str(caught.value)


def test_what_fits_is_written(conn: Connection, folder: Path) -> None:
    for fmt in ("safetensors", "npz", "gzip"):
        n, sha = write(conn, folder, fmt=fmt)
        assert (n, sha) == tuple(
            conn.execute(
                "SELECT bytes, sha256 FROM pg_llm_file_sha256(%s)", (str(folder / "exported"),)
            ).fetchone()
            or ()
        )
        assert value(conn, "SELECT pg_llm_file_tensor(%s, 'a')::real[]", (str(folder / "exported"),)) == [7.0]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_of_any_other_type_is_refused(conn: Connection, folder: Path, column: str) -> None:
    """Every type there is, an error that names the column and both types: none is taken for a pointer."""
    expected = COLUMNS[column][1]
    types = [
        row[0]
        for row in conn.execute(
            "SELECT format_type(oid, NULL) FROM pg_type WHERE typtype <> 'p' AND typisdefined"
            " AND typnamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace) AND typrelid = 0"
            " UNION SELECT 'llm_param'"
        )
    ]
    assert len(types) > 150
    for name in types:
        if name in FITTING.get(expected, (expected,)):
            continue
        message = refused(conn, folder, "42804", **with_column(column, f"NULL::{name}"))
        assert f"({column})" in message
        assert name.split("(")[0] in message
        assert message.split("\n")[0].endswith(f"not {expected}")


@pytest.mark.parametrize(
    ("column", "expression"),
    [
        ("data", "4096::int8"),
        ("shape", "4194304::int8"),
        ("bytes", "4194304::int8"),
        ("data", "'x'::text"),
        ("bytes", "'[1]'::tensor"),
        ("shape", "ARRAY[1::int8]"),
        ("shape", "ARRAY['1']"),
        ("data", "ARRAY[1::real]"),
        ("data", "(NULL::llm_param)"),
        ("shape", "ROW(1)"),
    ],
)
def test_values_that_would_be_pointers(conn: Connection, folder: Path, column: str, expression: str) -> None:
    refused(conn, folder, "42804", **with_column(column, expression))
    assert value(conn, "SELECT 1") == 1


def test_domains_stand_for_what_they_are_over(conn: Connection, folder: Path) -> None:
    for domain, base, given in (
        ("d_name", "text", "'a'"),
        ("d_dtype", "varchar", "'F32'"),
        ("d_shape", "int[]", "ARRAY[1]"),
        ("d_data", "tensor", "'[7]'::tensor"),
        ("d_bytes", "bytea", "NULL"),
        ("d_off", "int8", "1"),
    ):
        conn.execute(f"CREATE DOMAIN {domain} AS {base}")
        column = domain.removeprefix("d_")
        if column in COLUMNS:
            write(conn, folder, **with_column(column, f"({given})::{domain}"))
        else:
            (folder / "exported").unlink()
            refused(conn, folder, "42804", **with_column("data", f"{given}::{domain}"))
        conn.execute(f"DROP DOMAIN {domain}")


@pytest.mark.parametrize(
    ("sqlstate", "queries"),
    [
        ("42804", {"tensors": "SELECT 'a'::text, 'F32'::text WHERE $1 <> ''"}),
        ("42804", {"tensors": "SELECT 'a'::text, 'F32'::text, ARRAY[1], 1 WHERE $1 <> ''"}),
        ("42804", {"data": "SELECT '[7]'::tensor WHERE $1 <> ''"}),
        ("42804", {"data": "SELECT '[7]'::tensor, NULL::bytea, 1 WHERE $1 <> ''"}),
        ("42804", {"data": "SELECT WHERE $1 <> ''"}),
        # NULL and not NULL
        ("22004", {"tensors": "SELECT NULL::text, 'F32'::text, ARRAY[1] WHERE $1 <> ''"}),
        ("22004", {"tensors": "SELECT 'a'::text, NULL::text, ARRAY[1] WHERE $1 <> ''"}),
        ("22004", {"tensors": "SELECT 'a'::text, 'F32'::text, NULL::int[] WHERE $1 <> ''"}),
        ("22004", {"tensors": "SELECT 'a'::text, 'F32'::text, ARRAY[1, NULL] WHERE $1 <> ''"}),
        ("22004", {"data": "SELECT NULL::tensor, NULL::bytea WHERE $1 <> ''"}),
        ("22023", {"data": "SELECT '[7]'::tensor, '\\x00'::bytea WHERE $1 <> ''"}),
        # shapes and types
        ("2202E", {"tensors": "SELECT 'a'::text, 'F32'::text, ARRAY[[1], [1]] WHERE $1 <> ''"}),
        ("22023", {"tensors": "SELECT 'a'::text, 'F32'::text, ARRAY[-1] WHERE $1 <> ''"}),
        ("54000", {"tensors": "SELECT 'a'::text, 'F32'::text, array_fill(1, ARRAY[9]) WHERE $1 <> ''"}),
        (
            "22023",
            {"tensors": "SELECT 'a'::text, 'F32'::text, array_fill(2147483647, ARRAY[8]) WHERE $1 <> ''"},
        ),
        ("22023", {"tensors": "SELECT 'a'::text, 'I64'::text, ARRAY[1] WHERE $1 <> ''"}),
        ("22023", {"tensors": "SELECT ''::text, 'F32'::text, ARRAY[1] WHERE $1 <> ''"}),
        ("22023", {"tensors": f"{TENSORS} UNION ALL {TENSORS}", "data": f"{DATA} UNION ALL {DATA}"}),
        # more and less data than the tensors have
        ("22023", {"data": "SELECT '[7,8]'::tensor, NULL::bytea WHERE $1 <> ''"}),
        ("22023", {"data": f"{DATA} UNION ALL {DATA}"}),
        ("22023", {"data": "SELECT '[7]'::tensor, NULL::bytea WHERE $1 = ''"}),
        ("22023", {"tensors": "SELECT 'a'::text, 'F32'::text, ARRAY[1] WHERE $1 = ''"}),
        ("22023", {"data": "SELECT NULL::tensor, '\\x0000'::bytea WHERE $1 <> ''"}),
        # what raises, writes or ends the transaction
        ("22012", {"data": "SELECT '[7]'::tensor, NULL::bytea WHERE 1 / length(replace($1, 'm', '')) = 1"}),
        ("22012", {"tensors": "SELECT 'a'::text, 'F32'::text, ARRAY[1 / length(replace($1, 'm', ''))]"}),
        ("42601", {"data": "SELEC $1"}),
        ("42703", {"data": "SELECT x, $1"}),
        ("42P11", {"data": "COMMIT"}),
        ("42P11", {"tensors": "CREATE TABLE written_by_a_query ()"}),
        ("42P11", {"data": f"{DATA}; {DATA}"}),
        ("42P11", {"data": ""}),
        (
            "0A000",
            {"data": "INSERT INTO llm_arch VALUES ('x', $1, $1) RETURNING NULL::tensor, '\\x00'::bytea"},
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    conn: Connection, folder: Path, sqlstate: str, queries: dict[str, str]
) -> None:
    refused(conn, folder, sqlstate, **queries)
    assert value(conn, "SELECT to_regclass('written_by_a_query')") is None


def test_no_tensors_make_a_file_without_any(conn: Connection, folder: Path) -> None:
    write(conn, folder, f"{TENSORS} AND false", f"{DATA} AND false")
    assert value(conn, "SELECT count(*) FROM pg_llm_file_tensors(%s, 100)", (str(folder / "exported"),)) == 0


def test_both_queries_see_one_snapshot(conn: Connection, connect: Any, folder: Path) -> None:
    """Rows that are committed while the file is written are in it wholly or not at all."""
    conn.execute("CREATE TABLE part (n int, data tensor)")
    conn.execute("INSERT INTO part VALUES (1, '[1]')")
    # The first query lets another session commit before the second begins.
    conn.execute(
        "CREATE FUNCTION wait_for_the_other(n bigint) RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN"
        " PERFORM pg_advisory_lock(4711); PERFORM pg_advisory_unlock(4711); RETURN n; END $$"
    )
    other = connect()
    other.execute("SELECT pg_advisory_lock(4711)")
    try:
        with conn.transaction():
            done: list[Any] = []
            thread = threading.Thread(
                target=lambda: done.append(
                    write(
                        conn,
                        folder,
                        "SELECT 'a'::text, 'F32'::text, ARRAY[wait_for_the_other(count(*))] FROM part"
                        " WHERE $1 <> ''",
                        "SELECT data, NULL::bytea FROM part WHERE $1 <> '' ORDER BY n",
                    )
                )
            )
            thread.start()
            other.execute(
                "DO $$ BEGIN FOR i IN 1..2000 LOOP EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE locktype"
                " = 'advisory'"
                " AND NOT granted); PERFORM pg_sleep(0.01); END LOOP; END $$"
            )
            other.execute("INSERT INTO part VALUES (2, '[2]')")
            other.execute("SELECT pg_advisory_unlock(4711)")
            thread.join()
            assert done
        assert value(conn, "SELECT pg_llm_file_tensor(%s, 'a')::real[]", (str(folder / "exported"),)) == [1.0]
    finally:
        conn.execute("DROP FUNCTION wait_for_the_other; DROP TABLE part")


def test_trainers_pass_no_queries(conn: Connection, connect: Any) -> None:
    conn.execute("DROP ROLE IF EXISTS llm_test_queries")
    conn.execute("CREATE ROLE llm_test_queries LOGIN IN ROLE llm_trainer")
    try:
        trainer = connect(user="llm_test_queries")
        for checkpoint in (True, False):
            with pytest.raises(errors.InsufficientPrivilege):
                trainer.execute(
                    "SELECT * FROM pg_llm_file_write(pg_llm_checkpoint_name('x.safetensors'),"
                    " 'safetensors', %s, %s,"
                    " 'm', '{}', %s)",
                    (TENSORS, DATA, checkpoint),
                )
        trainer.close()
    finally:
        conn.execute("DROP ROLE llm_test_queries")


@pytest.fixture(autouse=True)
def only_where_files_can_be_seen(conn: Connection) -> None:
    skip_unless_visible(conn)
