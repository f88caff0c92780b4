"""Limits that the system sets to a backend, as a machine short of memory or of disk would."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from llm_sql.server.install import server_account

limits = pytest.mark.skipif(
    shutil.which("prlimit") is None or "DATABASE_URL" in os.environ,
    reason="limits of another process are Linux's, and for a server of the test's own",
)


def as_the_server(command: list[str]) -> None:
    account = server_account()
    subprocess.run(
        command,
        check=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def address_space(conn: psycopg.Connection[Any]) -> int:
    """Bytes that the connection's backend has mapped."""
    pages = Path(f"/proc/{conn.info.backend_pid}/statm").read_text().split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def limit_address_space(conn: psycopg.Connection[Any], size: int | None) -> None:
    """Lets the connection's backend map no more than `size` bytes; None: as much as it likes."""
    limit = "unlimited" if size is None else str(size)
    as_the_server(["prlimit", f"--pid={conn.info.backend_pid}", f"--as={limit}:"])
