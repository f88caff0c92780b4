"""The course of training: loss raw, smoothed and held-out, learning rate, gradient norm, clipping."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from llm_sql.printable import title

from .characters import LABEL, WIDTH, axis, chart, columns_of
from .files import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    SKY,
    STILLS,
    VERMILLION,
    check_target,
    new_figure,
    save,
    style,
)
from .read import Evaluation, History

FORMATS = STILLS
SMOOTHING = 0.9
# More than a picture's width has dots.
STRETCHES = 2000
SPLIT_COLOURS = (VERMILLION, GREEN, PURPLE, ORANGE)


def smooth(values: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """The exponential moving average with bias correction, as AdamW's moments have it.

    s_t = weight * s_(t-1) + (1 - weight) * x_t from s_0 = 0, shown as s_t / (1 - weight^t): without the
    division the first values would be drawn towards 0.
    """
    average, share, result = 0.0, 1.0, []
    for value in values:
        average = weight * average + (1.0 - weight) * value
        share *= weight
        result.append(average / (1.0 - share))
    return result


def by_split(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """The evaluations of each split; the held-out rows (`validation`) first."""
    splits = sorted({e.split for e in evaluations}, key=lambda split: (split != "validation", split))
    return {split: [e for e in evaluations if e.split == split] for split in splits}


def split_name(split: str) -> str:
    return "held-out" if split == "validation" else f"split {title(split)}"


def lines(history: History, weight: float = SMOOTHING, width: int = WIDTH) -> list[str]:
    """The charts as lines of at most `width` characters."""
    steps = history.steps
    first, last = steps[0].step, steps[-1].step
    room = width - LABEL
    shown = [row for row in steps if row.loss is not None]
    result = [f"{title(history.model)}: loss (nats per token), steps {first} to {last}"]
    if shown:
        losses = [float(row.loss or 0.0) for row in shown]
        result += chart(losses, room)
        result += [axis(shown[0].step, shown[-1].step, min(room, len(shown)))]
        result += [
            f"loss {losses[0]:.4f} at step {shown[0].step}, {losses[-1]:.4f} at step {shown[-1].step}, "
            f"smoothed {smooth(losses, weight)[-1]:.4f}"
        ]
    for split, measured in by_split(history.evaluations).items():
        result.append(_points(split_name(split), measured, width))
    if not history.evaluations:
        result.append("held-out: not measured (SELECT llm_log_evaluation(...) between calls of training)")
    rates = [row.lr for row in steps if row.lr is not None]
    if rates:
        result += ["", "learning rate", *chart(rates, room, 3, "9.2e")]
    norms = [row.grad_norm for row in steps if row.grad_norm is not None]
    if norms:
        result += ["", "gradient norm (before clipping)", *chart(norms, room, 4)]
        result += _clipping(history, room)
    if history.run_starts:
        starts = ", ".join(map(str, history.run_starts[:8])) + (
            ", ..." if len(history.run_starts) > 8 else ""
        )
        result += ["", f"{len(history.run_starts) + 1} runs; the later ones begin at step {starts}"]
    return result


def _points(name: str, measured: Sequence[Evaluation], width: int) -> str:
    """The last evaluations that a line has room for."""
    line = ""
    for evaluation in reversed(measured):
        longer = f"{evaluation.loss:.4f} at {evaluation.step}" + (f", {line}" if line else "")
        if len(longer) + len(name) + 7 > width:
            return f"{name}: ..., {line}"
        line = longer
    return f"{name}: {line}"


def _clipping(history: History, room: int) -> list[str]:
    steps = [row for row in history.steps if row.grad_norm is not None]
    clipped = [row for row in steps if row.clipped]
    thresholds = sorted({row.clip_threshold for row in steps if row.clip_threshold is not None})
    if not thresholds:
        return ["no clipping (grad_clip was not set)"]
    shares = columns_of([float(row.clipped) for row in steps], room)
    marks = "".join("x" if share >= 0.5 else ("." if share > 0 else " ") for share in shares)
    limits = " and ".join(f"{threshold:g}" for threshold in thresholds)
    return [
        f"{'clipped':>{LABEL - 1}} {marks}".rstrip(),
        f"clipped to {limits} in {len(clipped):,} of {len(steps):,} steps",
        "(x: at least half of a column's steps, .: some of them)",
    ]


def as_json(history: History, weight: float = SMOOTHING) -> dict[str, Any]:
    """The data of the picture: steps with their smoothed loss, and evaluations."""
    known = [row.loss for row in history.steps if row.loss is not None]
    smoothed = iter(smooth(known, weight))
    return {
        "model": history.model,
        "steps": [
            {
                "run_id": row.run_id,
                "step": row.step,
                "loss": row.loss,
                "smoothed": None if row.loss is None else next(smoothed),
                "lr": row.lr,
                "grad_norm": row.grad_norm,
                "clip_threshold": row.clip_threshold,
                "clipped": row.clipped,
                "tokens": row.tokens,
                "seconds": row.seconds,
            }
            for row in history.steps
        ],
        "evaluations": [
            {"step": e.step, "split": e.split, "tokens": e.tokens, "loss": e.loss}
            for e in history.evaluations
        ],
    }


def draw(history: History, path: Path, weight: float = SMOOTHING) -> None:
    """Three charts over the steps into a .png, .svg or .pdf file."""
    check_target(path, FORMATS, "a chart of training")
    with style():
        figure = new_figure(8, 7, layout="constrained")
        loss, rate, norm = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1.6])
        _draw_loss(loss, history, weight)
        known = [row for row in history.steps if row.lr is not None]
        rate.plot(*thinned([(row.step, row.lr or 0.0) for row in known]), color=BLUE)
        rate.set(ylabel="learning rate")
        rate.set_ylim(bottom=0)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
        _draw_norm(norm, history)
        norm.set(xlabel="optimizer step")
        for axes in (loss, rate, norm):
            axes.grid(color=LIGHT, linewidth=0.6)
            axes.set_axisbelow(True)
            for start in history.run_starts:
                axes.axvline(start - 0.5, color=GREY, linewidth=0.8, linestyle=":")
        if history.run_starts:
            loss.plot([], [], color=GREY, linewidth=0.8, linestyle=":", label="a new run begins")
        loss.legend(frameon=False, loc="upper right")
        save(figure, path)


def thinned(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Steps and values to draw: of very many, each stretch's lowest and highest, which look the same."""
    kept = list(points)
    if len(points) > 2 * STRETCHES:
        edges = [i * len(points) // STRETCHES for i in range(STRETCHES + 1)]
        kept = []
        for begin, end in itertools.pairwise(edges):
            stretch = points[begin:end]
            kept += sorted({min(stretch, key=itemgetter(1)), max(stretch, key=itemgetter(1))})
    return [step for step, _ in kept], [value for _, value in kept]


def _draw_loss(axes: Any, history: History, weight: float) -> None:
    known = [row for row in history.steps if row.loss is not None]
    steps, losses = [row.step for row in known], [float(row.loss or 0.0) for row in known]
    axes.set(
        ylabel="loss (nats per token)", title=f"{title(history.model)}: {len(history.steps):,} training steps"
    )
    axes.plot(
        *thinned([*zip(steps, losses, strict=True)]),
        color=SKY,
        linewidth=0.7,
        alpha=0.7,
        label="training loss, each step",
    )
    axes.plot(
        *thinned([*zip(steps, smooth(losses, weight), strict=True)]),
        color=BLUE,
        linewidth=1.8,
        label=f"smoothed (moving average, weight {weight:g}, bias corrected)",
    )
    for (split, measured), colour in zip(by_split(history.evaluations).items(), SPLIT_COLOURS, strict=False):
        axes.plot(
            *thinned([(e.step, e.loss) for e in measured]),
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.2,
            label=f"{split_name(split)} loss (llm_eval_log)",
        )


def _draw_norm(axes: Any, history: History) -> None:
    known = [row for row in history.steps if row.grad_norm is not None]
    points = [(row.step, row.grad_norm or 0.0) for row in known]
    axes.plot(*thinned(points), color=BLUE, linewidth=0.8, label="norm")
    axes.set(ylabel="gradient norm")
    norms = sorted(norm for _, norm in points)
    if norms and norms[0] > 0 and norms[-1] > 10 * norms[len(norms) // 2]:
        # A step or two far above all others would press those flat.
        axes.set_yscale("log")
        axes.set(ylabel="gradient norm (log)")
    else:
        axes.set_ylim(bottom=0)
    limited = [row for row in known if row.clip_threshold is not None]
    if limited:
        axes.plot(
            *thinned([(row.step, row.clip_threshold or 0.0) for row in limited]),
            color=BLACK,
            linestyle="--",
            linewidth=1.1,
            label="clip threshold (grad_clip)",
        )
    clipped = [row for row in known if row.clipped]
    if clipped:
        # A tick below the curve for each, which hides nothing however many there are.
        axes.plot(
            *thinned([(row.step, 0.03) for row in clipped]),
            transform=axes.get_xaxis_transform(),
            color=VERMILLION,
            linestyle="none",
            marker="|",
            markersize=6,
            markeredgewidth=0.6,
            label=f"clipped: {len(clipped):,} of {len(known):,} steps (llm_clip)",
        )
    axes.legend(frameon=False, ncols=3, fontsize=9, loc="lower right", bbox_to_anchor=(1.0, 0.98))
