"""Training steps inside one llm_train call, beside PyTorch's and beside the machine's roofline."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from sqlalchemy import Engine

from llm_sql.bench.database import trainer
from llm_sql.bench.machine import Machine
from llm_sql.bench.report import Row, interleaved, median
from llm_sql.bench.roofline import training_step
from llm_sql.bench.shapes import GPT2_HOLLOW, GPT2_LONG, GPT2_SHORT, MICROGPT, SMALL, Shape
from llm_sql.bench.worker import Worker, has_torch

WARM_UP_STEPS = 2
ROOFLINE_FROM = 10_000_000  # parameters: a smaller model lives in caches, where bandwidth says nothing


def measure_steps(
    engine: Engine, machine: Machine, threads: int, repeats: int, *, quick: bool
) -> Iterator[Row]:
    """Milliseconds per step by shape; then what of a step of GPT-2 124M is no arithmetic."""
    gpt2_ms = {}
    for shape in (MICROGPT, SMALL) if quick else (MICROGPT, SMALL, GPT2_SHORT, GPT2_LONG):
        row = _measure(engine, machine, shape, threads, repeats)
        gpt2_ms[shape] = row.llm_sql
        yield row
    hollow = _outside_kernels(engine, threads, repeats)
    yield Row(
        "train", "step of GPT-2 124M outside kernels", threads, "ms", hollow * 1e3, note=GPT2_HOLLOW.name
    )
    for shape in (GPT2_SHORT, GPT2_LONG):
        whole = gpt2_ms.get(shape)
        if whole:
            what = f"share of that in {shape.name}"
            yield Row("train", what, threads, "%", 100 * hollow * 1e3 / whole)


def _measure(engine: Engine, machine: Machine, shape: Shape, threads: int, repeats: int) -> Row:
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(trainer(engine, shape, threads))
        samplers: dict[str, Callable[[], float]] = {
            "peak": lambda: machine.peak_flops(threads),
            "bandwidth": lambda: machine.bandwidth(threads),
            "ours": lambda: ours.step_seconds(shape.steps),
        }
        ours.call_seconds(WARM_UP_STEPS)
        ours.vacuum()
        if has_torch():
            theirs = stack.enter_context(Worker("torch", threads))
            theirs.make_model(shape)
            theirs.step_seconds(WARM_UP_STEPS)
            samplers["torch"] = lambda: theirs.step_seconds(shape.steps) / shape.steps
        samples = interleaved(samplers, repeats, between=ours.vacuum)
    seconds, torch_seconds = median(samples, "ours"), median(samples, "torch")
    assert seconds is not None
    work = training_step(shape)
    least = work.seconds(max(samples["peak"]), max(samples["bandwidth"]))
    return Row(
        "train", f"step of {shape.name}", threads, "ms", seconds * 1e3,
        None if torch_seconds is None else torch_seconds * 1e3,
        of_peak=work.flops / seconds / max(samples["peak"]),
        of_roofline=seconds / least if shape.n_parameters >= ROOFLINE_FROM else None,
        note=f"{work.flops / 1e9:.4g} GFLOP, {work.bytes / 1e9:.3g} GB",
    )  # fmt: skip


def _outside_kernels(engine: Engine, threads: int, repeats: int) -> float:
    """Seconds of a step through the same graph, tape, optimizer and log with tensors of next to no size."""
    with trainer(engine, GPT2_HOLLOW, threads) as ours:
        ours.call_seconds(WARM_UP_STEPS)
        seconds = median(
            interleaved({"ours": lambda: ours.step_seconds(GPT2_HOLLOW.steps)}, repeats, between=ours.vacuum),
            "ours",
        )
    assert seconds is not None
    return seconds
