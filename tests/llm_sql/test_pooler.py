"""Behind PgBouncer in transaction mode: no statement may count on the server that the one before it had."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.client import PGLLMClient

from ..cli.test_settings import command_line, every_command

PROGRAM = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
CONFIG = """
[databases]
* = {address}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
server_reset_query =
ignore_startup_parameters = extra_float_digits
logfile = {folder}/log
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def pooled(server: Any, fresh_database: str, tmp_path: Path) -> Iterator[str]:
    """The database's URL through PgBouncer, whose two servers other clients have prepared statements on."""
    if PROGRAM is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    parts = psycopg.conninfo.conninfo_to_dict(server.url(fresh_database))
    names = {"host": "host", "port": "port", "user": "user", "dbname": "dbname", "password": "password"}
    address = " ".join(f"{name}={parts[key]}" for key, name in names.items() if parts.get(key))
    port = free_port()
    (tmp_path / "pgbouncer.ini").write_text(CONFIG.format(address=address, port=port, folder=tmp_path))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        for path in (tmp_path, *tmp_path.parents):
            if str(path) != "/tmp" and str(path).startswith("/tmp/"):
                path.chmod(0o755)
        # The account that may go where the embedded server's socket is.
        owner = (
            Path(str(parts.get("host", "/"))).stat().st_uid if parts.get("host", "").startswith("/") else 0
        )
        account = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(tmp_path, account.pw_uid, account.pw_gid)
    process = subprocess.Popen([PROGRAM, str(tmp_path / "pgbouncer.ini")], stderr=subprocess.PIPE, **user)
    url = f"postgresql://{parts['user']}@127.0.0.1:{port}/{fresh_database}"
    try:
        for _ in range(200):
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.05)
        # Both servers hold statements of the names that psycopg gives.
        with psycopg.connect(url) as one, psycopg.connect(url) as two:
            for connection in (one, two):
                for number in range(4):
                    connection.execute(f"SELECT {number}", prepare=True)  # type: ignore[call-overload]
        yield url
    finally:
        process.terminate()
        process.wait(10)


def test_commands_and_clients_behind_a_pooler(pooled: str, tmp_path: Path) -> None:
    every_command(command_line(pooled), tmp_path)
    options: dict[str, Any] = {"model": "c", "max_tokens": 5, "seed": 1}
    for autocommit in (True, False):
        with psycopg.connect(pooled, autocommit=autocommit) as connection:
            client = PGLLMClient(connection)
            for _ in range(8):
                text = client.generate("the ", **options)
                assert [e.text for e in client.stream("the ", **options)][-1] == text
                client.beam_search("the ", model="c", max_tokens=2)
    engine = create_engine(pooled, connect_args={"prepare_threshold": None})
    with Session(engine) as session:
        lm = LanguageModel(session, "c")
        reports: list[Any] = []
        lm.train(3, log_every=0, progress=reports.append)
        session.commit()
        lm.train(3, log_every=0, commit_every=1, progress=reports.append)
        for _ in range(8):
            lm.generate("the ", max_tokens=4, seed=1)
            session.commit()
    engine.dispose()
    # An engine of the user's that prepares: what takes many statements still works.
    engine = create_engine(pooled)
    with Session(engine) as session:
        LanguageModel(session, "c").export_weights(tmp_path / "w.npz")
        LanguageModel(session, "c").import_weights(tmp_path / "w.npz")
        session.commit()
    engine.dispose()
