"""Deep models within pg_llm.recompute_budget: time and peak memory of a step, beside those of holding all.
And what a banded GPT-3 holds per token, beside a dense GPT-2 of half the context.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]
from sqlalchemy import Engine, text

from llm_sql.bench.database import Trainer, create_model, drop_model, trainer
from llm_sql.bench.report import Row, interleaved, median
from llm_sql.bench.shapes import BANDED, DEEP, DROPOUT, GPT2_LONG, Shape

BUDGETS = {"all": "0", "within 64 MB": "64MB", "nothing": "1kB"}
BAND = 256
NEEDED = 5e9  # bytes, of a step of GPT-3 125M


def measure_recompute(engine: Engine, threads: int, repeats: int, *, quick: bool) -> Iterator[Row]:
    """Milliseconds, and gigabytes (1e9), by what the forward pass holds for the backward pass."""
    with contextlib.ExitStack() as stack:
        trainers = {
            held: stack.enter_context(_within(engine, DEEP, threads, budget))
            for held, budget in BUDGETS.items()
        }
        for ours in trainers.values():
            ours.call_seconds(1)
        samplers = {held: functools.partial(t.step_seconds, DEEP.steps) for held, t in trainers.items()}
        samples = interleaved(samplers, repeats)
        whole = median(samples, "all")
        for held, ours in trainers.items():
            seconds, peak = median(samples, held), ours.peak_memory()
            assert seconds is not None
            assert whole is not None
            note = f"{seconds / whole:.2f} times the time of holding all"
            yield Row(
                "recompute", f"step of {DEEP.name}, held: {held}", threads, "ms", seconds * 1e3, note=note
            )
            gigabytes = None if peak is None else peak / 1e9
            yield Row("recompute", f"its peak memory, held: {held}", threads, "GB", gigabytes)
    drop_model(engine, DEEP)
    if quick:
        return
    for shape in (GPT2_LONG, BANDED):
        if psutil.virtual_memory().available < NEEDED:
            yield Row("recompute", f"memory of {shape.name}", threads, "GB", None, note="needs 5 GB")
            continue
        yield from _per_token(engine, shape, threads)


@contextlib.contextmanager
def _within(engine: Engine, shape: Shape, threads: int, budget: str) -> Iterator[Trainer]:
    with trainer(engine, shape, threads) as ours:
        ours.set("pg_llm.recompute_budget", budget)
        yield ours


def _per_token(engine: Engine, shape: Shape, threads: int) -> Iterator[Row]:
    """Of a session that trains, and of what a pass with dropout holds for its backward pass."""
    create_model(engine, shape)
    if shape is BANDED:
        with engine.connect() as connection:
            banded = "UPDATE public.llm_model_config SET settings = CAST(:s AS jsonb) WHERE model = :m"
            connection.execute(text(banded), {"s": json.dumps({"band": BAND}), "m": shape.name})
    tokens = shape.batch_size * shape.tokens
    with trainer(engine, shape, threads) as ours:
        ours.call_seconds(1)
        peak = ours.peak_memory()
        held = ours.held_bytes(DROPOUT)
    if peak is not None:
        what = f"peak memory per token of {shape.name}"
        yield Row("recompute", what, threads, "kB", peak / tokens / 1e3, note=f"{peak / 1e9:.2f} GB")
    what = f"held per token for the backward pass of {shape.name}"
    yield Row("recompute", what, threads, "kB", held / tokens / 1e3)
    drop_model(engine, shape)
