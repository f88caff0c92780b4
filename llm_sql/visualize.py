"""Pictures of training: the loss curve as characters or a file, a recorded pass as a table or a graph."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from llm_sql.errors import LLMSQLError, UsageError

LOG = text(
    "SELECT step, loss, lr, grad_norm, tokens, seconds FROM public.llm_train_log"
    " WHERE model = :model AND NOT superseded ORDER BY step"
)
PASS = text(
    "SELECT t.position, t.name, t.inputs, t.output, t.extra, r.shape, r.norm, r.grad_norm"
    " FROM public.llm_tape t LEFT JOIN public.llm_tensor_rt r ON r.id = t.output"
    " WHERE t.id / 16777216 = (SELECT max(id) / 16777216 FROM public.llm_tape WHERE model = :model)"
    " ORDER BY t.position"
)
MOVING = (".gif", ".apng", ".webp", ".mp4", ".avi", ".mov", ".webm")
EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class LogRow:
    """A step as llm_train_log has it."""

    step: int
    loss: float
    lr: float
    grad_norm: float | None
    tokens: int
    seconds: float


@dataclass(frozen=True)
class TapeRow:
    """An op of a recorded pass and what is known of its output."""

    position: int
    name: str
    inputs: list[int]
    output: int
    extra: dict[str, object] | None
    shape: list[int] | None
    norm: float | None
    grad_norm: float | None


def read_log(connection: Connection, model: str) -> list[LogRow]:
    """The model's steps. LLMSQLError when it has none."""
    rows = [LogRow(*row) for row in connection.execute(LOG, {"model": model})]
    if not rows:
        raise LLMSQLError(f'model "{model}" has not been trained', hint="llm-sql train MODEL")
    return rows


def read_pass(connection: Connection, model: str) -> list[TapeRow]:
    """The model's last recorded pass. LLMSQLError when there is none."""
    rows = [TapeRow(*row) for row in connection.execute(PASS, {"model": model})]
    if not rows:
        raise LLMSQLError(
            f'no pass of model "{model}" is recorded',
            hint="SET pg_llm.record = 'graph', then train or call llm_loss with llm_autograd_mode on",
        )
    return rows


def chart(values: Sequence[float], width: int = 72, height: int = 12) -> list[str]:
    """The values as lines of characters: bars from the least value up, each a column's mean."""
    width = min(width, len(values))
    edges = [i * len(values) // width for i in range(width + 1)]
    columns = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(columns), max(columns)
    span = (high - low) or 1.0
    eighths = [round((value - low) / span * (height * 8 - 1)) + 1 for value in columns]
    lines = []
    for level in range(height - 1, -1, -1):
        label = {height - 1: f"{high:9.4f} ", 0: f"{low:9.4f} "}.get(level, " " * 10)
        lines.append(label + "".join(EIGHTHS[min(max(n - level * 8, 0), 8)] for n in eighths))
    return lines


def plot(rows: Sequence[LogRow], path: Path, title: str) -> None:
    """Loss and learning rate over steps into a file, in the format of its suffix, by matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("writing a plot to a file needs matplotlib", hint="pip install matplotlib") from None
    if path.suffix.lower() in MOVING:
        raise UsageError(
            f"a plot cannot be written as {path.suffix}", hint="Write a .png, .svg or .pdf file."
        )
    figure = Figure(figsize=(8, 5), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    steps = [row.step for row in rows]
    loss.plot(steps, [row.loss for row in rows])
    loss.set(ylabel="loss (nats per token)", title=title)
    rate.plot(steps, [row.lr for row in rows])
    rate.set(xlabel="step", ylabel="learning rate")
    try:
        figure.savefig(path)
    except ValueError as error:
        raise UsageError(str(error)) from None


def dot(rows: Sequence[TapeRow]) -> str:
    """The pass as a graph in Graphviz's language: an op per node, parameters and tokens as ellipses."""
    made = {row.output for row in rows}
    lines = ["digraph tape {", "  rankdir=TB; node [shape=box];"]
    leaves = sorted({i for row in rows for i in row.inputs if i not in made})
    lines += [f'  t{leaf} [label="{leaf}", shape=ellipse];' for leaf in leaves]
    for row in rows:
        shape = "" if row.shape is None else "\\n" + "x".join(map(str, row.shape))
        lines.append(f'  t{row.output} [label="{row.name}{shape}"];')
        lines += [f"  t{source} -> t{row.output};" for source in row.inputs]
    return "\n".join([*lines, "}"])
