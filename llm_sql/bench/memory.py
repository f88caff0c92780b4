"""Peak memory of a training process: the backend's and PyTorch's, each from its start on."""

from __future__ import annotations

from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]
from sqlalchemy import Engine

from llm_sql.bench.database import trainer
from llm_sql.bench.report import Row
from llm_sql.bench.shapes import GPT2_LARGE_BATCH, GPT2_LONG, GPT2_SHORT, Shape
from llm_sql.bench.worker import Worker, has_torch

STEPS = 2
NEEDED = {GPT2_SHORT: 4e9, GPT2_LONG: 5e9, GPT2_LARGE_BATCH: 10e9}


def measure_memory(engine: Engine, threads: int, *, quick: bool) -> Iterator[Row]:
    """Gigabytes (1e9) by shape. The two run one after the other: few machines hold both peaks at once."""
    for shape in (GPT2_SHORT,) if quick else (GPT2_SHORT, GPT2_LONG, GPT2_LARGE_BATCH):
        what = f"peak memory of {shape.name}"
        available = psutil.virtual_memory().available
        if available < NEEDED[shape]:
            note = f"needs {NEEDED[shape] / 1e9:.0f} GB, {available / 1e9:.1f} GB are free"
            yield Row("memory", what, threads, "GB", None, note=note)
            continue
        ours, theirs = _ours(engine, shape, threads), _theirs(shape, threads)
        yield Row("memory", what, threads, "GB", ours, theirs, note="VmHWM of the process")


def _ours(engine: Engine, shape: Shape, threads: int) -> float | None:
    with trainer(engine, shape, threads) as backend:
        backend.call_seconds(STEPS)
        peak = backend.peak_memory()
        backend.vacuum()
    return None if peak is None else peak / 1e9


def _theirs(shape: Shape, threads: int) -> float | None:
    if not has_torch():
        return None
    with Worker("torch", threads) as worker:
        worker.make_model(shape)
        worker.step_seconds(STEPS)
        return worker.peak_memory() / 1e9
