"""sqlsmith's random queries against a provisioned database, as a superuser and as a role without grants.

    python -m tests.hunts.smith --role nobody --minutes 30 --seed 7 --url postgresql://...

The server is one that may be broken: a superuser's random calls reload, terminate and write what they like.
Ends with 1 after a crash, a report of the sanitizer, an internal error (XX000) out of our C files, or a query
that no time-out ends. sqlsmith is a Debian package.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .database import login, server_log
from .stateful import drop, scratch
from .watch import Log, Reports

SOURCES = {path.name for path in (Path(__file__).parents[2] / "kernels" / "postgres").rglob("*.c")}
CRASH = re.compile(
    r"was terminated by signal (?!15\b)|TRAP:|PANIC:|reinitializing|AddressSanitizer|write past chunk"
)
LOCATION = re.compile(r"LOCATION:\s+\w+, (\w+\.c):\d+")
STUCK = """SELECT pid, query FROM pg_stat_activity
    WHERE usename = %s AND state = 'active' AND query_start < clock_timestamp() - make_interval(secs => %s)"""


class Smith:
    """One run of sqlsmith as one role, watched through the server's log and pg_stat_activity."""

    def __init__(self, url: str, role: str, seed: int, log: Path | None, asan: Path | None) -> None:
        self.url, self.role, self.seed = url, role, seed
        with psycopg.connect(url, autocommit=True) as conn:
            # LOCATION tells whose code raised an error.
            for setting in ("log_error_verbosity = verbose", "log_line_prefix = '%m [%p] %q%u@%d '"):
                conn.execute(f"ALTER SYSTEM SET {setting}")  # type: ignore[arg-type]
            conn.execute("SELECT pg_reload_conf()")
            conn.execute(f"ALTER ROLE {login(role)} RESET log_min_messages")  # type: ignore[arg-type]
            self.log = Log(server_log(conn, log))
        self.reports = Reports(asan)
        self.codes: Counter[str] = Counter()
        self.ours: Counter[str] = Counter()
        self.found: list[str] = []
        self._pending: str | None = None

    def target(self) -> str:
        parts = conninfo_to_dict(make_conninfo(self.url, user=login(self.role)))
        return " ".join(f"{name}={value}" for name, value in parts.items())

    def run(self, seconds: float) -> None:
        command = ["sqlsmith", f"--target={self.target()}", f"--seed={self.seed}"]
        began = time.monotonic()
        while not self.found and (left := seconds - (time.monotonic() - began)) > 0:
            # It gives up now and then, when a random call has ended its session.
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                until = time.monotonic() + left
                while process.poll() is None and time.monotonic() < until and not self.found:
                    time.sleep(1)
                    self.look()
            finally:
                process.terminate()
                process.wait()
            command[-1] = f"--seed={self.seed + 1000 * int(1 + time.monotonic() - began)}"
        self.look()

    def look(self) -> None:
        """What the log and the reports say since the last look, and whether a query outlives its time-out."""
        for line in self.log.new():
            code = re.search(r"(?:ERROR|FATAL):  (\w{5}): ", line)
            if code:
                self.codes[code[1]] += 1
                self._pending = line if code[1].startswith("XX") else None
                if self._pending is None:
                    self.ours["ours" if "llm" in line else "others"] += 1
            location = LOCATION.search(line)
            if location and self._pending is not None:
                if location[1] in SOURCES:
                    self.found.append(f"{self._pending}\n{line}")
                else:
                    self.ours[f"XX000 of PostgreSQL's {location[1]}"] += 1
                self._pending = None
            is_told = "STATEMENT:" in line or "DETAIL:" in line
            if (CRASH.search(line) and not is_told) or (self.found and "Failed process was running" in line):
                self.found.append(line)
        for report in self.reports.new():
            text = report.read_text(errors="replace")
            if "ERROR: AddressSanitizer" in text:
                self.found.append(text[:4000])
        try:
            with psycopg.connect(self.url, autocommit=True, connect_timeout=60) as conn:
                for _, query in conn.execute(STUCK, (login(self.role), 60)).fetchall():
                    self.found.append(f"no time-out ends {query[:2000]}")
        except psycopg.OperationalError:
            time.sleep(1)  # it recovers, as the log will tell


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--role", choices=["nobody", "superuser"], required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--log", type=Path, help="the server's log (default: found beside its data directory)"
    )
    parser.add_argument("--asan", type=Path, help="the folder of the sanitizer's reports")
    arguments = parser.parse_args()
    url = scratch(arguments.url, f"smith_{arguments.role}")
    smith = Smith(url, arguments.role, arguments.seed, arguments.log, arguments.asan)
    smith.run(arguments.minutes * 60)
    print(f"sqlsmith as {arguments.role}, seed {arguments.seed}, {arguments.minutes:g} minutes:")
    print("errors: " + ", ".join(f"{code} {n}" for code, n in smith.codes.most_common(12)))
    print("         " + ", ".join(f"{what} {n}" for what, n in smith.ours.most_common(12)))
    if not smith.found:
        drop(url)
    for what in smith.found:
        print(f"FOUND {what}")
    return 1 if smith.found else 0


if __name__ == "__main__":
    sys.exit(main())
