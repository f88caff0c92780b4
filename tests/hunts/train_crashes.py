"""Crashes in the middle of a training run, which is resumed each time, on servers of its own.

    python -m tests.hunts.train_crashes --moments 20 --seed 1

At each moment, while the run goes on, one of these: its backend killed (kill -9), the whole server killed,
an immediate shutdown, the server killed and a standby promoted in its place. Then the run is resumed where
it is. When it has ended, sha256 over data, m and v, and the log, must be those of a run that nothing
interrupted; if moments are left, the next run begins. tests/schema/test_train_crashes.py takes a few
moments of a shorter run. What the hunt writes is on disk, and bounded; killed, it leaves nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg

from ..support.durable import Durable, provisioned, streaming_replica
from ..support.small_models import Connection, add_rows, make_model, state_sha256
from ..support.tensors import value

KINDS = ("backend", "postmaster", "immediate", "promotion")
ARGUMENTS = (
    "lr_max => 0.003, warmup => 10, dropout_p => 0.1, batch_size => 2, grad_accum => 2, grad_clip => 1.0,"
    " seed => 5, log_every => 0"
)
LOG = """SELECT md5(string_agg(concat_ws(' ', step, loss, grad_norm, lr, tokens), ',' ORDER BY step))
FROM llm_train_log WHERE model = %s AND NOT superseded"""
NEWEST = "SELECT run_id, last_step, status FROM llm_train_run WHERE model = %s ORDER BY run_id DESC LIMIT 1"
GIVE_UP_SECONDS = 300
VACUUM_SECONDS = 0.5
Report = Callable[[str], None]


@dataclass(frozen=True)
class Shape:
    """A run: enough work that a crash finds it under way."""

    steps: int = 300
    n_layer: int = 4
    d_model: int = 128
    n_positions: int = 32
    vocab: int = 256
    on_disk: bool = True  # what grows is not to grow in memory

    def make(self, conn: Connection, model: str) -> None:
        make_model(
            conn,
            model,
            n_layer=self.n_layer,
            n_head=4,
            d_model=self.d_model,
            n_positions=self.n_positions,
            vocab=self.vocab,
        )
        add_rows(conn, model, rows=40, length=self.n_positions, vocab=self.vocab)


@contextlib.contextmanager
def vacuumed(durable: Durable) -> Iterator[None]:
    """Vacuums again and again: what autovacuum has heard of dead rows is gone after a crash.

    A step of 4 layers leaves 10 MB.
    """
    done = threading.Event()

    def work() -> None:
        with contextlib.suppress(psycopg.OperationalError), durable.connect() as conn:
            while not done.wait(VACUUM_SECONDS):
                conn.execute("VACUUM llm_param")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass
class Trainer:
    """A session that trains, until it has or its server ends."""

    durable: Durable
    shape: Shape
    model: str
    rng: random.Random
    pid: int = 0
    done: bool = False
    errors: list[str] = field(default_factory=list)

    def begin(self) -> None:
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self) -> None:
        try:
            with reconnected(self.durable) as conn, vacuumed(self.durable):
                self.pid = conn.info.backend_pid
                run = conn.execute(NEWEST, (self.model,)).fetchone()
                if run is not None and run[2] == "done":
                    self.done = True
                    return
                if run is None:
                    conn.execute(loop_call(conn, self.shape, self.rng), (self.model,))
                else:
                    conn.execute(resume_call(conn, self.rng), (run[0],))
                self.done = True
        except psycopg.OperationalError:
            return
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def finish(self) -> None:
        self.thread.join(GIVE_UP_SECONDS)
        assert not self.thread.is_alive(), "the training session does not end"
        assert not self.errors, self.errors


def redo_log(conn: Connection) -> bool:
    """Whether a loop logs its steps between write-backs."""
    known = (
        "SELECT bool_or('write_back_every' = ANY (proargnames)) FROM pg_proc WHERE proname = 'llm_train_loop'"
    )
    return bool(value(conn, known))


def every(conn: Connection, rng: random.Random) -> str:
    """How often the next call commits, and writes back; NULL: as it sees fit."""
    if not redo_log(conn):
        return f"commit_every => {rng.choice((1, 3, 7))}"
    return (
        f"commit_every => {rng.choice(('NULL', '1', '3', '7'))},"
        f" write_back_every => {rng.choice(('NULL', 'NULL', '10', '40'))}"
    )


def loop_call(conn: Connection, shape: Shape, rng: random.Random) -> bytes:
    return f"CALL llm_train_loop(%s, {shape.steps}, {every(conn, rng)}, {ARGUMENTS})".encode()


def resume_call(conn: Connection, rng: random.Random) -> bytes:
    return f"CALL llm_train_resume(%s, {every(conn, rng)})".encode()


def reconnected(durable: Durable) -> Connection:
    """A session of the server once its recovery is over."""
    end = time.monotonic() + 60
    while True:
        try:
            conn = durable.connect()
            conn.execute("SELECT 1")
            return conn
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def postmaster_of(durable: Durable) -> int:
    return int((durable.server.data_directory / "postmaster.pid").read_text().split()[0])


def ended(pid: int) -> None:
    """Waits until the process is gone."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} does not end")


