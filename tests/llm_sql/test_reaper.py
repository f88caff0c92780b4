"""A test run that is killed leaves no server and no files, whatever its server is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from ..amount import extended
from ..support.reaper import servers
from ..support.waiting import wait_for

# A server of its own, with a statement that would go on for hours without its client.
RUN = """
import sys, threading, time
from tests.support.durable import running
from tests.support.places import new_place
place = new_place("llm-sql-reaped-")
with running(place / "home") as durable:
    conn = durable.connect("postgres")
    endless = "SELECT count(*) FROM generate_series(1, 1000000000000)"
    threading.Thread(target=conn.execute, args=(endless,), daemon=True).start()
    print(conn.info.backend_pid, place, flush=True)
    time.sleep(3600)
"""


@extended
def test_a_killed_run_leaves_nothing() -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, cwd=root())
    try:
        assert run.stdout is not None
        pid, name = run.stdout.readline().split()
        backend, place = psutil.Process(int(pid)), Path(name)
        assert len(servers(place)) == 1
        os.kill(run.pid, signal.SIGKILL)
        wait_for(lambda: not place.exists(), "the end of the server's files")
        wait_for(lambda: not backend.is_running(), "the end of the backend")
    finally:
        run.kill()
        run.communicate()


def root() -> Path:
    return Path(__file__).parents[2]
