"""What is bound where: from a tree whose nodes may be shared to a sequence of bindings and expressions over
them.

Written as nested calls, a residual stream through L blocks would be evaluated 2^(2L) times. Here a node that
is used more than once is bound once, and everything else stays inside the expression that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from textwrap import indent

from sqlalchemy import Integer
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql.elements import ColumnElement

from .elements import CHOOSE, CONCAT, ROW, SCHEMA, Constant, Node, linearise

MAX_NESTING = 32
"""Calls inside each other before one is bound: keeps a long chain within the stacks of parser and planner."""


@dataclass(frozen=True)
class Binding:
    """A node that gets a name."""

    name: str
    node: Node
    level: int
    """1 for what needs no other binding, else one more than the highest it needs."""


class Program:
    """The bindings that `outputs` need, each after those it uses."""

    def __init__(self, outputs: Sequence[Node], reserved: Collection[str] = ()) -> None:
        self.outputs = tuple(outputs)
        uses = _count_uses(outputs)
        self._bindings: dict[int, Binding] = {}
        self._last_use: dict[int, int] = {}
        taken = set(reserved)
        depth: dict[int, int] = {}
        level: dict[int, int] = {}
        for node in linearise(outputs):
            inside = [arg for arg in node.args if isinstance(arg, Node)]
            depth[id(node)] = 1 + max((depth[id(arg)] for arg in inside), default=0)
            level[id(node)] = max((level[id(arg)] for arg in inside), default=0)
            if node.call.bindable and (uses[id(node)] > 1 or node.bound_as or depth[id(node)] > MAX_NESTING):
                depth[id(node)] = 0
                level[id(node)] += 1
                name = _name(node, taken)
                self._bindings[id(node)] = Binding(name, node, level[id(node)])
        self.levels = max((level[id(node)] for node in outputs), default=0)
        for binding in self.bindings:
            self._note_uses(binding.node, binding.level)
        for output in outputs:
            self._note_uses(output, self.levels + 1)

    @property
    def bindings(self) -> list[Binding]:
        return list(self._bindings.values())

    def binding(self, node: Node) -> Binding | None:
        return self._bindings.get(id(node))

    def last_use(self, binding: Binding) -> int:
        """The highest level that uses the binding; the outputs stand one above the last."""
        return self._last_use[id(binding.node)]

    def _note_uses(self, node: Node, level: int) -> None:
        if id(node) in self._bindings and self._bindings[id(node)].level < level:
            self._last_use[id(node)] = max(level, self._last_use.get(id(node), 0))
            return
        stack = [arg for arg in node.args if isinstance(arg, Node)]
        while stack:
            inner = stack.pop()
            if id(inner) in self._bindings:
                self._last_use[id(inner)] = max(level, self._last_use.get(id(inner), 0))
            else:
                stack.extend(arg for arg in inner.args if isinstance(arg, Node))


def _count_uses(outputs: Sequence[Node]) -> dict[int, int]:
    uses: dict[int, int] = {}
    for node in linearise(outputs):
        uses.setdefault(id(node), 0)
        for arg in node.args:
            if isinstance(arg, Node):
                uses[id(arg)] += 1
    for output in outputs:
        uses[id(output)] += 1
    return uses


def _name(node: Node, taken: set[str]) -> str:
    wanted = node.bound_as or "x"
    name, number = wanted, 0
    while name in taken or (name == "x" and node.bound_as is None):
        number += 1
        name = f"{wanted}{number}"
    taken.add(name)
    return name


def render(
    node: Node,
    *,
    program: Program,
    leaf: Callable[[ColumnElement[object]], str],
    constant: Callable[[Constant], str] = Constant.sql,
    pinned: bool = False,
    bind: bool = True,
    width: int | None = None,
) -> str:
    """The node as SQL: the name it is bound under, or the call of its function.

    `leaf` renders column elements, `constant` constants; `pinned`: parameters come from the version in memory
    that the function around has pinned. `bind=False` renders the call of a bound node: what its name is bound
    to. With a `width`, longer calls are broken into a line per argument.
    """
    binding = program.binding(node) if bind else None
    if binding is not None:
        return binding.name
    args = []
    for arg in node.args:
        if isinstance(arg, Node):
            inner_width = None if width is None else width - 4
            args.append(
                render(arg, program=program, leaf=leaf, constant=constant, pinned=pinned, width=inner_width)
            )
        elif isinstance(arg, Constant):
            args.append(constant(arg))
        elif node.call is CONCAT and isinstance(arg.type, Integer):
            # || with a number is a function in SQL, which takes longer than many an op of one row.
            args.append(f"{leaf(arg)}::text")
        else:
            args.append(leaf(arg))
    if node.call is CONCAT:
        return " || ".join(args)
    if node.call is CHOOSE:
        condition, tree, other = args
        if width is None:
            return f"CASE WHEN {condition} THEN {tree} ELSE {other} END"
        branches = [f"WHEN {condition} THEN\n{indent(tree, '    ')}", f"ELSE\n{indent(other, '    ')}"]
        return "\n".join(["CASE", *(indent(branch, "    ") for branch in branches), "END"])
    if node.call is ROW:
        raise ArgumentError("several trees can be used only at the top level of a SELECT list")
    function = f"{SCHEMA}.{node.call.pinned_sql if pinned and node.call.pinned_sql else node.call.sql}"
    call = f"{function}({', '.join(args)})"
    if width is None or (len(call) <= width and "\n" not in call):
        return call
    lines = ",\n".join(indent(arg, "    ") for arg in args)
    return f"{function}(\n{lines}\n)"
