"""Random sessions: every function that keeps state, in any order, with all that transactions do around it.

    python -m tests.hunts.stateful --role nobody --calls 1000000 --seed 7 --url postgresql://...

The URL names a superuser and a provisioned database of a server that may crash; the hunt is in a copy of it.
--asan DIR: the folder of the sanitizer's reports (ASAN_OPTIONS=log_path=DIR/asan). Ends with 1 after a find.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil
import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from ..support.hostile import functions
from ..support.small_models import Connection
from .calls import plausible
from .database import ROLES, login, prepare, restore, server_log
from .session import NAME, Rights
from .statements import Statement, Statements
from .watch import Log, Reports, Watchdog

# Of one session; the log of what it did is its length, too.
SESSION = 6000
BAD_NOTICE = re.compile(r"problem in alloc|write past chunk|leak|still referenced|not closed")


@dataclass
class Outcome:
    """What a hunt came to."""

    seed: str
    calls: int = 0
    statements: int = 0
    refused: int = 0
    sessions: int = 0
    cancels: int = 0
    seconds: float = 0.0
    succeeded_by_name: Counter[str] = field(default_factory=Counter)
    refused_by_name: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)
    log: Path | None = None

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.calls} calls in {self.statements} statements,"
            f" {self.sessions} sessions,"
            f" {self.seconds:.0f} s, {self.calls / max(self.seconds, 1e-9):.0f} calls/s,"
            f" {self.refused} statements refused, {self.cancels} cancels",
            "refusals: " + ", ".join(f"{code} {n}" for code, n in self.codes.most_common()),
        ]
        lines += [f"  {n:8} {message}" for message, n in self.messages.most_common(25)]
        for name in sorted({*self.succeeded_by_name, *self.refused_by_name}):
            lines.append(
                f"  {name:40} {self.succeeded_by_name[name]:8} ok {self.refused_by_name[name]:8} refused"
            )
        return "\n".join([*lines, *(f"FOUND {what}" for what in self.found)])


class Hunt:
    """One role's sessions in one database, until something is found or enough was tried."""

    def __init__(
        self, url: str, role: str, seed: str, *, log: Path | None = None, asan: Path | None = None,
        patience: float = 60, cancels: float = 0.01,
        without: frozenset[str] = frozenset(), folder: Path = Path(),
    ) -> None:  # fmt: skip
        self.url, self.role, self.folder = url, role, folder
        self.owner = connection(url)
        self.rng = Random(f"{seed}/{role}")
        self.known = functions(self.owner)
        self.server_log = Log(server_log(self.owner, log))
        self.reports = Reports(asan)
        is_local = (self.owner.info.host or "").startswith("/")
        self.limits_memory = asan is None and is_local and shutil.which("prlimit") is not None
        self.watchdog, self.cancels = Watchdog(patience), cancels
        self.outcome = Outcome(seed)
        self.rights = Rights(without)
        self.notices: list[str] = []
        self.last_notice = ""

    def run(self, *, calls: int | None = None, seconds: float | None = None) -> Outcome:
        began = time.monotonic()
        outcome = self.outcome
        self.watchdog.start()
        try:
            while not outcome.found:
                outcome.seconds = time.monotonic() - began
                if calls is not None and outcome.calls >= calls:
                    break
                if seconds is not None and outcome.seconds >= seconds:
                    break
                self.session(calls, None if seconds is None else began + seconds)
        finally:
            self.watchdog.stop()
            outcome.seconds = time.monotonic() - began
            outcome.cancels = self.watchdog.cancels
            self.owner.close()
        return outcome

    # -- a session

    def connect(self) -> pq.PGconn:
        """As the role; a server that recovers from a crash is waited for."""
        conninfo = make_conninfo(self.url, user=login(self.role)).encode()
        for _ in range(600):
            pgconn = pq.PGconn.connect(conninfo)
            if pgconn.status == pq.ConnStatus.OK:
                pgconn.notice_handler = self.notice
                return pgconn
            time.sleep(0.1)
        raise SystemExit(f"the server does not come back: {pgconn.error_message.decode(errors='replace')}")

    def notice(self, result: pq.abc.PGresult) -> None:
        text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
        self.last_notice = text
        if BAD_NOTICE.search(text):
            self.notices.append(text)

    def session(self, calls: int | None, until: float | None) -> None:
        outcome = self.outcome
        outcome.sessions += 1
        restore(self.owner)
        self.pgconn = self.connect()
        self.done: deque[str] = deque(maxlen=200_000)
        statements = Statements(self.rng, plausible(self.rng, self.known, self.role, self.rights), self.role)
        process = psutil.Process(self.pgconn.backend_pid) if self.limits_memory else None
        for opening in statements.opening():
            self.done.append(opening)
            results = self.send(opening)
            if self.pgconn.status != pq.ConnStatus.OK:
                self.lost(results[-1].error_message if results else b"")
                return
        limit = outcome.calls + SESSION
        if calls is not None:
            limit = min(limit, calls)
        while outcome.calls < limit and not outcome.found:
            if until is not None and time.monotonic() > until:
                break
            batch, memory = statements.batch()
            if batch and not self.sent(statements, batch):
                break
            if memory is not None and process is not None:
                self.limit(process, memory)
            if statements.depth == 0 and self.rng.random() < 0.003:
                restore(self.owner)
        self.pgconn.finish()
        self.look()

    def limit(self, process: psutil.Process, more: int) -> None:
        """How much more address space the backend may take from here on; negative: as much as it likes."""
        soft = "unlimited" if more < 0 else str(process.memory_info().vms + more)
        # As the server's account: without CAP_SYS_RESOURCE not even root may limit other accounts' processes.
        owner, group = process.uids().real, process.gids().real
        account = {} if owner == os.geteuid() else {"user": owner, "group": group, "extra_groups": []}
        command = ["prlimit", f"--pid={process.pid}", f"--as={soft}:"]
        done = subprocess.run(command, stderr=subprocess.PIPE, check=False, cwd="/", **account)
        if done.returncode != 0:
            raise SystemExit(f"memory cannot be limited: {done.stderr.decode()}")
        self.done.append(f"-- RLIMIT_AS {'as it was' if more < 0 else f'{more >> 10} kB more'}")

    def send(self, text: str) -> list[pq.abc.PGresult]:
        """One round trip, however many statements; a result for each that was run."""
        is_cancelled = self.rng.random() < self.cancels
        self.watchdog.begin(self.pgconn, text, self.rng.choice((0.0, 0.001, 0.005)) if is_cancelled else None)
        results = []
        try:
            self.pgconn.send_query(text.encode())
            while (result := self.pgconn.get_result()) is not None:
                results.append(result)
        except psycopg.OperationalError:
            pass
        finally:
            self.watchdog.end()
        return results

    def sent(self, statements: Statements, batch: list[Statement]) -> bool:
        """Send them and learn from the answers; False when the session is over."""
        outcome = self.outcome
        self.done.extend(statement.text for statement in batch)
        results = self.send("; ".join(statement.text for statement in batch))
        if self.watchdog.hang is not None:
            self.find(f"a statement that no cancel ends: {self.watchdog.hang}")
            return False
        if self.pgconn.status != pq.ConnStatus.OK:
            outcome.calls += sum(statement.calls for statement in batch)
            return self.lost(results[-1].error_message if results else b"")
        for statement in batch:
            answers, results = results[: statement.n_results], results[statement.n_results :]
            outcome.statements += 1
            outcome.calls += statement.calls
            if not self.learn(statements, statement, answers):
                break
        statements.agree(self.pgconn.transaction_status)
        if self.notices:
            self.find("; ".join(self.notices))
        return not outcome.found

    def learn(self, statements: Statements, statement: Statement, answers: list[pq.abc.PGresult]) -> bool:
        """From one statement's answer; False when what follows in its batch was not run."""
        outcome, result = self.outcome, answers[-1]
        names = NAME.findall(statement.text)
        if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            outcome.succeeded_by_name.update(names)
            if statement.kind in ("call", "guarded"):
                self.rights.learn(statement.text, None)
            row = [result.get_value(0, i) for i in range(result.nfields)] if result.ntuples else []
            cells = [None if cell is None else cell.decode(errors="replace") for cell in row]
            statements.succeeded(statement, cells)
            for cell in cells:
                if cell is not None and cell.startswith("!XX"):
                    self.find(cell)
            return True
        code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"?").decode()
        text = result.get_error_message()
        outcome.refused += 1
        if statement.calls == 1 and statement.kind in ("call", "guarded"):
            self.rights.learn(statement.text, code)
        outcome.codes[code] += 1
        outcome.refused_by_name.update(names)
        outcome.messages[re.sub(r'"[^"]*"|\d[-+.\de]*', "_", text.split("\n")[0])[:100]] += 1
        statements.failed(statement, code, len(answers))
        if code.startswith("XX"):
            self.find(f"{code} {text}")
        return False

    def lost(self, answer: bytes) -> bool:
        message = answer.decode(errors="replace") or self.pgconn.get_error_message()
        if "crash of another server process" in message + self.last_notice:
            self.connect().finish()  # somebody else's find
            self.owner = connection(self.url)
        else:
            self.find(f"the connection was lost: {message.strip()}")
        return False

    # -- what was found

    def look(self) -> None:
        bad = self.server_log.bad() if not self.outcome.found else []
        for report in self.reports.new():
            if "ERROR: AddressSanitizer" not in report.read_text(errors="replace"):
                continue  # a warning that memory was refused, as asked
            bad.append(f"{report}: " + "\n".join(report.read_text(errors="replace").splitlines()[:14]))
        if bad:
            self.find("the server's log: " + "\n".join(bad[:10]))

    def find(self, what: str) -> None:
        outcome = self.outcome
        time.sleep(0.5)
        details = [path.read_text(errors="replace")[:3000] for path in self.reports.new()]
        details += self.server_log.bad()[:10]
        outcome.found.append("\n".join([what, *details]))
        path = self.folder / f"hunt-{self.role}-{outcome.seed}.sql"
        path.write_text(
            f"-- found as {login(self.role)}, seed {outcome.seed}, after {outcome.calls} calls;"
            f" run with psql and ON_ERROR_STOP off\n" + "".join(f"{line};\n" for line in self.done)
        )
        outcome.log = path
        last = "\n    ".join(list(self.done)[-20:])
        outcome.found[-1] += f"\nlast statements ({path} has all):\n    {last}"


