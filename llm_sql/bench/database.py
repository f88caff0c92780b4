"""Models and their data in the bench's database, and calls of llm_train with a clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from llm_sql.bench.shapes import DROPOUT, GRAD_CLIP, Shape
from llm_sql.model import LanguageModel

ROWS = 240
LARGE = 10_000_000  # parameters: storing them takes longer than a step


def create_model(engine: Engine, shape: Shape) -> None:
    """The model and pseudo-random rows to train on, unless they are there; named after the shape."""
    with Session(engine) as session:
        exists = text("SELECT EXISTS (SELECT FROM public.llm_model_config WHERE model = :model)")
        if session.scalar(exists, {"model": shape.name}):
            return
        LanguageModel.create(
            session, shape.name, arch=shape.arch, n_layer=shape.n_layer, n_head=shape.n_head,
            d_model=shape.d_model, n_positions=shape.n_positions, vocab=shape.vocab,
        )  # fmt: skip
        session.execute(
            text(
                "INSERT INTO public.llm_dataset (model, tokens, target)"
                " SELECT :model, t.ids[1:CAST(:n AS int)], t.ids[2:] FROM generate_series(1, :rows) AS r (i),"
                " LATERAL (SELECT array_agg(((r.i * 7919 + j * 104729) % 1000003) % :vocab ORDER BY j)::int[]"
                " AS ids FROM generate_series(1, CAST(:n AS int) + 1) AS j) t"
            ),
            {"model": shape.name, "rows": ROWS, "vocab": shape.vocab, "n": shape.tokens},
        )
        session.commit()


def drop_model(engine: Engine, shape: Shape) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT public.llm_drop_model(:model)"), {"model": shape.name})
        connection.execute(text("TRUNCATE public.llm_dataset"))
        connection.execute(text("VACUUM public.llm_param"))


def vacuum(connection: Connection) -> None:
    """Frees and writes out what stored weights left, so that no background worker does it meanwhile."""
    connection.execute(text("VACUUM public.llm_param"))
    with contextlib.suppress(ProgrammingError):  # a role that may not
        connection.execute(text("CHECKPOINT"))


class Trainer:
    """Calls of llm_train on one connection, each a transaction that writes back and commits."""

    def __init__(self, connection: Connection, shape: Shape, threads: int) -> None:
        self._connection = connection
        self._shape = shape
        connection.execute(text("SELECT set_config('pg_llm.threads', :n, false)"), {"n": str(threads)})

    def set(self, name: str, value: str) -> None:
        self._connection.execute(
            text("SELECT set_config(:name, :value, false)"), {"name": name, "value": value}
        )

    def held_bytes(self, dropout_p: float) -> int:
        """What the tape holds for its backward pass, once a loss of one batch has been recorded."""
        model = {"model": self._shape.name}
        batch = text("SELECT tokens, target FROM public.llm_dataset WHERE model = :model ORDER BY id LIMIT 1")
        tokens, targets = self._connection.execute(batch, model).one()
        self._scalar("SELECT public.pg_llm_set_recording(true)")
        self._scalar(
            "SELECT public.pg_llm_item(public.llm_forward(:model, :tokens, true, :targets, :p))",
            **model, tokens=tokens, targets=targets, p=dropout_p,
        )  # fmt: skip
        held = self._scalar("SELECT public.pg_llm_tape_held()")
        self._scalar("SELECT public.pg_llm_tape_clear()")
        self._scalar("SELECT public.pg_llm_set_recording(false)")
        return int(held)

    def call_seconds(self, n_steps: int) -> float:
        """Seconds of one call: loading when memory lacks the weights, the steps, writing back."""
        started = time.perf_counter()
        self._connection.execute(
            text(
                "SELECT public.llm_train(:model, :n_steps, batch_size => :batch_size,"
                " dropout_p => :dropout_p, grad_clip => :grad_clip, lr_max => 1e-3, warmup => 0,"
                " schedule => 'constant', log_every => 0)"
            ),
            {
                "model": self._shape.name,
                "n_steps": n_steps,
                "batch_size": self._shape.batch_size,
                "dropout_p": DROPOUT,
                "grad_clip": GRAD_CLIP,
            },
        )
        return time.perf_counter() - started

    def step_seconds(self, n_steps: int) -> float:
        """Seconds per step inside a call: n + 1 steps minus one, divided by n.

        By the clock around the calls, or by llm_train_log where loading and writing back take so long that
        they would drown it: what vacuum and the disk add to them is no step's.
        """
        if self._shape.n_parameters < LARGE:
            once = self.call_seconds(1)
            return (self.call_seconds(n_steps + 1) - once) / n_steps
        self.call_seconds(n_steps + 1)
        return self.logged_seconds(n_steps) / n_steps

    def logged_seconds(self, n_steps: int) -> float:
        """Seconds of the last steps by llm_train_log: without loading and writing back."""
        newest = "SELECT seconds FROM public.llm_train_log ORDER BY run_id DESC, step DESC LIMIT :n"
        return float(self._scalar(f"SELECT sum(seconds) FROM ({newest}) s", n=n_steps))

    def load_seconds(self) -> float:
        """Seconds until memory holds weights and optimizer state; not measurable twice on one connection."""
        started = time.perf_counter()
        self._scalar("SELECT public.llm_pin(:model, true) IS NOT NULL", model=self._shape.name)
        self._scalar("SELECT public.pg_llm_arena_close(:model)", model=self._shape.name)
        return time.perf_counter() - started

    def wal_position(self) -> int:
        """Bytes of WAL written since the server was made."""
        return int(self._scalar("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))

    def vacuum(self) -> None:
        vacuum(self._connection)

    def peak_memory(self) -> float | None:
        """Bytes: the backend's largest resident size, pages of the shared buffers that it touched included.

        None where the server is not Linux or this role may not read files there.
        """
        with contextlib.suppress(Exception):
            status = str(self._scalar("SELECT pg_read_file('/proc/self/status')"))
            line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            return float(line.split()[1]) * 1024
        return None

    def _scalar(self, statement: str, **parameters: Any) -> Any:
        return self._connection.scalar(text(statement), parameters)


@contextlib.contextmanager
def trainer(engine: Engine, shape: Shape, threads: int) -> Iterator[Trainer]:
    """A Trainer in a backend of its own."""
    create_model(engine, shape)
    with engine.connect() as connection:
        yield Trainer(connection, shape, threads)
