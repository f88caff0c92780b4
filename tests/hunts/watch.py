"""What went wrong on a server: its log, the sanitizer's reports, sessions that do not answer."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from psycopg import pq

# Said by PostgreSQL itself when memory, references or its own data are not what they must be.
BAD_LINES = re.compile(
    r"was terminated by signal|TRAP:|PANIC:|problem in alloc set|detected write past|leaked|reference leak"
    r"|\bleak:|bad block|XX00[012]|AddressSanitizer|stack smashing|corrupted"
)
# pg_terminate_backend's and our own ends of sessions are no crash.
HARMLESS = re.compile(r"terminated by signal 15|terminating connection due to administrator command")


class Log:
    """The part of a server's log that is new since the last look."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.position = path.stat().st_size if path is not None else 0

    def new(self) -> Iterator[str]:
        if self.path is None or not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            text = file.read()
        # A line that is still being written is for the next look.
        end = text.rfind(b"\n") + 1
        self.position += end
        yield from text[:end].decode(errors="replace").splitlines()

    def bad(self) -> list[str]:
        return [line for line in self.new() if BAD_LINES.search(line) and not HARMLESS.search(line)]


class Reports:
    """Files of the sanitizer (ASAN_OPTIONS=log_path=DIR/asan) that are new since the last look."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.seen = set(self._files())

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("asan.*")) if self.directory is not None else []

    def new(self) -> list[Path]:
        found = [path for path in self._files() if path not in self.seen]
        self.seen.update(found)
        return found


class Watchdog(threading.Thread):
    """Cancels what it is asked to and what runs too long; tells when that goes unanswered."""

    def __init__(self, patience: float) -> None:
        super().__init__(daemon=True)
        self.patience = patience
        self.hang: str | None = None
        self.cancels = 0
        self._lock = threading.Lock()
        self._statement: tuple[pq.abc.PGcancel, str, float] | None = None
        self._delay: float | None = None
        self._asked = threading.Event()
        self._is_over = False

    def begin(self, pgconn: pq.abc.PGconn, statement: str, cancel_after: float | None) -> None:
        with self._lock:
            self._statement = (pgconn.get_cancel(), statement, time.monotonic())
            self._delay = cancel_after
        if cancel_after is not None:
            self._asked.set()

    def end(self) -> None:
        with self._lock:
            self._statement = self._delay = None

    def stop(self) -> None:
        self._is_over = True
        self._asked.set()

    def run(self) -> None:
        while not self._is_over:
            self._asked.wait(1.0)
            self._asked.clear()
            with self._lock:
                statement, delay = self._statement, self._delay
            if statement is None:
                continue
            cancel, text, began = statement
            running = time.monotonic() - began
            if running > 2 * self.patience:
                self.hang = text
            if delay is not None:
                time.sleep(delay)
            if delay is not None or running > self.patience:
                self.cancels += 1
                with contextlib.suppress(Exception):  # the session may have ended meanwhile
                    cancel.cancel()
