"""Waiting for what another process does, and how much it has worked: no test looks at the clock.

A loaded machine takes its time, so waits end by what they wait for; the watchdog is for what will never come.
Where a test is about doing little (a cancel, a first row), it compares CPU time with that of doing all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import psycopg
import pytest

WATCHDOG_SECONDS = 600


def wait_for(condition: Callable[[], Any], what: str = "what is waited for", pause: float = 0.005) -> Any:
    """Until the condition holds; returns what it gave."""
    end = time.monotonic() + WATCHDOG_SECONDS
    while not (result := condition()):
        if time.monotonic() > end:
            pytest.fail(f"{what} does not happen")
        time.sleep(pause)
    return result


def cpu_seconds(conn: psycopg.Connection[Any]) -> float:
    """What the connection's backend has used so far, its threads included."""
    if not (conn.info.host or "").startswith("/"):
        pytest.skip("needs a server on this machine")
    try:
        times = psutil.Process(conn.info.backend_pid).cpu_times()
    except psutil.Error as error:
        pytest.skip(f"the server's processes cannot be seen: {error}")
    return float(times.user + times.system)


def work_of(conn: psycopg.Connection[Any], call: Callable[[], object]) -> float:
    """CPU seconds of the connection's backend during the call."""
    before = cpu_seconds(conn)
    call()
    return cpu_seconds(conn) - before


def vacuum(conn: psycopg.Connection[Any], options: str = "") -> None:
    """VACUUM of the weights when nobody looks at old rows, as the server's own ANALYZE does for a moment."""
    kept = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid())"
    )
    wait_for(lambda: conn.execute(kept).fetchone() == (False,), "the end of all snapshots")
    conn.execute(f"VACUUM {options} llm_param".encode())
