"""What tests of shared weights ask: which files there are, who has mapped them, what a model computes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llm_sql.server.install import server_account

from .small_models import Connection
from .tensors import value

LOGITS = "SELECT llm_logits('{1,2,3}', %s)::text"


def logits(conn: Connection, model: str = "tiny") -> str:
    result = value(conn, LOGITS, (model,))
    assert isinstance(result, str)
    return result


def private_logits(conn: Connection, model: str = "tiny") -> str:
    """The same without sharing."""
    conn.execute("SET pg_llm.shared_dir = ''")
    try:
        return logits(conn, model)
    finally:
        conn.execute("RESET pg_llm.shared_dir")


def mapped(conn: Connection) -> list[str]:
    """Paths of the shared files that a session has mapped, as its system says."""
    maps = Path(f"/proc/{conn.info.backend_pid}/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what a process has mapped")
    lines = [line.split(maxsplit=5) for line in maps.read_text().splitlines() if "pgsql_tmp_llm" in line]
    assert all(line[1] == "r--s" for line in lines)
    return sorted(line[5].strip().removesuffix(" (deleted)") for line in lines)


def version(conn: Connection, model: str = "tiny") -> str | None:
    """The name that all sessions have for what this one reads of the model; None while there is none."""
    conn.execute("SELECT llm_release()")
    logits(conn, model)
    names = {Path(path).name.split(".")[4] for path in mapped(conn)}
    assert len(names) <= 1
    return names.pop() if names else None


def files(conn: Connection) -> list[str]:
    """This database's shared files in the place that they are in by default."""
    rows = conn.execute(
        "SELECT name FROM pg_ls_tmpdir() WHERE split_part(name, '.', 3) ="
        " (SELECT oid::text FROM pg_database WHERE datname = current_database()) ORDER BY name"
    ).fetchall()
    return [row[0] for row in rows]


def listed(conn: Connection) -> list[tuple[Any, ...]]:
    return conn.execute(
        "SELECT model, precision, current FROM llm_shared_version ORDER BY model, built_at"
    ).fetchall()


def own(path: Path) -> None:
    account = server_account()
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def using(connection: Connection, place: Path) -> Connection:
    connection.execute("SELECT pg_llm_numerics_version()")
    connection.execute("SELECT set_config('pg_llm.shared_dir', %s, false)", (str(place),))
    return connection


def notices(connection: Connection) -> list[str]:
    heard: list[str] = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    return heard


def only_file(place: Path) -> Path:
    (path,) = place.iterdir()
    return path
