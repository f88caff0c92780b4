"""Charts made of characters, for a terminal of 80 columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

EIGHTHS = " ▁▂▃▄▅▆▇█"
SHADES = " ░▒▓█"
WIDTH = 80
LABEL = 10


def columns_of(values: Sequence[float], width: int) -> list[float]:
    """The values as at most `width` means of neighbours."""
    width = min(width, len(values))
    edges = [i * len(values) // width for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]


def chart(
    values: Sequence[float], width: int = WIDTH - LABEL, height: int = 12, form: str = "9.4f"
) -> list[str]:
    """The values as lines of characters: bars from the least value up, each a column's mean."""
    columns = columns_of(values, width)
    low, high = min(columns), max(columns)
    span = (high - low) or 1.0
    eighths = [round((value - low) / span * (height * 8 - 1)) + 1 for value in columns]
    lines = []
    for level in range(height - 1, -1, -1):
        label = {height - 1: _number(high, form), 0: _number(low, form)}.get(level, " " * LABEL)
        lines.append(label + "".join(EIGHTHS[min(max(n - level * 8, 0), 8)] for n in eighths))
    return lines


def _number(value: float, form: str) -> str:
    """A label: the value in this form, or in as many digits as there is room for."""
    shown = f"{value:{form}}"
    return (shown if len(shown) < LABEL else f"{value:{LABEL - 1}.2g}") + " "


def axis(first: int, last: int, width: int) -> str:
    """The line below a chart: its first and last step."""
    left, right = str(first), str(last)
    return " " * LABEL + left + right.rjust(max(width - len(left), len(right) + 1))


def shade(value: float) -> str:
    """A share between 0 and 1 as one of five shades: less than 0.05 is blank, more than 0.65 is full."""
    limits = (0.05, 0.15, 0.35, 0.65)
    return SHADES[sum(value >= limit for limit in limits)]
