"""Finding, and after a crash clearing away, the processes and the pid file of one data directory."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from psutil import Process

__all__ = ["Process", "clear_remains", "find", "kill_tree"]


def find(data_directory: Path) -> Process | None:
    """The postmaster that serves this directory now.

    A pid file alone proves nothing: after a crash its number may belong to any other process by now.
    """
    pid_file = data_directory / "postmaster.pid"
    try:
        process = Process(int(pid_file.read_text().split("\n", 1)[0]))
        return process if serves(process, data_directory) else None
    except (OSError, ValueError, psutil.Error):
        return None


def serves(process: Process, data_directory: Path) -> bool:
    """Whether the process is one of PostgreSQL's for this directory: they all run inside of it."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE or "postgres" not in process.name():
            return False
        return Path(process.cwd()) == data_directory.resolve()
    except psutil.AccessDenied:
        # macOS hides the working directory of other users' processes; the command line is public.
        return str(data_directory) in process.cmdline()
    except (psutil.Error, OSError):
        return False


def kill_tree(process: Process) -> None:
    """SIGKILL to the postmaster first, so that it can restart nobody, then to its children."""
    children = process.children(recursive=True)
    for victim in (process, *children):
        with contextlib.suppress(psutil.Error):
            victim.kill()
    _wait_for_end([process, *children])


def _wait_for_end(processes: list[Process], timeout_seconds: float = 10) -> None:
    """Wait until they run no more; a zombie its parent has not collected holds nothing of the server's."""
    deadline = time.monotonic() + timeout_seconds
    for process in processes:
        with contextlib.suppress(psutil.Error):
            while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                time.sleep(0.005)


def clear_remains(data_directory: Path, socket_directory: Path) -> None:
    """Make the directory startable when no postmaster runs.

    Backends that outlive a killed postmaster hold its shared memory and would make the start fail; nobody
    can talk to them any more. Pid files whose number was given to another process would make it fail too.
    """
    if not (data_directory / "postmaster.pid").exists():
        return
    orphans = [process for process in psutil.process_iter() if serves(process, data_directory)]
    for orphan in orphans:
        with contextlib.suppress(psutil.Error):
            orphan.kill()
    _wait_for_end(orphans)
    for remains in (*socket_directory.glob(".s.PGSQL.*"), data_directory / "postmaster.pid"):
        remains.unlink(missing_ok=True)
