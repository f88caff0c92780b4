"""Time of a training step inside one llm_train call, beside PyTorch's eager mode in the same run.

A call of n + 1 steps minus a call of 1 step, divided by n: what a call costs once (reading and writing back
the weights) is no part of a step. The engines take turns, so that a busy or throttled machine slows both.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from llm_sql.model import LanguageModel


@dataclass(frozen=True)
class Shape:
    """What is trained: a model's sizes, a batch's, and how many steps a measurement takes."""

    name: str
    arch: str
    n_layer: int
    n_head: int
    d_model: int
    n_positions: int
    vocab: int
    batch_size: int
    tokens: int
    steps: int


SHAPES = (
    Shape("GPT-2, 4 layers, width 128, 12 x 64 tokens", "gpt2", 4, 4, 128, 64, 65, 12, 64, 40),
    Shape("microgpt, 1 layer, width 16, 1 x 8 tokens", "microgpt", 1, 4, 16, 16, 27, 1, 8, 400),
)
DROPOUT = 0.1
GRAD_CLIP = 1.0
ROWS = 240


class Stepper(Protocol):
    """Takes training steps and says how long they took."""

    def time_steps(self, n_steps: int) -> float: ...


class DatabaseStepper:
    """Steps of llm_train, in a transaction that the caller rolls back."""

    def __init__(self, session: Session, shape: Shape) -> None:
        self._session = session
        self._shape = shape
        self._model = LanguageModel.create(
            session,
            f"bench {shape.name}",
            arch=shape.arch,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            d_model=shape.d_model,
            n_positions=shape.n_positions,
            vocab=shape.vocab,
        )
        session.execute(
            text(
                "INSERT INTO public.llm_dataset (model, tokens, target)"
                " SELECT :model, t.ids[1:CAST(:n AS int)], t.ids[2:] FROM generate_series(1, :rows) AS r (i),"
                " LATERAL (SELECT array_agg(((r.i * 7919 + j * 104729) % 1000003) % :vocab ORDER BY j)::int[]"
                " AS ids FROM generate_series(1, CAST(:n AS int) + 1) AS j) t"
            ),
            {"model": self._model.model, "rows": ROWS, "vocab": shape.vocab, "n": shape.tokens},
        )

    def time_steps(self, n_steps: int) -> float:
        started = time.perf_counter()
        self._model.train(
            n_steps,
            batch_size=self._shape.batch_size,
            dropout_p=DROPOUT,
            grad_clip=GRAD_CLIP,
            lr_max=1e-3,
            warmup=0,
            schedule="constant",
            log_every=0,
        )
        return time.perf_counter() - started


def run_bench(engine: Engine, *, repeats: int, threads: int) -> list[dict[str, Any]]:
    """One row per shape: milliseconds per step of either engine (median) and their ratio."""
    with_torch = importlib.util.find_spec("torch") is not None
    rows = []
    for shape in SHAPES:
        with Session(engine) as session:
            session.execute(text("SELECT set_config('pg_llm.threads', :n, false)"), {"n": str(threads)})
            steppers: dict[str, Stepper] = {"llm_sql": DatabaseStepper(session, shape)}
            if with_torch:
                from llm_sql.bench.torch_reference import TorchStepper

                steppers["torch"] = TorchStepper(shape, threads, dropout=DROPOUT, grad_clip=GRAD_CLIP)
            times = _measure(steppers, shape.steps, repeats)
            session.rollback()
        rows.append(_row(shape, times))
    return rows


def _measure(steppers: dict[str, Stepper], n_steps: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds per step, `repeats` times for every stepper in turn, after a warm-up."""
    for stepper in steppers.values():
        stepper.time_steps(3)
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(repeats):
        for name, stepper in steppers.items():
            once = stepper.time_steps(1)
            times[name].append((stepper.time_steps(n_steps + 1) - once) / n_steps * 1e3)
    return times


def _row(shape: Shape, times: dict[str, list[float]]) -> dict[str, Any]:
    ours = statistics.median(times["llm_sql"])
    theirs = statistics.median(times["torch"]) if "torch" in times else None
    return {
        "step of": shape.name,
        "llm-sql": ours,
        "fastest": min(times["llm_sql"]),
        "PyTorch": theirs,
        "its fastest": min(times["torch"]) if "torch" in times else None,
        "ratio": theirs / ours if theirs is not None else None,
    }
