"""Names mean the same whatever the session's search_path is: ours are ours, a user's are the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from . import scenario
from .lookalikes import plant
from .tensors import value

Connection = psycopg.Connection[Any]

OUR_PATH = "search_path=pg_catalog, pg_llm, pg_temp"
# Routines without a path of their own, every name and operator of which is qualified by hand.
WITHOUT = {
    "llm_train_loop": "commits",
    "llm_train_resume": "commits",
    "llm_generate_stream": "must be inlined, so that a cursor gets each token as it comes",
    "llm_dataset_problems": "is inlined, so that conditions on it reach the index",
}
ROUTINES = """
SELECT p.proname, coalesce(array_to_string(p.proconfig, '; '), '') FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'public'::regnamespace AND l.lanname <> 'c' AND l.lanname <> 'internal' AND p.prosqlbody IS NULL
"""


def test_every_routine_has_a_path_of_its_own_or_a_reason(conn: Connection) -> None:
    found = conn.execute(ROUTINES).fetchall()
    assert len(found) > 100
    assert {name for name, settings in found if settings != OUR_PATH} == set(WITHOUT)


@pytest.fixture
def folder(fresh_conn: Connection) -> Path:
    """Where the server may write: its own directory."""
    return Path(value(fresh_conn, "SHOW data_directory"))


@pytest.fixture
def session(connect: Any) -> Connection:
    opened: Connection = connect()
    return opened


@pytest.fixture
def expected(fresh_conn: Connection, connect: Any, folder: Path) -> scenario.Results:
    """What a session with the default path gets."""
    scenario.prepare(fresh_conn)
    return scenario.run(connect(), fresh_conn, folder)


def test_nothing_of_a_strangers_is_used(
    fresh_conn: Connection, session: Connection, folder: Path, expected: scenario.Results
) -> None:
    """Look-alikes of PostgreSQL's operators, functions and types, and of ours, in front of everything."""
    planted = plant(fresh_conn)
    assert planted["operators"] > 500
    assert planted["functions"] > 200
    assert planted["relations"] > 15
    session.execute("SET search_path = evil, pg_catalog, public")
    assert scenario.differences(scenario.run(session, fresh_conn, folder), expected) == []


def test_temporary_objects_hide_nothing(
    fresh_conn: Connection, session: Connection, folder: Path, expected: scenario.Results
) -> None:
    names = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    for [name] in fresh_conn.execute(names).fetchall():
        session.execute(f"CREATE TEMP TABLE {name} (LIKE public.{name})")
    for name in ("tensor", "text", "bytea", "regclass", "llm_train_status_row"):
        session.execute(f"CREATE TYPE pg_temp.{name} AS ENUM ('temporary')")
    assert scenario.differences(scenario.run(session, fresh_conn, folder), expected) == []


@pytest.mark.parametrize("path", ["''", "app", "pg_temp", "app, pg_catalog", "public", "public, pg_catalog"])
def test_any_path_finds_ours(
    fresh_conn: Connection, session: Connection, folder: Path, expected: scenario.Results, path: str
) -> None:
    session.execute(f"SET search_path = {path}")
    assert scenario.differences(scenario.run(session, fresh_conn, folder), expected) == []


def test_a_users_own_code_runs_under_the_users_path(
    fresh_conn: Connection, session: Connection, folder: Path
) -> None:
    """Queries and architectures that name things by their bare names, inside of calls of any depth."""
    scenario.prepare(fresh_conn)
    session.execute("SET search_path = public, users")
    results = scenario.run(session, fresh_conn, folder, scenario.USERS_CALLS)
    assert results["users rows"] == results["users query"]
    # Again, now that all plans are cached, and under a path that finds another table.
    assert scenario.differences(scenario.run(session, fresh_conn, folder, scenario.USERS_CALLS), results) == []
    fresh_conn.execute("CREATE SCHEMA others")
    fresh_conn.execute("CREATE TABLE others.docs AS SELECT body || 'a' AS body FROM users.docs")
    session.execute("SET search_path = others, public, users")
    other = scenario.run(session, fresh_conn, folder, scenario.USERS_CALLS)
    assert other["left: data"] != results["left: data"]
    session.execute("SET search_path = public, users")
    assert scenario.differences(scenario.run(session, fresh_conn, folder, scenario.USERS_CALLS), results) == []


def test_a_callers_path_is_not_looked_behind(fresh_conn: Connection, session: Connection) -> None:
    """A function of somebody's that sets its own path passes that on, and not its caller's."""
    scenario.prepare(fresh_conn)
    fresh_conn.execute(
        """CREATE FUNCTION public.guarded(query text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RETURN (SELECT count(*) FROM public.llm_query_documents(query));
        END $$"""
    )
    session.execute("SET search_path = public, users")
    assert value(session, "SELECT count(*) FROM llm_query_documents('SELECT body FROM docs')") == 6
    with pytest.raises(psycopg.errors.UndefinedTable):
        session.execute("SELECT guarded('SELECT body FROM docs')")
    assert value(session, "SELECT guarded('SELECT body FROM users.docs')") == 6
    assert value(session, "SELECT pg_llm_callers_search_path()") == "public, users"
    assert value(session, "SHOW search_path") == "public, users"


def test_the_path_is_back_after_an_error_in_a_users_code(fresh_conn: Connection, session: Connection) -> None:
    session.execute("SET search_path = public, pg_temp")
    session.execute(
        """DO $$ BEGIN
            PERFORM count(*) FROM llm_query_documents('SELECT 1 / 0');
        EXCEPTION WHEN division_by_zero THEN
            PERFORM llm_require(current_setting('search_path') = 'public, pg_temp', current_setting('search_path'));
        END $$"""
    )
    assert value(session, "SHOW search_path") == "public, pg_temp"
