"""Up, down, offline and side by side: every way a database gets to a revision leaves the same catalog."""

from __future__ import annotations

import re

import psycopg
import pytest
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from llm_sql.migrations import VERSION_TABLE, freeze, operations

from ..amount import extended


def revisions(migrations):
    """From the first to the head; one line without branches."""
    directory = ScriptDirectory.from_config(migrations.config())
    assert len(directory.get_heads()) == 1
    return [script.revision for script in reversed(list(directory.walk_revisions()))]


def test_up_and_down_leave_nothing(empty):
    before = empty.catalog()
    empty.upgrade()
    assert empty.execute(f"SELECT version_num FROM {VERSION_TABLE}") == [(revisions(empty)[-1],)]
    empty.check()
    empty.downgrade()
    assert empty.catalog() == before


def test_every_revision_can_be_undone(empty):
    steps = revisions(empty)
    states = []
    for revision in steps:
        empty.upgrade(revision)
        states.append(empty.catalog())
    for revision, state in zip(reversed(steps[:-1]), reversed(states[:-1]), strict=True):
        empty.downgrade(revision)
        # Revoked privileges leave an explicit empty list behind, and dropped columns a number.
        assert {row[:3] for row in empty.catalog()} == {row[:3] for row in state}, revision


def test_offline_script_gives_the_same_schema(new_database):
    online, offline = new_database(), new_database()
    online.upgrade()
    psql = offline.program(
        "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", text=offline.script()
    )
    assert psql.returncode == 0, psql.stderr
    assert offline.catalog() == online.catalog()
    dumps = [database.program("pg_dump", "-s", "-d") for database in (online, offline)]
    assert all(dump.returncode == 0 for dump in dumps), dumps
    # pg_dump of newer minor releases writes a random key into \restrict.
    first, second = (re.sub(r"\\(un)?restrict .*", "", dump.stdout) for dump in dumps)
    assert "CREATE TABLE public.llm_param" in first
    assert first == second
    for query in (
        "SELECT to_jsonb(c) - 'created_at' FROM llm_model_config c",
        "SELECT to_jsonb(a) FROM llm_arch a",
        f"SELECT to_jsonb(v) FROM {VERSION_TABLE} v",
    ):
        rows = [sorted(str(row) for row in database.execute(query)) for database in (online, offline)]
        assert rows[0] == rows[1]
    offline.check()


def test_offline_downgrade_leaves_nothing(empty):
    before = empty.catalog()
    empty.upgrade()
    script = empty.script(down=f"{revisions(empty)[-1]}:base")
    psql = empty.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", text=script)
    assert psql.returncode == 0, psql.stderr
    assert empty.catalog() == before


@extended
def test_concurrent_upgrades(empty, run_alembic):
    processes = [run_alembic("upgrade", "head", url=empty.url) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    empty.check()


def test_missing_extension_stops_before_any_ddl(empty, monkeypatch):
    monkeypatch.setattr(operations, "EXTENSION", "pg_llm_absent")
    before = empty.catalog()
    with pytest.raises(CommandError, match="not installed on this server") as caught:
        empty.upgrade()
    assert re.search(r"make install PG_CONFIG=\S+/pg_config", str(caught.value))
    assert empty.catalog() == before
    with empty.connect() as connection, pytest.raises(psycopg.errors.FeatureNotSupported) as refused:
        connection.execute(operations.require_kernels("1.0"))
    assert "make install" in refused.value.diag.message_hint


def test_missing_version_of_the_extension_is_refused(empty):
    refused = pytest.raises(psycopg.errors.FeatureNotSupported, match=r"version 99\.0 is not installed")
    with empty.connect() as connection, refused:
        connection.execute(operations.require_kernels("99.0"))


def test_unreachable_server_is_one_sentence(run_alembic):
    process = run_alembic("upgrade", "head", url="postgresql://nobody@127.0.0.1:1/nowhere?connect_timeout=5")
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "cannot reach the database" in output
    assert "Traceback" not in output


def test_database_url_forms(empty, run_alembic):
    for url in (empty.url, empty.server.url(empty.name)):
        process = run_alembic("current", url=url)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
    process = run_alembic("-x", f"url={empty.url}", "upgrade", "0001", url="postgresql://127.0.0.1:1/nowhere")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert empty.execute(f"SELECT version_num FROM {VERSION_TABLE}") == [("0001",)]


def test_search_path_of_the_user_does_not_matter(empty):
    empty.execute("CREATE SCHEMA elsewhere")
    empty.execute(f"ALTER DATABASE {empty.name} SET search_path = elsewhere, public")
    empty.upgrade()
    empty.check()
    assert empty.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'elsewhere'::regnamespace") == [
        (0,)
    ]


def test_weights_survive_a_downgrade_of_the_seeds(empty):
    empty.upgrade()
    empty.execute(
        "INSERT INTO llm_param (model, name, data) VALUES ('microgpt', 'wte.weight', '[1, 2]'::tensor)"
    )
    empty.downgrade("0003")
    assert empty.execute("SELECT model FROM llm_model_config") == [("microgpt",)]
    empty.upgrade()
    empty.check()


def test_preloaded_libraries_of_others_are_kept(empty):
    libraries = (
        "SELECT setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname ="
    )
    empty.execute(f"ALTER DATABASE {empty.name} SET session_preload_libraries = 'plpgsql'")
    empty.upgrade()
    expected = [(["session_preload_libraries=plpgsql, pg_llm"],)]
    assert empty.execute(f"{libraries} '{empty.name}'") == expected
    empty.downgrade()
    assert empty.execute(f"{libraries} '{empty.name}'") == [(["session_preload_libraries=plpgsql"],)]


def test_settings_are_described_in_every_new_session(empty):
    empty.upgrade()
    names = {name for (name,) in empty.execute("SELECT name FROM pg_settings WHERE name LIKE 'pg\\_llm.%'")}
    assert {"pg_llm.threads", "pg_llm.isa", "pg_llm.record", "pg_llm.tape_keep"} <= names


def test_the_first_revisions_are_what_is_declared():
    """Until 0.1.0 is tagged: `python -m llm_sql.migrations.freeze` writes them."""
    folder = operations.SQL_DIRECTORY
    declared = freeze.scripts()
    assert {name: (folder / name).read_text(encoding="utf-8") for name in declared} == declared
    by_hand = {"0004/preload.sql", "0004/unload.sql"}
    assert {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.sql")
    } == declared.keys() | by_hand


def test_revisions_import_nothing_that_changes():
    for script in (operations.SQL_DIRECTORY.parent / "versions").glob("*.py"):
        assert not re.search(r"^\s*(from|import) .*models", script.read_text(), re.MULTILINE), script.name
