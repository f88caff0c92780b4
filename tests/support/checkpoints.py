"""Saving and loading checkpoints in tests, and a look at their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .tensors import value

Connection = psycopg.Connection[Any]


def save(conn: Connection, model: str = "tiny", note: str | None = None, keep: int | None = None) -> int:
    return int(value(conn, "SELECT public.llm_checkpoint_save(%s, %s, %s)", (model, note, keep)))


def load(conn: Connection, id_: int, model: str = "tiny") -> int:
    return int(value(conn, "SELECT public.llm_checkpoint_load(%s, %s)", (model, id_)))


def directory(conn: Connection) -> Path:
    # The setting is known once the library is loaded.
    conn.execute("SELECT public.pg_llm_checkpoint_name('x')")
    return Path(value(conn, "SHOW data_directory")) / value(conn, "SHOW pg_llm.checkpoint_dir")


def folder(conn: Connection) -> Path:
    """This database's folder, which may not exist yet."""
    return directory(conn) / value(conn, "SELECT split_part(public.pg_llm_checkpoint_name('x'), '/', 1)")


def file_of(conn: Connection, id_: int) -> Path:
    return directory(conn) / value(conn, "SELECT file_path FROM public.llm_checkpoint WHERE id = %s", (id_,))


def files(conn: Connection) -> set[str]:
    """Names of all files in this database's folder."""
    return {path.name for path in folder(conn).iterdir()} if folder(conn).exists() else set()


def referenced(conn: Connection) -> set[str]:
    return {Path(row[0]).name for row in conn.execute("SELECT file_path FROM public.llm_checkpoint")}


def give_to_server(conn: Connection, path: Path) -> None:
    """Makes a file of the test's the server's, as far as the test may."""
    if os.geteuid() == 0:
        about = Path(value(conn, "SHOW data_directory")).stat()
        os.chown(path, about.st_uid, about.st_gid, follow_symlinks=False)


def skip_unless_visible(conn: Connection) -> None:
    """Tests look into the server's directory, which they can when it is theirs."""
    if not os.access(value(conn, "SHOW data_directory"), os.R_OK | os.X_OK):
        pytest.skip("the server's files are not to be seen from here")
