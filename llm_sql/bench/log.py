"""The training log as a redo log: what a committed step writes, and how much of a run goes into writing back.

A trigger notes the WAL's position as each step is logged, in an unlogged table, which writes none. Each step
is a commit of its own here; the median leaves out those that follow a checkpoint and write whole pages.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, text

from llm_sql.bench.database import create_model, vacuum
from llm_sql.bench.report import Row
from llm_sql.bench.shapes import DROPOUT, GPT2_SHORT, SMALL, Shape

STEPS = 30
# Write-backs may take a twentieth of the time: a run that shows it has room for this many of them.
WRITE_BACKS, PART = 2, 20

WATCH = """
CREATE UNLOGGED TABLE bench_wal (step bigint, at pg_lsn);
CREATE FUNCTION bench_note_wal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.bench_wal VALUES (NEW.step, pg_current_wal_insert_lsn());
    RETURN NULL;
END
$$;
CREATE TRIGGER bench_note_wal AFTER INSERT ON public.llm_train_log
FOR EACH ROW EXECUTE FUNCTION bench_note_wal();
"""
# Two steps write what only the first of a run does.
STEP_BYTES = """
SELECT (at - lag(at) OVER (ORDER BY step))::float8 FROM public.bench_wal ORDER BY step OFFSET 2
"""
LAST_RUN = """
SELECT sum(l.seconds), extract(epoch FROM clock_timestamp() - min(l.logged_at - l.seconds * interval '1 s'))
FROM public.llm_train_log l
WHERE l.run_id = (SELECT max(r.run_id) FROM public.llm_train_run r)
"""


def measure_log(
    engine: Engine, threads: int, repeats: int, *, quick: bool, shape: Shape | None = None
) -> Iterator[Row]:
    """WAL of a committed step, clipped or not, without and with writing back; the share of writing back.

    A run shows it once: `repeats` is not used.
    """
    shape = shape or (SMALL if quick else GPT2_SHORT)
    create_model(engine, shape)
    with engine.connect() as connection:
        connection.execute(text("SELECT set_config('pg_llm.threads', :n, false)"), {"n": str(threads)})
        connection.execute(text(WATCH))
        train(connection, shape, 2, commit_every=1)  # the moments are there from now on
        vacuum(connection)
        each = f"WAL of a committed step, {shape.name}"
        rarely: dict[str, Any] = {"commit_every": 1, "write_back_every": STEPS}
        yield wal_row(connection, shape, STEPS, each, **rarely)
        yield wal_row(connection, shape, STEPS, f"{each}, clipped", **rarely, grad_clip=1e-9)
        always = {"commit_every": 1, "write_back_every": 1}
        yield wal_row(connection, shape, 4, f"{each}, written back", **always)
        vacuum(connection)
        yield share_of_writing_back(connection, shape, threads)


def train(connection: Connection, shape: Shape, n_steps: int, **options: object) -> float:
    """Seconds of a run that commits as it goes."""
    given = {"batch_size": shape.batch_size, "dropout_p": DROPOUT, "lr_max": 1e-3, **options}
    arguments = ", ".join(f"{name} => :{name}" for name in given)
    started = time.perf_counter()
    connection.execute(
        text(
            f"CALL public.llm_train_loop(:model, :n_steps, {arguments}, warmup => 0, schedule => 'constant',"
            " log_every => 0)"
        ),
        {"model": shape.name, "n_steps": n_steps, **given},
    )
    return time.perf_counter() - started


def wal_row(connection: Connection, shape: Shape, n_steps: int, what: str, **options: Any) -> Row:
    connection.execute(text("TRUNCATE public.bench_wal"))
    train(connection, shape, n_steps, **options)
    taken = [float(n) / 1e3 for n in connection.scalars(text(STEP_BYTES))]
    note = f"median of {len(taken)} steps, {min(taken):.4g} to {max(taken):.4g}"
    return Row("log", what, None, "kB", statistics.median(taken), note=note)


def share_of_writing_back(connection: Connection, shape: Shape, threads: int) -> Row:
    """The time outside of steps, from the first one on, of a run with all arguments at their defaults."""
    train(connection, shape, 1)  # loads
    whole = train(connection, shape, 1)
    step, _ = last_run(connection)
    writing = max(0.01, whole - step)
    n_steps = max(2, round(WRITE_BACKS * (PART + 1) * writing / step))
    train(connection, shape, n_steps)
    in_steps, of_all = last_run(connection)
    note = f"{n_steps} steps in {of_all:.3g} s; one write-back takes {writing:.3g} s"
    return Row(
        "log", f"time outside of steps, {shape.name}", threads, "%", 100 * (1 - in_steps / of_all), note=note
    )  # fmt: skip


def last_run(connection: Connection) -> tuple[float, float]:
    """Seconds of the last run's steps, and from its first step to now."""
    row = connection.execute(text(LAST_RUN)).one()
    return float(row[0]), float(row[1])
