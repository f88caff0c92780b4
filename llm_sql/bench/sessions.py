"""Several connections that train at once, each a model of its own with all threads: what they do together.

Every connection's engine asks for as many threads as the machine has cores, so with more than one of them the
cores are oversubscribed. The figure says what that costs: all their steps per second beside one's alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from sqlalchemy import Engine

from llm_sql.bench.database import Trainer, trainer
from llm_sql.bench.report import Row, interleaved, median
from llm_sql.bench.shapes import SMALL, Shape

SESSIONS = (1, 2, 4, 20)
STEPS = 10


def measure_sessions(
    engine: Engine, threads: int, repeats: int, *, shape: Shape = SMALL, sessions: Sequence[int] = SESSIONS
) -> Iterator[Row]:
    """Steps per second of 1, 2, 4 and 20 connections, all together."""
    with contextlib.ExitStack() as stack:
        trainers = [
            stack.enter_context(trainer(engine, replace(shape, name=f"{shape.name}, {i + 1}"), threads))
            for i in range(max(sessions))
        ]
        for ours in trainers:
            ours.call_seconds(1)
        samples = interleaved(
            {str(n): partial(_seconds_together, trainers[:n]) for n in sessions},
            repeats,
            between=trainers[0].vacuum,
        )
    alone = None
    for n in sessions:
        seconds = median(samples, str(n))
        assert seconds is not None
        rate = n * STEPS / seconds
        alone = alone or rate / n
        what = f"{shape.name}, {n} {'sessions' if n > 1 else 'session'} at once"
        note = f"{rate / alone:.2f} times one session's" if n > 1 else ""
        yield Row("sessions", what, threads, "steps/s", rate, note=note)


def _seconds_together(trainers: Sequence[Trainer]) -> float:
    """Seconds until all of them have made their steps."""
    with ThreadPoolExecutor(len(trainers)) as pool:
        started = time.perf_counter()
        list(pool.map(lambda ours: ours.call_seconds(STEPS), trainers))
        return time.perf_counter() - started
