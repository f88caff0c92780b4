"""A recorded pass as a table of 80 columns or as a graph in Graphviz's language."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from llm_sql.printable import visible

from . import quoting
from .read import Pass

# Column widths and a blank between them: 80 columns together.
NUMBER, OP, READS, SHAPE, NORM = 3, 16, 29, 11, 8


def size(shape: Sequence[int] | None) -> str:
    """A shape as people write it: 12×96×128; of a single number, nothing."""
    return "×".join(map(str, shape or ()))


def shorten(reads: Sequence[str]) -> list[str]:
    """Names that differ in their last part alone, as one: a.weight, a.bias -> a.{weight,bias}."""
    result: list[str] = []
    for name in reads:
        stem, dot, last = name.rpartition(".")
        before = result[-1] if result else ""
        if dot and before.startswith(f"{stem}.{{"):
            result[-1] = f"{before[:-1]},{last}}}"
        elif dot and before.rpartition(".")[0] == stem:
            result[-1] = f"{stem}.{{{before.rpartition('.')[2]},{last}}}"
        else:
            result.append(name)
    return result


def number(value: float | None) -> str:
    """Four digits, or as many as the column has room for: 1.23e-05."""
    if value is None:
        return ""
    return next(shown for digits in (4, 3, 2, 1) if len(shown := f"{value:.{digits}g}") <= NORM)


def lines(recorded: Pass, title: str) -> list[str]:
    """The ops in order: what each reads, and shape, norm and gradient norm of what it puts out."""
    head = f"{'#':>{NUMBER}} {'op':{OP}} {'reads':{READS}} {'shape':{SHAPE}} "
    head += f"{'norm':>{NORM}} {'gradient':>{NORM}}"
    result = [title, "", head.rstrip(), "─" * 80]
    for op in recorded.ops:
        reads = textwrap.wrap(
            " ".join(map(visible, shorten(op.reads))), READS, break_long_words=True, break_on_hyphens=False
        ) or [""]
        result.append(
            f"{op.position:>{NUMBER}} {visible(op.name)[:OP]:{OP}} {reads[0]:{READS}}"
            f" {size(op.shape)[:SHAPE]:{SHAPE}} {number(op.norm):>{NORM}}"
            f" {number(op.grad_norm):>{NORM}}".rstrip()
        )
        result += [" " * (NUMBER + OP + 2) + rest for rest in reads[1:]]
    return result


def dot(recorded: Pass) -> str:
    """The pass for Graphviz: an op per box, parameters and what else was not computed as ellipses."""
    names = {p.tensor_id: p for p in recorded.parameters}
    made = {op.output for op in recorded.ops}
    result = ["digraph tape {", "  rankdir=TB; node [shape=box];"]
    for leaf in sorted({i for op in recorded.ops for i in op.inputs if i not in made}):
        known = names.get(leaf)
        label = [str(leaf)] if known is None else _label(known.name, known.shape)
        result.append(f"  t{leaf} [label={quoting.dot(label)}, shape=ellipse];")
    for op in recorded.ops:
        result.append(f"  t{op.output} [label={quoting.dot(_label(op.name, op.shape))}];")
        result += [f"  t{source} -> t{op.output};" for source in op.inputs]
    return "\n".join([*result, "}"])


def _label(name: str, shape: Sequence[int] | None) -> list[str]:
    return [name, size(shape)] if shape else [name]
