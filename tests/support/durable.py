"""Servers of a test's own, with the durability they have by default: to crash, to dump, to replicate."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg

from llm_sql.server import EmbeddedServer, Installation, layout
from llm_sql.server.install import server_account

from .places import new_place
from .small_models import Connection
from .stock import stocked
from .tensors import value
from .waiting import wait_for

# Of WAL, as much as tests write within what a standby may be late by: whatever runs away must not fill the
# machine. A slot whose reader is later than that is given up.
SETTINGS = {
    "max_connections": "20",
    "shared_buffers": "64MB",
    "wal_buffers": "16MB",
    "min_wal_size": "32MB",
    "max_wal_size": "128MB",
    "wal_keep_size": "64MB",
    "max_slot_wal_keep_size": "128MB",
    # Weights are shared as soon as they are committed, not when they have stood for a while.
    "pg_llm.shared_age": "0",
}


class Durable:
    """A running server."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server

    def connect(self, database: str = "llm_sql", *, autocommit: bool = True) -> Connection:
        return psycopg.connect(self.server.url(database), autocommit=autocommit)

    def crash(self) -> None:
        self.server.kill()
        self.server.start()

    def kill_backend(self, pid: int) -> None:
        """kill -9 of a session, until the server has ended all others, or had seen it end by itself."""
        with self.connect("postgres") as other:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            wait_for(lambda: not alive(other) or self._goes_on_without(pid), "the end of all sessions")

    def _goes_on_without(self, pid: int) -> bool:
        """Whether the server has seen the end of this process and takes connections after that."""
        if psutil.pid_exists(pid):
            return False
        with contextlib.suppress(psycopg.OperationalError), self.connect("postgres"):
            return True
        return False


def alive(conn: Connection) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        conn.execute("SELECT 1")
        return True
    return False


@contextlib.contextmanager
def running(home: Path, installation: Installation | None = None, **settings: str) -> Iterator[Durable]:
    """The server of this home, from whatever its data directory holds; stopped afterwards."""
    server = EmbeddedServer(home, settings=SETTINGS | settings, installation=installation)
    try:
        server.start()
        yield Durable(server)
    finally:
        server.stop()
        server.release()


@contextlib.contextmanager
def temporary_directory(*, on_disk: bool = False) -> Iterator[Path]:
    directory = new_place("llm-sql-own-", on_disk=on_disk)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def provisioned(*, on_disk: bool = False, **settings: str) -> Iterator[Durable]:
    """A new server with the schema in its default database."""
    with temporary_directory(on_disk=on_disk) as directory:
        home = directory / "home"
        with running(home, stocked(home), **settings) as durable:
            yield durable


@contextlib.contextmanager
def streaming_replica(primary: Durable, *, on_disk: bool = False, **settings: str) -> Iterator[Durable]:
    """A hot standby made by pg_basebackup -R, which goes on receiving what the primary commits."""
    with temporary_directory(on_disk=on_disk) as directory:
        home, account = directory / "home", server_account()
        layout.prepare_home(home, account)
        data = home / primary.server.data_directory.name
        subprocess.run(
            [program("pg_basebackup"), "-R", "-c", "fast", "-D", data, "-d", primary.server.url("postgres")],
            check=True,
            capture_output=True,
        )
        if account is not None:
            for path in (data, *data.rglob("*")):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
        with running(home, primary.server.installation, **settings) as replica:
            yield replica


def wait_for_replay(primary: Connection, replica: Connection) -> None:
    """Until the replica shows all that the primary has committed."""
    written = value(primary, "SELECT pg_current_wal_flush_lsn()")
    wait_for(lambda: value(replica, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (written,)), "following")


def program(name: str) -> str:
    """One of the client programs that come with the server under test."""
    return str(Installation.discover().program(name))
