"""Finding, and after a crash clearing away, the processes and the pid file of one data directory.

The directory may be another account's, and then so is what stands in its pid file: root looks at the process,
and leaves signals and deletions to programs that run as that account.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from psutil import Process

from llm_sql.server import guarded
from llm_sql.server.install import Account, run_script

__all__ = ["Process", "clear_remains", "find", "kill_tree"]


def find(data_directory: Path) -> Process | None:
    """The postmaster that serves this directory now.

    A pid file alone proves nothing: after a crash its number may belong to any other process by now.
    """
    text = guarded.read_text(data_directory / "postmaster.pid", 4096)
    if text is None:
        return None
    try:
        process = Process(int(text.split("\n", 1)[0]))
        return process if serves(process, data_directory) else None
    except (OSError, ValueError, OverflowError, psutil.Error):
        return None


def serves(process: Process, data_directory: Path) -> bool:
    """Whether the process is one of PostgreSQL's for this directory: they run inside of it, as its owner."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE or "postgres" not in process.name():
            return False
        if process.uids().real != data_directory.stat().st_uid:
            return False
        return Path(process.cwd()) == data_directory.resolve()
    except psutil.AccessDenied:
        # macOS hides the working directory of other users' processes; the command line is public.
        return str(data_directory) in process.cmdline()
    except (psutil.Error, OSError):
        return False


def kill_tree(process: Process, account: Account | None) -> None:
    """SIGKILL to the postmaster first, so that it can restart nobody, then to its children."""
    victims = [process, *process.children(recursive=True)]
    _kill(victims, account)
    _wait_for_end(victims)


def _kill(victims: list[Process], account: Account | None) -> None:
    if account is not None:
        # As the account, so that the kernel sees to it that nothing but the account's own processes end.
        pids = [str(victim.pid) for victim in victims]
        run_script(account, 'for pid; do kill -KILL "$pid" 2>/dev/null || true; done', *pids)
        return
    for victim in victims:
        with contextlib.suppress(psutil.Error):
            victim.kill()


def _wait_for_end(processes: list[Process], timeout_seconds: float = 10) -> None:
    """Wait until they run no more; a zombie its parent has not collected holds nothing of the server's."""
    deadline = time.monotonic() + timeout_seconds
    for process in processes:
        with contextlib.suppress(psutil.Error):
            while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                time.sleep(0.005)


def clear_remains(data_directory: Path, socket_directory: Path, account: Account | None) -> None:
    """Make the directory startable when no postmaster runs.

    Backends that outlive a killed postmaster hold its shared memory and would make the start fail; nobody
    can talk to them any more. Pid files whose number was given to another process would make it fail too.
    """
    orphans = [process for process in psutil.process_iter() if serves(process, data_directory)]
    _kill(orphans, account)
    _wait_for_end(orphans)
    if account is not None:
        script = 'rm -rf -- "$1"/.s.PGSQL.* "$2"/postmaster.pid'
        run_script(account, script, socket_directory, data_directory)
        return
    for remains in (*socket_directory.glob(".s.PGSQL.*"), data_directory / "postmaster.pid"):
        remains.unlink(missing_ok=True)
