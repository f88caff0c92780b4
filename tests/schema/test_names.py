"""Names mean the same whatever the session's search_path is: ours are ours, a user's are the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ..support import scenario
from ..support.lookalikes import plant
from ..support.tensors import value

Connection = psycopg.Connection[Any]

OUR_PATH = "search_path=pg_catalog, pg_llm, pg_temp"
# Routines without a path of their own, every name and operator of which is qualified by hand.
WITHOUT = {
    "llm_train_loop": "commits",
    "llm_train_resume": "commits",
    "llm_embed_missing": "commits",
    "llm_checkpoint_data": "inlined, so that values are read one by one",
    "llm_export_data": "inlined, so that values are read one by one",
}
ROUTINES = """
SELECT p.proname, coalesce(array_to_string(p.proconfig, '; '), '')
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'public'::regnamespace AND l.lanname IN ('plpgsql', 'sql') AND p.prosqlbody IS NULL
"""


def test_every_routine_has_a_path_of_its_own_or_a_reason(conn: Connection) -> None:
    found = conn.execute(ROUTINES).fetchall()
    assert len(found) > 100
    assert {name for name, settings in found if OUR_PATH not in settings.split("; ")} == set(WITHOUT)


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
    for theirs in (
        "1 || ARRAY[2]",
        "pg_catalog.cardinality(ARRAY[1]) + cardinality(ARRAY[1])",
        "format('%s'::pg_catalog.text, 1)",
        "'[1]'::public.tensor + '[2]'::public.tensor",
        "llm_config('s')",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="stranger"):
            session.execute(f"SELECT {theirs}")
    assert scenario.differences(scenario.run(session, fresh_conn, folder), expected) == []


def test_temporary_objects_hide_nothing(
    fresh_conn: Connection, session: Connection, folder: Path, expected: scenario.Results
) -> None:
    names = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    )
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
    assert (
        scenario.differences(scenario.run(session, fresh_conn, folder, scenario.USERS_CALLS), results) == []
    )
    fresh_conn.execute("CREATE SCHEMA others")
    fresh_conn.execute("CREATE TABLE others.docs AS SELECT body || 'a' AS body FROM users.docs")
    session.execute("SET search_path = others, public, users")
    other = scenario.run(session, fresh_conn, folder, scenario.USERS_CALLS)
    assert other["left: data"] != results["left: data"]
    session.execute("SET search_path = public, users")
    assert (
        scenario.differences(scenario.run(session, fresh_conn, folder, scenario.USERS_CALLS), results) == []
    )


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
            ASSERT current_setting('search_path') = 'public, pg_temp';
        END $$"""
    )
    assert value(session, "SHOW search_path") == "public, pg_temp"


@pytest.fixture
def app(fresh_conn: Connection) -> Iterator[str]:
    """A login that trains, and schema app, which it may use."""
    fresh_conn.execute("DROP ROLE IF EXISTS llm_test_app")
    fresh_conn.execute("CREATE ROLE llm_test_app LOGIN IN ROLE llm_trainer")
    fresh_conn.execute("CREATE SCHEMA app")
    fresh_conn.execute("GRANT USAGE ON SCHEMA app TO llm_test_app")
    fresh_conn.execute(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT, INSERT ON TABLES TO llm_test_app"
    )
    yield "llm_test_app"
    fresh_conn.execute("DROP OWNED BY llm_test_app")
    fresh_conn.execute("DROP ROLE llm_test_app")


def test_functions_of_users_that_our_statements_call_run_under_the_users_path(
    fresh_conn: Connection, connect: Any, app: str
) -> None:
    """In triggers, policies and defaults, however deep inside our functions they run."""
    session = connect(user=app)
    fresh_conn.execute("SET search_path = public, app")
    fresh_conn.execute("CREATE TABLE app.seen (what text, path text)")
    fresh_conn.execute(
        """CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO seen VALUES (TG_TABLE_NAME, current_setting('search_path'));
            IF TG_LEVEL = 'ROW' THEN NEW.data := NEW.data * 1.0::double precision; END IF;
            RETURN NEW;
        END $$;
        CREATE FUNCTION app.visible(model text) RETURNS boolean
        LANGUAGE plpgsql STABLE SET work_mem = '8MB' AS $$
        BEGIN
            RETURN EXISTS (SELECT FROM allowed a WHERE a.name = model);
        END $$;
        CREATE TABLE app.allowed AS SELECT 's'::text AS name;
        CREATE FUNCTION app.written_by() RETURNS text LANGUAGE sql STABLE AS 'SELECT min(name) FROM allowed';
        ALTER TABLE llm_dataset ADD COLUMN written_by text DEFAULT app.written_by();
        CREATE TRIGGER note BEFORE INSERT OR UPDATE ON llm_param FOR EACH ROW EXECUTE FUNCTION app.note();
        CREATE TRIGGER note AFTER INSERT ON llm_train_log FOR EACH STATEMENT EXECUTE FUNCTION app.note();
        CREATE TRIGGER note AFTER DELETE ON llm_model_config FOR EACH STATEMENT EXECUTE FUNCTION app.note();
        ALTER TABLE llm_model_config ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON llm_model_config USING (app.visible(model)) WITH CHECK (app.visible(model));
        """
    )
    session.execute("SET search_path = public, app")
    session.execute(f"SELECT llm_build_char_tokenizer('s', $${scenario.DOCUMENTS}$$)")
    session.execute("SELECT llm_create_model('s', 'gpt2', 1, 2, 8, 8)")
    session.execute(f"SELECT llm_fill_dataset('s', $${scenario.DOCUMENTS}$$)")
    session.execute("SELECT llm_train('s', 2, log_every => 0)")
    session.execute("CALL llm_train_loop('s', 2, 1, log_every => 0)")
    assert session.execute("SELECT DISTINCT written_by FROM llm_dataset").fetchall() == [("s",)]
    session.execute("SELECT llm_drop_model('s')")
    seen = dict(session.execute("SELECT what, array_agg(DISTINCT path) FROM seen GROUP BY what").fetchall())
    tables = ("llm_param", "llm_train_log", "llm_model_config")
    assert seen == {table: ["public, app"] for table in tables}


def test_policies_functions_find_the_users_names_whatever_could_be_parallel(
    fresh_conn: Connection, connect: Any, app: str
) -> None:
    """A parallel worker has the path in effect alone: what runs under ours is not given to workers."""
    scenario.prepare(fresh_conn)
    fresh_conn.execute("SET search_path = public, app")
    fresh_conn.execute(scenario.CALLS["characters"])
    fresh_conn.execute(scenario.CALLS["weights"])
    fresh_conn.execute(
        """CREATE TABLE app.allowed AS SELECT 's'::text AS name;
        CREATE FUNCTION app.visible(model text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
        BEGIN
            RETURN EXISTS (SELECT FROM allowed a WHERE a.name = model);
        END $$;
        ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON llm_param USING (app.visible(model)) WITH CHECK (app.visible(model));
        """
    )
    session = connect(user=app)
    session.execute("SET search_path = public, app")
    parallel = "debug_parallel_query" if session.info.server_version >= 160000 else "force_parallel_mode"
    session.execute(f"SET {parallel} = on")
    session.execute("SET min_parallel_table_scan_size = 0")
    session.execute("SET parallel_setup_cost = 0")
    assert value(session, "SELECT count(*) > 0 FROM llm_param")
    session.execute("SELECT llm_checkpoint_save('s')")
    assert len(value(session, "SELECT llm_generate('ab', 3, 0, model => 's')")) > 0