class Hunt:
    """The server of the moment, and what crashes it."""

    def __init__(self, seed: int, shape: Shape, report: Report) -> None:
        self.rng = random.Random(seed)
        self.shape = shape
        self.report = report
        self.kinds: list[str] = []
        self.stack = contextlib.ExitStack()
        self.next_stack = contextlib.ExitStack()
        self.durable = self.stack.enter_context(provisioned(on_disk=shape.on_disk))

    def close(self) -> None:
        self.next_stack.close()
        self.stack.close()

    def uninterrupted(self) -> tuple[str, str, float]:
        """Weights and log of a run that nothing interrupts, and how long it takes."""
        with self.durable.connect() as conn, vacuumed(self.durable):
            self.shape.make(conn, "whole")
            begin = time.monotonic()
            conn.execute(loop_call(conn, self.shape, self.rng), ("whole",))
            return state_sha256(conn, "whole"), str(value(conn, LOG, ("whole",))), time.monotonic() - begin

    def backend(self, trainer: Trainer) -> None:
        self.durable.kill_backend(trainer.pid)

    def postmaster(self, _: Trainer) -> None:
        self.durable.crash()

    def immediate(self, _: Trainer) -> None:
        pid = postmaster_of(self.durable)
        os.kill(pid, signal.SIGQUIT)
        ended(pid)
        self.durable.server.start()

    def promotion(self, _: Trainer) -> None:
        """The standby that `crash` made takes over; the old server goes, with its files."""
        self.durable.server.kill()
        self.stack.close()
        self.stack, self.durable = self.next_stack, self.next_durable
        self.next_stack = contextlib.ExitStack()
        with self.durable.connect() as conn:
            assert value(conn, "SELECT pg_promote()")

    def crash(self, model: str, within: float) -> bool:
        """One moment. False if the run was complete before it."""
        # Each of them in turn, in an order of its own in every round.
        self.kinds = self.kinds or self.rng.sample(KINDS, len(KINDS))
        kind = self.kinds.pop()
        delay = self.rng.uniform(0.0, within)
        if kind == "promotion":
            self.next_durable = self.next_stack.enter_context(
                streaming_replica(self.durable, on_disk=self.shape.on_disk)
            )
        trainer = Trainer(self.durable, self.shape, model, random.Random(self.rng.random()))
        trainer.begin()
        while not trainer.pid and trainer.thread.is_alive():
            time.sleep(0.001)
        trainer.thread.join(delay)
        getattr(self, kind)(trainer)
        trainer.finish()
        with reconnected(self.durable) as conn:
            steps = value(conn, "SELECT array_agg(DISTINCT step) FROM llm_param WHERE model = %s", (model,))
            assert len(steps) == 1, f"weights of several steps: {steps}"
            run = conn.execute(NEWEST, (model,)).fetchone()
            self.report(f"{model}: {kind} after {delay:.2f} s; weights of step {steps[0]}, {run}")
            return run is None or run[2] != "done"

    def complete(self, model: str, expected: tuple[str, str]) -> None:
        """The run to its end, and what it must have become."""
        trainer = Trainer(self.durable, self.shape, model, self.rng)
        trainer.begin()
        trainer.finish()
        assert trainer.done, "the run does not end"
        with self.durable.connect() as conn:
            found = (state_sha256(conn, model), str(value(conn, LOG, (model,))))
            status = value(conn, "SELECT array_agg(status) FROM llm_train_run WHERE model = %s", (model,))
        assert status == ["done"], status
        assert found[0] == expected[0], f"{model}: other weights than the uninterrupted run's"
        assert found[1] == expected[1], f"{model}: another log than the uninterrupted run's"

    def run(self, moments: int) -> int:
        """The number of runs that were crashed in all these moments."""
        *expected, seconds = self.uninterrupted()
        self.report(f"uninterrupted: {self.shape.steps} steps in {seconds:.1f} s, sha256 {expected[0]}")
        done = runs = 0
        while done < moments:
            runs += 1
            model = f"run{runs}"
            with self.durable.connect() as conn:
                self.shape.make(conn, model)
            under_way = True
            while under_way and done < moments:
                under_way = self.crash(model, seconds / 6)
                done += under_way
            self.complete(model, (expected[0], expected[1]))
            self.report(f"{model}: the bits of the uninterrupted run")
        log = self.durable.server.log_file.read_text(errors="replace")
        assert "PANIC" not in log
        return runs


def crashes(seed: int, moments: int, shape: Shape, report: Report = lambda _: None) -> int:
    hunt = Hunt(seed, shape, report)
    try:
        return hunt.run(moments)
    finally:
        hunt.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    runs = crashes(
        arguments.seed,
        arguments.moments,
        Shape(steps=arguments.steps),
        lambda line: print(line, flush=True),
    )
    print(f"seed {arguments.seed}: {arguments.moments} crashes of {runs} runs, the same bits")


if __name__ == "__main__":
    sys.exit(main())
