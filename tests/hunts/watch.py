"""What went wrong on a server: its log, the sanitizer's reports, sessions that do not answer."""

from __future__ import annotations

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
    """Cancels whatever runs, a few times a second, and what runs too long; tells when that goes unanswered."""

    def __init__(self, patience: float, cancels_per_second: float) -> None:
        super().__init__(daemon=True)
        self.patience = patience
        self.pause = 1 / cancels_per_second if cancels_per_second > 0 else None
        self.hang: str | None = None
        self.cancels = 0
        self._lock = threading.Lock()
        self._statement: tuple[pq.abc.PGconn, str, float] | None = None
        self._ended = threading.Event()

    def begin(self, pgconn: pq.abc.PGconn, statement: str) -> None:
        with self._lock:
            self._statement = (pgconn, statement, time.monotonic())

    def end(self) -> None:
        with self._lock:
            self._statement = None

    def stop(self) -> None:
        self._ended.set()

    def run(self) -> None:
        asked = 0.0
        while not self._ended.wait(self.pause or 1.0):
            with self._lock:
                if self._statement is None:
                    continue
                pgconn, statement, began = self._statement
                try:
                    cancel = pgconn.get_cancel()
                except Exception:
                    continue
            running = time.monotonic() - began
            if running > 2 * self.patience:
                self.hang = statement
            if running > self.patience and time.monotonic() - asked > 1:
                asked = time.monotonic()
                self._cancel(cancel)
            elif self.pause is not None and running < self.patience:
                self._cancel(cancel)

    def _cancel(self, cancel: pq.abc.PGcancel) -> None:
        try:
            cancel.cancel()
            self.cancels += 1
        except Exception:
            pass
