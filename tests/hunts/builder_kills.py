"""The session that writes a shared file of weights is killed at random moments; on a server of its own.

    python -m tests.hunts.builder_kills --moments 50 --seed 1

Each time some sessions ask for the same version, one of them writes its file, and is killed: kill -9, or
pg_terminate_backend, or the whole server with it. Whatever the moment: a file under its final name has all
the numbers of its version, the sessions that live have the bits of a private copy, and so has the next,
which finds no lock held and leaves one file of the version and no half. tests/schema/test_builder_kills.py
takes a few moments.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from llm_sql.server.install import server_account

from ..support.durable import Durable, provisioned
from ..support.places import new_place
from ..support.shared_files import logits, mapped, private_logits
from ..support.small_models import Connection, make_model
from ..support.tensors import value
from .train_crashes import ended

MODEL = "built"
KINDS = ("kill", "kill", "kill", "terminate", "server")
SIZES = struct.Struct("<QQ")  # of a file's header: where its numbers begin, and all of its bytes
SIZES_AT = 64
LOCK_KIND = 0x5348
GIVE_UP_SECONDS = 120
Report = Callable[[str], None]


@dataclass(frozen=True)
class Shape:
    """Enough numbers that a kill finds the file half written."""

    n_layer: int = 6
    d_model: int = 256
    vocab: int = 4000


def temporaries(place: Path) -> list[Path]:
    return [path for path in entries(place) if path.suffix == ".tmp"]


def entries(place: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [path for path in place.iterdir() if path.name.startswith("pgsql_tmp_llm.")]
    return []


def version_of(path: Path) -> str:
    return path.name.split(".")[4]


@dataclass
class Asker:
    """A session that asks for the weights, and what it got."""

    conn: Connection
    answer: str | None = None
    problem: Exception | None = None

    def __post_init__(self) -> None:
        self.pid = self.conn.info.backend_pid
        self.thread = threading.Thread(target=self.work)

    def work(self) -> None:
        try:
            self.answer = logits(self.conn, MODEL)
        except Exception as problem:
            self.problem = problem

    def finish(self) -> None:
        self.thread.join(GIVE_UP_SECONDS)
        assert not self.thread.is_alive(), "a session does not end"
        self.conn.close()


@dataclass
class Hunt:
    durable: Durable
    other_place: Path
    rng: random.Random
    report: Report
    numbers: dict[str, str] = field(default_factory=dict)  # version -> sha256 of what its files hold
    halves: int = 0
    seconds: float = 0.1

    def place(self, directory: str) -> Path:
        return self.durable.server.data_directory / directory

    def connect(self, directory: str) -> Connection:
        conn = self.durable.connect()
        conn.execute("SELECT pg_llm_numerics_version()")
        conn.execute("SELECT set_config('pg_llm.shared_dir', %s, false)", (directory,))
        conn.execute("SET pg_llm.shared_age = 0")
        return conn

    def reconnected(self, directory: str) -> Connection:
        end = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                return self.connect(directory)
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def check_files(self, place: Path) -> None:
        """Everything under a final name is whole."""
        for path in entries(place):
            with contextlib.suppress(FileNotFoundError):
                content = path.read_bytes() if path.suffix != ".tmp" else b""
                if not content:
                    continue
                data_at, size = SIZES.unpack_from(content, SIZES_AT)
                assert size == len(content), f"{path.name} has {len(content)} bytes of {size}"
                found = hashlib.sha256(content[data_at:]).hexdigest()
                expected = self.numbers.setdefault(version_of(path), found)
                assert found == expected, f"{path.name} has other numbers than its version"

    def prepare(self, directory: str) -> str:
        """A version without a file; its bits."""
        with self.connect(directory) as conn:
            if self.rng.random() < 0.5:
                conn.execute(
                    "UPDATE llm_param SET data = data * %s WHERE model = %s AND name LIKE 'h.0.%%'",
                    (self.rng.uniform(0.9, 1.1), MODEL),
                )
            else:
                conn.execute("SELECT llm_release(shared => true)")
        with self.durable.connect() as alone:
            return private_logits(alone, MODEL)

    def measure(self) -> None:
        """How long a file is under way."""
        with self.connect("base/pgsql_tmp") as conn:
            asker = Asker(conn)
            asker.thread.start()
            self.wait_for_half(self.place("base/pgsql_tmp"), asker)
            begin = time.monotonic()
            while asker.thread.is_alive() and temporaries(self.place("base/pgsql_tmp")):
                pass
            self.seconds = max(time.monotonic() - begin, 0.002)
            asker.finish()

    def wait_for_half(self, place: Path, asker: Asker) -> None:
        while asker.thread.is_alive() and not temporaries(place):
            pass

    def kill(self, kind: str, pid: int, directory: str) -> None:
        if kind == "server":
            self.durable.server.kill()
            self.check_files(self.place(directory))
            self.durable.server.start()
        elif kind == "terminate":
            with self.durable.connect() as conn:
                conn.execute("SELECT pg_terminate_backend(%s)", (pid,))
            ended(pid)
        else:
            self.durable.kill_backend(pid)

    def moment(self) -> None:
        kind = self.rng.choice(KINDS)
        directory = self.rng.choice(("base/pgsql_tmp", str(self.other_place)))
        place = self.place(directory)
        expected = self.prepare(directory)
        askers = [Asker(self.connect(directory)) for _ in range(self.rng.randint(1, 3))]
        for asker in askers:
            asker.thread.start()
        if self.rng.random() < 0.8:  # else also before anything is written
            self.wait_for_half(place, askers[0])
        delay = self.rng.uniform(0.0, self.seconds)
        time.sleep(delay)
        half = temporaries(place)
        pid = int(half[0].name.split(".")[-2]) if half else self.rng.choice(askers).pid
        self.kill(kind, pid, directory)
        self.check_files(place)
        for asker in askers:
            asker.finish()
            if asker.answer is None:
                assert isinstance(asker.problem, psycopg.OperationalError), repr(asker.problem)
                assert kind != "terminate" or asker.pid == pid, repr(asker.problem)
            else:
                assert asker.answer == expected, "other bits than those of a private copy"
        self.after(directory, expected)
        self.halves += bool(half)
        self.report(
            f"{kind} after {delay * 1000:.1f} ms, {'half a' if half else 'no half'} file, {place.name}"
        )

    def after(self, directory: str, expected: str) -> None:
        """The next session finds and leaves everything in order."""
        with self.reconnected(directory) as conn:
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = %s"
            assert value(conn, held, (LOCK_KIND,)) == 0, "a lock is held that no session has"
            if directory == "base/pgsql_tmp":
                assert not temporaries(self.place(directory)), "half a file is left after the recovery"
            assert logits(conn, MODEL) == expected, "other bits than those of a private copy"
            (path,) = mapped(conn)
            place = self.place(directory)
            assert Path(path).resolve() in {entry.resolve() for entry in entries(place)}
            assert not temporaries(place), "half a file is left"
            assert len(entries(place)) <= 2, "files of more versions than are kept"
        self.check_files(place)

    def run(self, moments: int) -> None:
        self.measure()
        self.report(f"a file is under way for {self.seconds * 1000:.1f} ms")
        for _ in range(moments):
            self.moment()
        assert "PANIC" not in self.durable.server.log_file.read_text(errors="replace")


@contextlib.contextmanager
def another_place() -> Iterator[Path]:
    """A directory of the server's account that PostgreSQL does not clean."""
    place = new_place("llm-sql-built-")
    try:
        account = server_account()
        if account is not None:
            os.chown(place, account.uid, account.gid)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def kills(seed: int, moments: int, shape: Shape, report: Report = lambda _: None) -> int:
    """The number of moments that found half a file."""
    with provisioned() as durable, another_place() as place:
        with durable.connect() as conn:
            make_model(
                conn, MODEL, n_layer=shape.n_layer, d_model=shape.d_model, vocab=shape.vocab, n_positions=64
            )
        hunt = Hunt(durable, place, random.Random(seed), report)
        hunt.run(moments)
        return hunt.halves


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--moments", type=int, default=50)
    arguments = parser.parse_args()
    halves = kills(arguments.seed, arguments.moments, Shape(), lambda line: print(line, flush=True))
    print(
        f"seed {arguments.seed}: {arguments.moments} kills, {halves} of them with half a file, all in order"
    )


if __name__ == "__main__":
    sys.exit(main())
