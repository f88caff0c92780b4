"""Cursors over generations and weights live and die as PostgreSQL's own do: with their portal."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from ..support.small_models import Connection, make_names, train
from ..support.tensors import value

Connect = Callable[..., Connection]

STREAM = "SELECT step, token_id, text FROM llm_generate_stream('em', 16, 1, 0, 1, 'names', {seed})"
# Rows that take a computation each, so that a cursor stands in the middle of it.
QUERIES = {
    "llm_generate_stream": STREAM,
    "llm_beam_search": "SELECT rank, text FROM llm_beam_search('em', 4, 6, 'names')",
    "llm_weight": "SELECT p.name, norm(llm_weight('names', p.name)) FROM llm_param p ORDER BY p.name",
}


@pytest.fixture
def names(conn: Connection) -> Connection:
    make_names(conn)
    train(conn, "names", 2)
    return conn


def query_of(conn: Connection, kind: str) -> tuple[str, list[Any]]:
    """The query and its rows: of a text with at least six tokens."""
    for seed in range(200):
        query = QUERIES[kind].format(seed=seed)
        rows = conn.execute(query).fetchall()
        if len(rows) >= 4 and (kind != "llm_generate_stream" or len(rows) >= 6):
            return query, rows
    raise AssertionError("every text ended early")


def fetch(conn: Connection, n: int | str) -> list[Any]:
    return conn.execute(f"FETCH {n} FROM c").fetchall()


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("options", ["", "WITH HOLD"])
def test_first_fetched_in_a_savepoint_that_is_rolled_back(names: Connection, kind: str, options: str) -> None:
    query, expected = query_of(names, kind)
    with names.transaction():
        names.execute(f"DECLARE c CURSOR {options} FOR {query}")
        with names.transaction(force_rollback=True):
            got = fetch(names, 2)
        got += fetch(names, 1)
    if options:
        got += fetch(names, "ALL")
        names.execute("CLOSE c")
        assert got == expected
    assert got == expected[: len(got)]
    assert len(got) >= 3


@pytest.mark.parametrize("kind", QUERIES)
def test_savepoints_in_any_order_around_fetches(names: Connection, kind: str) -> None:
    """As with PostgreSQL's own cursors the position is not taken back, and nothing else changes."""
    query, expected = query_of(names, kind)
    for seed in range(12):
        rng, depth = Random(f"{kind} {seed}"), 0
        got: list[Any] = []
        with names.transaction(force_rollback=True):
            names.execute("CREATE TEMP TABLE IF NOT EXISTS written (x int)")
            names.execute(f"DECLARE c CURSOR FOR {query}")
            while len(got) < len(expected):
                step = rng.choice(["fetch", "savepoint", "savepoint", "undo", "release", "write", "error"])
                if step == "fetch":
                    rows = fetch(names, 1)
                    assert rows, (seed, got)
                    got += rows
                elif step == "savepoint" and depth < 5:
                    depth += 1
                    names.execute(f"SAVEPOINT s{depth}")
                elif step == "write":
                    names.execute("INSERT INTO written VALUES (1)")
                elif step == "error" and depth:
                    with pytest.raises(errors.DivisionByZero):
                        names.execute("SELECT 1 / 0")
                    names.execute(f"ROLLBACK TO s{depth}")
                elif step == "undo" and depth:
                    names.execute(f"ROLLBACK TO s{depth}")
                elif step == "release" and depth:
                    names.execute(f"RELEASE s{depth}")
                    depth -= 1
            assert got == expected, seed


def test_opened_in_a_savepoint(names: Connection) -> None:
    query, expected = query_of(names, "llm_generate_stream")
    with names.transaction():
        with names.transaction():
            names.execute(f"DECLARE c CURSOR FOR {query}")
            got = fetch(names, 1)
        with names.transaction(force_rollback=True):
            got += fetch(names, 2)
        got += fetch(names, "ALL")
        assert got == expected
    with names.transaction():
        with names.transaction(force_rollback=True):
            names.execute(f"DECLARE c CURSOR FOR {query}")
            fetch(names, 1)
        with pytest.raises(errors.InvalidCursorName), names.transaction():
            fetch(names, 1)


def test_fetched_in_blocks_that_catch_errors(names: Connection) -> None:
    query, expected = query_of(names, "llm_generate_stream")
    names.execute(
        sql.SQL(
            """CREATE FUNCTION pg_temp.pieces() RETURNS SETOF text LANGUAGE plpgsql AS $$
            DECLARE c CURSOR FOR {};
                piece record;
            BEGIN
                OPEN c;
                LOOP
                    BEGIN
                        FETCH c INTO piece;
                        EXIT WHEN NOT FOUND;
                        RAISE EXCEPTION 'caught';
                    EXCEPTION WHEN raise_exception THEN RETURN NEXT piece.text;
                    END;
                END LOOP;
            END $$"""
        ).format(sql.SQL(query))
    )
    assert [row[0] for row in names.execute("SELECT pg_temp.pieces()")] == [row[2] for row in expected]


def test_a_loop_over_a_stream_whose_body_catches_errors(names: Connection) -> None:
    query, expected = query_of(names, "llm_generate_stream")
    names.execute("CREATE TEMP TABLE shown (token_id int)")
    names.execute(
        sql.SQL(
            """DO $$ DECLARE piece record; BEGIN
                FOR piece IN {} LOOP
                    BEGIN
                        INSERT INTO shown VALUES (piece.token_id);
                        IF piece.step % 2 = 0 THEN
                            PERFORM llm_generate('a', 2, 0, model => 'names');
                            RAISE EXCEPTION 'caught';
                        END IF;
                    EXCEPTION WHEN raise_exception THEN NULL;
                    END;
                END LOOP;
            END $$"""
        ).format(sql.SQL(query))
    )
    assert names.execute("SELECT token_id FROM shown").fetchall() == [
        (row[1],) for row in expected if row[0] % 2
    ]


def test_an_error_in_the_middle_of_a_fetch_ends_the_cursor(names: Connection) -> None:
    """As it ends PostgreSQL's own; what it held is let go with the savepoint."""
    query, _ = query_of(names, "llm_generate_stream")
    with names.transaction():
        names.execute(f"DECLARE c CURSOR FOR SELECT g.*, 1 / (3 - g.step) FROM ({query}) g")
        with pytest.raises(errors.DivisionByZero), names.transaction():
            fetch(names, "ALL")
        with pytest.raises(psycopg.Error), names.transaction():
            fetch(names, 1)


def test_another_role_does_not_go_on_with_a_generation(names: Connection) -> None:
    query, _ = query_of(names, "llm_generate_stream")
    with names.transaction(force_rollback=True):
        names.execute("CREATE ROLE cursor_reader IN ROLE llm_reader")
        names.execute(f"DECLARE c CURSOR FOR {query}")
        fetch(names, 1)
        names.execute("SET LOCAL ROLE cursor_reader")
        with pytest.raises(errors.InsufficientPrivilege, match="another role"):
            fetch(names, 1)


def test_a_pin_that_saw_undone_rows_is_not_kept(names: Connection) -> None:
    query, expected = query_of(names, "llm_weight")
    with names.transaction():
        names.execute(f"DECLARE c CURSOR FOR {query}")
        with names.transaction(force_rollback=True):
            names.execute("UPDATE llm_param SET data = data * 2 WHERE model = 'names'")
            assert fetch(names, 1) != expected[:1]
        assert fetch(names, "ALL") == expected[1:]
    assert value(names, "SELECT count(*) FROM llm_param WHERE model = 'names'") == len(expected)