def reproduces(url: str, role: str, statements: list[str]) -> bool:
    """Whether these statements, in a new session, end it."""
    conninfo = make_conninfo(url, user=login(role)).encode()
    for _ in range(600):
        pgconn = pq.PGconn.connect(conninfo)
        if pgconn.status == pq.ConnStatus.OK:
            break
        time.sleep(0.1)
    for statement in statements:
        pgconn.exec_(statement.encode())
        if pgconn.status != pq.ConnStatus.OK:
            pgconn.finish()
            return True
    pgconn.finish()
    return False


def shrink(url: str, role: str, statements: list[str], tries: int = 200) -> list[str]:
    """Fewer statements that still end the session (delta debugging); all when it does not happen again."""
    if not reproduces(url, role, statements):
        return statements
    size = len(statements) // 2
    while size >= 1 and tries > 0:
        at = 0
        while at < len(statements) and tries > 0:
            fewer = statements[:at] + statements[at + size :]
            tries -= 1
            if reproduces(url, role, fewer):
                statements = fewer
            else:
                at += size
        size = min(size // 2, len(statements) // 2) if size > 1 else 0
    return statements


def connection(url: str) -> Connection:
    """The owner's; a server that recovers from a crash is waited for."""
    for _ in range(600):
        try:
            return psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            time.sleep(0.1)
    return psycopg.connect(url, autocommit=True)


def scratch(url: str, name: str) -> str:
    """The URL of a copy of the database, made anew."""
    with connection(make_conninfo(url, dbname="postgres")) as conn:
        template = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # type: ignore[arg-type]
        conn.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')  # type: ignore[arg-type]
    copied = make_conninfo(url, dbname=name)
    with connection(copied) as conn:
        prepare(conn)
    return copied


def drop(url: str) -> None:
    """The copy of the database."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with connection(make_conninfo(url, dbname="postgres")) as conn:
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--role", choices=[*ROLES, "all"], default="all")
    parser.add_argument("--calls", type=int, default=None, help="of each role")
    parser.add_argument("--seconds", type=float, default=None, help="for each role")
    parser.add_argument("--seed", default="1")
    parser.add_argument(
        "--log", type=Path, help="the server's log (default: found beside its data directory)"
    )
    parser.add_argument("--asan", type=Path, help="the folder of the sanitizer's reports")
    parser.add_argument(
        "--patience", type=float, default=60, help="seconds after which a statement is cancelled"
    )
    parser.add_argument(
        "--cancels", type=float, default=0.01, help="share of the round trips that are cancelled"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="where the SQL of a find is written")
    parser.add_argument(
        "--without", nargs="*", default=[], help="functions left out, to get past a known find"
    )
    parser.add_argument("--shrink", action="store_true")
    arguments = parser.parse_args()
    if arguments.calls is None and arguments.seconds is None:
        arguments.calls = 100_000
    found = 0
    for role in ROLES if arguments.role == "all" else [arguments.role]:
        url = scratch(arguments.url, f"hunt_{role}_{arguments.seed}")
        hunt = Hunt(
            url, role, arguments.seed, log=arguments.log, asan=arguments.asan, patience=arguments.patience,
            cancels=arguments.cancels, without=frozenset(arguments.without), folder=arguments.folder,
        )  # fmt: skip
        outcome = hunt.run(calls=arguments.calls, seconds=arguments.seconds)
        print(f"{role}: {outcome}", flush=True)
        found += len(outcome.found)
        if not outcome.found:
            drop(url)
        if outcome.found and arguments.shrink:
            short = shrink(url, role, [s for s in hunt.done if not s.startswith("--")])
            print(
                f"{len(short)} statements are enough:\n" + "".join(f"{s};\n" for s in short[-100:]),
                flush=True,
            )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
