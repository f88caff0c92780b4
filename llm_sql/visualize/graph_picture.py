"""The drawing of a graph: a column per part, its ops from top to bottom, what skips ops bent around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_sql.printable import visible

from .files import BLUE, GREY, ORANGE, STILLS, check_target, new_figure, save, style
from .graph import STREAM, Graph, Part
from .tape import shorten

FORMATS = STILLS
ARROW = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
BOX_WIDTH, BOX_HEIGHT, STEP_Y, BETWEEN, TOP = 3.3, 0.62, 0.92, 1.5, 1.3


def levels(part: Part) -> dict[int, int]:
    """The row each op is drawn in: one below the lowest of what it reads."""
    found: dict[int, int] = {}
    for op in part.ops:
        found[op.number] = 1 + max((found[i] for i in op.inputs if isinstance(i, int)), default=-1)
    return found


def draw(graph: Graph, path: Path) -> None:
    """The graph into a .png, .svg or .pdf file."""
    check_target(path, FORMATS, "a graph")
    with style():
        places, left, edges = {}, 0.0, []
        for part in graph.parts:
            rows = levels(part)
            widest = max(list(rows.values()).count(level) for level in rows.values())
            width = widest * (BOX_WIDTH + 0.35) - 0.35
            for level in sorted(set(rows.values())):
                beside = [number for number, row in rows.items() if row == level]
                start = left + (width - len(beside) * (BOX_WIDTH + 0.35) + 0.35) / 2
                for number, op in enumerate(beside):
                    x = start + number * (BOX_WIDTH + 0.35) + BOX_WIDTH / 2
                    places[part.name, op] = (x, TOP + level * STEP_Y)
            edges.append((part, left, width))
            left += width + BETWEEN
        height = max(y for _, y in places.values()) + BOX_HEIGHT
        figure = new_figure((left - BETWEEN + 1.4) * 0.72, (height + 0.6) * 0.72)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(-0.7, left - BETWEEN + 0.7)
        axes.set_ylim(height + 0.3, -0.3)
        axes.axis("off")
        axes.text(-0.4, 0.0, graph.title, fontsize=11, va="center")
        for part, x, width in edges:
            _draw_part(axes, part, x, width, places)
        save(figure, path)


def _draw_part(
    axes: Any, part: Part, left: float, width: float, places: dict[Any, tuple[float, float]]
) -> None:
    from matplotlib.patches import FancyBboxPatch

    bottom = max(places[part.name, op.number][1] for op in part.ops) + BOX_HEIGHT / 2 + 0.15
    axes.text(left, TOP - 0.72, part.title, fontsize=10, weight="bold", va="center")
    axes.add_patch(
        FancyBboxPatch(
            (left - 0.3, TOP - 0.45), width + 0.6, bottom - TOP + 0.45, boxstyle="round,pad=0.08",
            facecolor="#f6f8fa", edgecolor="#c9d1d9", zorder=0,
        )
    )  # fmt: skip
    for op in part.ops:
        x, y = places[part.name, op.number]
        axes.add_patch(
            FancyBboxPatch(
                (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2), BOX_WIDTH, BOX_HEIGHT, boxstyle="round,pad=0.02",
                facecolor="white", edgecolor=GREY, linewidth=0.9, zorder=2,
            )
        )  # fmt: skip
        stream = [STREAM] if STREAM in op.inputs else []
        detail = ", ".join([*stream, *map(visible, shorten(op.parameters))])
        name = f"{op.name}  [{op.shape}]" if op.shape else op.name
        axes.text(x, y - (0.13 if detail else 0.0), name, fontsize=8.5, ha="center", va="center", zorder=3)
        if detail:
            axes.text(x, y + 0.15, detail, fontsize=6.8, ha="center", va="center", color=BLUE, zorder=3)
        for source in op.inputs:
            if isinstance(source, int):
                _draw_edge(axes, places[part.name, source], (x, y))


def _draw_edge(axes: Any, source: tuple[float, float], target: tuple[float, float]) -> None:
    """An arrow down; one that skips ops goes around them on the left."""
    skips = target[1] - source[1] > STEP_Y * 1.01
    if skips and abs(source[0] - target[0]) < 0.01:
        side = source[0] - BOX_WIDTH / 2
        bend = side - 0.24
        xs, ys = [side, bend, bend, side - 0.03], [source[1], source[1], target[1], target[1]]
        axes.plot(xs[:-1], ys[:-1], color=ORANGE, linewidth=1.2, zorder=1)
        axes.annotate(
            "", (side, target[1]), (bend - 0.001, target[1]),
            arrowprops={"color": ORANGE, **ARROW},
        )  # fmt: skip
        return
    axes.annotate(
        "", (target[0], target[1] - BOX_HEIGHT / 2), (source[0], source[1] + BOX_HEIGHT / 2), zorder=1,
        arrowprops={"color": GREY, **ARROW},
    )  # fmt: skip
