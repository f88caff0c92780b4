"""Where checkpoints lie: changed and unusable directories, dropped, cloned and upgraded databases."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.checkpoints import (
    directory,
    file_of,
    files,
    folder,
    load,
    referenced,
    save,
    skip_unless_visible,
)
from ..support.small_models import make_model, make_trainable, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def only_where_files_can_be_seen(request: pytest.FixtureRequest) -> None:
    if "conn" in request.fixturenames:
        skip_unless_visible(request.getfixturevalue("conn"))


@pytest.fixture
def elsewhere(conn: Connection) -> Iterator[Path]:
    """Another directory for checkpoints, which the server can make."""
    path = directory(conn).parent / "pg_llm_elsewhere"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_changed_directory_loses_nothing(conn: Connection, elsewhere: Path) -> None:
    """Files are found, and go with their rows, in the directory they were written to."""
    make_trainable(conn)
    train(conn, n_steps=2)
    before = weights(conn)
    old, gone = save(conn), save(conn)
    first = folder(conn)
    conn.execute(f"SET pg_llm.checkpoint_dir = '{elsewhere}'")
    train(conn, n_steps=1)
    assert load(conn, old) == 2
    assert weights(conn) == before
    new = save(conn, keep=2)
    assert (elsewhere / first.name).is_dir()
    assert {p.name for p in first.iterdir()} | files(conn) == referenced(conn)
    assert value(conn, "SELECT array_agg(id ORDER BY id) FROM llm_checkpoint") == [gone, new]
    conn.execute("RESET pg_llm.checkpoint_dir")
    assert load(conn, new) == 2
    save(conn, keep=1)
    assert list((elsewhere / first.name).iterdir()) == []
    # a directory that is gone hides nothing
    shutil.rmtree(elsewhere)
    assert load(conn, save(conn, keep=1)) == 2


@pytest.mark.parametrize(
    "path",
    [
        "",
        "base",
        "base/5",
        "global",
        "pg_wal",
        "pg_wal/x",
        ".",
        "a\nb",
        "x" * 2000,
        "pg_llm_checkpoints/6543210987654321098-5",
    ],
)
def test_directories_that_are_refused(conn: Connection, path: str) -> None:
    data, before = value(conn, "SHOW data_directory"), directory(conn)
    for spelt in (path, f"{data}/{path}" if "\n" not in path and path != "x" * 2000 else path):
        with pytest.raises(errors.InvalidParameterValue):
            conn.execute("SELECT set_config('pg_llm.checkpoint_dir', %s, false)", (spelt,))
    assert directory(conn) == before


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/nonexistent/deeper", errors.UndefinedFile),
        ("/proc/llm_sql", errors.UndefinedFile),
        ("/etc/passwd", psycopg.Error),
        ("/etc/passwd/x", psycopg.Error),
        ("/usr/llm_sql_checkpoints", errors.InsufficientPrivilege),
    ],
)
def test_directories_that_cannot_be_written(conn: Connection, path: str, error: type[Exception]) -> None:
    make_model(conn)
    kept = save(conn)
    conn.execute("SELECT set_config('pg_llm.checkpoint_dir', %s, false)", (path,))
    with pytest.raises(error) as caught:
        save(conn)
    assert isinstance(caught.value, psycopg.Error)
    assert str(caught.value.sqlstate)[:2] in ("58", "42"), caught.value
    assert load(conn, kept) == 0 if path.startswith("/nonexistent") else True


def test_folders_of_dropped_databases(conn: Connection, server: Any, template: str) -> None:
    make_model(conn)
    kept = save(conn)
    other = server.create_database(template)
    with psycopg.connect(server.url(other), autocommit=True) as theirs:
        make_model(theirs)
        save(theirs)
        save(theirs)
        orphan = folder(theirs)
        size = sum(path.stat().st_size for path in orphan.iterdir())
        assert str(orphan) not in str(conn.execute("SELECT folder FROM llm_checkpoint_orphans()").fetchall())
    server.drop_database(other)
    relative = f"{value(conn, 'SHOW pg_llm.checkpoint_dir')}/{orphan.name}"
    found = conn.execute(
        "SELECT folder, files, bytes FROM llm_checkpoint_orphans() WHERE folder = %s", (relative,)
    )
    assert found.fetchall() == [(relative, 2, size)]
    assert orphan.exists()
    removed = {row[0] for row in conn.execute("SELECT folder FROM llm_checkpoint_orphans(remove => true)")}
    assert relative in removed
    assert not orphan.exists()
    assert value(conn, "SELECT count(*) FROM llm_checkpoint_orphans()") == 0
    assert load(conn, kept) == 0


def test_rows_from_another_database_say_where_files_go(conn: Connection) -> None:
    """A clone, a dump, pg_upgrade: 58P01, and after what the hint says the checkpoint loads."""
    make_trainable(conn)
    train(conn, n_steps=2)
    before = weights(conn)
    id_ = save(conn)
    path = file_of(conn, id_)
    foreign = path.parent.with_name("6543210987654321098-4711")
    conn.execute(
        "UPDATE llm_checkpoint SET file_path = %s || '/' || split_part(file_path, '/', 2) WHERE id = %s",
        (foreign.name, id_),
    )
    foreign.mkdir()
    moved = path.rename(foreign / path.name)
    with pytest.raises(errors.UndefinedFile) as caught:
        load(conn, id_)
    assert "not on this server" in str(caught.value)
    assert path.parent.name in str(caught.value.diag.message_hint)
    assert "pg_upgrade" in str(caught.value.diag.message_hint)
    # first the rows, then the files: a save in between sweeps nothing
    conn.execute(
        "UPDATE llm_checkpoint SET file_path = pg_llm_checkpoint_name(split_part(file_path, '/', 2))"
        " WHERE file_path LIKE %s",
        (f"{foreign.name}/%",),
    )
    moved.rename(path)
    foreign.rmdir()
    save(conn)
    conn.execute("SELECT llm_init_model('tiny', 5)")
    assert load(conn, id_) == 2
    assert weights(conn) == before
