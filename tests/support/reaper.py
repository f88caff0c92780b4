"""Ends the servers of a test run that was killed, and removes their files.

A run that is killed (a timeout, kill -9, want of memory) removes nothing itself, and a server goes on without
it: a statement under way, subscriptions that try again, all into what may be memory. This program reads the
run's directories from a pipe; when the pipe ends, the run has, and what is left is to go.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import psutil


class Reaper:
    """The program, for this process: begun with the first directory."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def watch(self, place: Path) -> None:
        if self._process is None:
            # A session of its own: what ends this process by its group must not end the reaper.
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
        assert self._process.stdin is not None
        self._process.stdin.write(f"{place}\n")
        self._process.stdin.flush()


def servers(place: Path) -> list[psutil.Process]:
    """The servers whose data directories are below the place: a number in a file may be another's by now."""
    found = []
    for file in place.rglob("postmaster.pid"):
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int(file.read_text().split()[0]))
            if Path(process.cwd()) == file.parent.resolve():
                found.append(process)
    return found


def reap(place: Path) -> None:
    for server in servers(place):
        with contextlib.suppress(psutil.Error):
            processes = [server, *server.children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=30)
    shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    places = [Path(line.rstrip("\n")) for line in sys.stdin]
    for place in places:
        if place.exists():
            reap(place)


if __name__ == "__main__":
    main()
