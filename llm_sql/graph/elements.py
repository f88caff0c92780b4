"""The nodes of an expression tree: calls of tensor functions, their constants, and the variables they run
over.

A node is a SQLAlchemy column element. Trees share nodes by identity: `h = f(x); h + g(h)` evaluates `h` once.
How a tree becomes SQL stands in program.py (what is bound where), adhoc.py (SELECT) and plpgsql.py (installed
functions).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import ARRAY, BigInteger, Boolean, Double, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    ColumnElement,
    ExpressionClauseList,
    UnaryExpression,
)
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import memoized_property

from llm_sql.models.types import Tensor, slices

SCHEMA = "public"

TENSOR: TypeEngine[Any] = Tensor()
INTEGERS: TypeEngine[Any] = ARRAY(Integer)
INTEGER: TypeEngine[Any] = Integer()
BIGINT: TypeEngine[Any] = BigInteger()
REAL: TypeEngine[Any] = Double()
BOOLEAN: TypeEngine[Any] = Boolean()
TEXT: TypeEngine[Any] = Text()
JSON: TypeEngine[Any] = JSONB()


@dataclass(frozen=True)
class Constant:
    """A constant that is part of a tree's structure: a head count, a parameter's name, a flag."""

    kind: str
    value: str | int | float | bool | None

    @classmethod
    def of(cls, value: str | int | float | bool | None) -> Constant:
        # The kind keeps 1, 1.0 and True apart, which Python holds equal, in statement cache keys.
        return cls(type(value).__name__, value)

    def sql(self) -> str:
        """The constant as a SQL literal that no setting and no content can turn into anything else."""
        value = self.value
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return quote_literal(value)
        if isinstance(value, float) and not math.isfinite(value):
            name = "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
            return f"'{name}'::double precision"
        text = repr(value)
        return f"({text})" if text.startswith("-") else text


def quote_literal(text: str) -> str:
    """`text` as a SQL string literal, whatever standard_conforming_strings says."""
    if "\x00" in text:
        raise ArgumentError("a SQL string cannot contain the character with code zero")
    quoted = text.replace("'", "''")
    if not any(character in text for character in "\\\n\r"):
        return f"'{quoted}'"
    # No line breaks, so that indenting generated SQL leaves its literals alone.
    for character, escape in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r")):
        quoted = quoted.replace(character, escape)
    return f"E'{quoted}'"


@dataclass(frozen=True, eq=False)
class Op:
    """A function of the extension as the tree sees it; two ops are the same only if they are one object."""

    name: str
    """The Python function's name."""
    sql: str
    """The SQL function's name, without schema."""
    type: TypeEngine[Any] = TENSOR
    """What it returns."""
    bindable: bool = True
    """Whether a second use is worth a binding: not for names put together from a layer number."""
    pinned_sql: str | None = None
    """The function that takes its place inside an installed function, where the model's version is pinned."""


Arg: TypeAlias = "Node | Constant | ColumnElement[Any]"
Structure: TypeAlias = tuple[tuple[Op, tuple["int | Constant", ...], str | None], ...]


class Operators(ColumnElement[Any]):
    """Python's operators on tensors give nodes: `+ - * /` with NumPy's broadcasting, `@`, `-x`, slices."""

    inherit_cache = True
    __array_ufunc__ = None  # NumPy leaves `array + node` to the node

    def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        if op in OPERATORS:
            return TensorNode(OPERATORS[op], [self, *(tensor(o) for o in other)])
        return super().operate(op, *other, **kwargs)

    def reverse_operate(self, op: Any, other: Any, **kwargs: Any) -> ColumnElement[Any]:
        if op in OPERATORS:
            return TensorNode(OPERATORS[op], [tensor(other), self])
        return super().reverse_operate(op, other, **kwargs)

    def __getitem__(self, index: Any) -> Operators:
        sliced: Operators = self
        for bounds in slices(index):
            sliced = TensorNode(SLICE, [sliced, *map(Constant.of, bounds)])
        return sliced

    if TYPE_CHECKING:

        def __add__(self, other: Any) -> TensorNode: ...
        def __radd__(self, other: Any) -> TensorNode: ...
        def __sub__(self, other: Any) -> TensorNode: ...
        def __rsub__(self, other: Any) -> TensorNode: ...
        def __mul__(self, other: Any) -> TensorNode: ...
        def __rmul__(self, other: Any) -> TensorNode: ...
        def __truediv__(self, other: Any) -> TensorNode: ...
        def __rtruediv__(self, other: Any) -> TensorNode: ...
        def __matmul__(self, other: Any) -> TensorNode: ...
        def __rmatmul__(self, other: Any) -> TensorNode: ...
        def __neg__(self) -> TensorNode: ...  # type: ignore[override]


class Variable(BindParameter[Any]):
    """A name that a tree runs over: a bind parameter in a SELECT, a variable in an installed function.

    Without a default in `value` it has to be given a value. A `structural` one becomes part of the tree when
    it is given: a layer's number, of the names it stands in.
    """

    inherit_cache = True

    def __init__(
        self, name: str, type_: TypeEngine[Any], *, structural: bool = False, **default: Any
    ) -> None:
        super().__init__(name, type_=type_, required=not default, **default)
        self.structural = structural


class TensorVariable(Operators, Variable):
    """A variable of type tensor."""

    inherit_cache = True

    def __init__(self, name: str) -> None:
        super().__init__(name, TENSOR)


class Node(ColumnElement[Any]):
    """A call of an op. Built by the functions of llm_sql.graph.ops rather than directly."""

    __visit_name__ = "llm_sql_graph_node"
    # The whole tree below stands flattened in two attributes, so that SQLAlchemy's traversals and cache keys
    # take time and stack proportional to neither the number of paths nor the depth.
    _traverse_internals = [  # noqa: RUF012
        ("structure", visitors.InternalTraversal.dp_plain_obj),
        ("leaves", visitors.InternalTraversal.dp_clauseelement_tuple),
    ]

    def __init__(self, call: Op, args: Iterable[Arg], label: str | None = None) -> None:
        self.call = call
        self.args: tuple[Arg, ...] = tuple(args)
        self.type = call.type
        self.bound_as = label

    def __repr__(self) -> str:
        return f"<{self.call.name} node with {len(self.args)} arguments>"

    @memoized_property
    def structure(self) -> Structure:
        """Every node, arguments first; an argument is a node's position, a constant, or ~(a leaf's)."""
        position: dict[int, int] = {}
        leaf_number = {id(leaf): number for number, leaf in enumerate(self.leaves)}
        structure: list[tuple[Op, tuple[int | Constant, ...], str | None]] = []
        for node in linearise([self]):
            refs: list[int | Constant] = []
            for arg in node.args:
                if isinstance(arg, Constant):
                    refs.append(arg)
                else:
                    refs.append(position[id(arg)] if isinstance(arg, Node) else ~leaf_number[id(arg)])
            position[id(node)] = len(structure)
            structure.append((node.call, tuple(refs), node.bound_as))
        return tuple(structure)

    @memoized_property
    def leaves(self) -> tuple[ColumnElement[Any], ...]:
        """The tree's column elements that are no nodes, each once."""
        leaves: dict[int, ColumnElement[Any]] = {}
        for node in linearise([self]):
            for arg in node.args:
                if not isinstance(arg, Node | Constant):
                    leaves.setdefault(id(arg), arg)
        return tuple(leaves.values())

    def _copy_internals(self, **kw: Any) -> None:
        structure = self.structure
        super()._copy_internals(**kw)
        self.args = rebuild(structure, self.leaves).args

    @property
    def _from_objects(self) -> list[Any]:
        return [from_ for leaf in self.leaves for from_ in leaf._from_objects]

    def self_group(self, against: Any = None) -> Node:
        return self  # a call or a parenthesised subquery needs no parentheses


class TensorNode(Operators, Node):
    """A call that returns a tensor."""

    inherit_cache = True


OPERATORS: dict[Any, Op] = {
    operators.add: Op("add", "pg_llm_add"),
    operators.sub: Op("sub", "pg_llm_sub"),
    operators.mul: Op("mul", "pg_llm_mul"),
    operators.truediv: Op("div", "pg_llm_div"),
    operators.matmul: Op("matmul", "pg_llm_matmul"),
    operators.neg: Op("neg", "pg_llm_neg"),
}
SYMBOLS = {
    "+": operators.add,
    "-": operators.sub,
    "*": operators.mul,
    "/": operators.truediv,
    "@": operators.matmul,
}
CUSTOM = {f"OPERATOR(public.{symbol})": OPERATORS[operator] for symbol, operator in SYMBOLS.items()}
"""The operators that models.types spells out itself, each with its schema."""
SLICE = Op("slice_axis", "pg_llm_slice")
PARAMETER = Op("p", "llm_weight", pinned_sql="pg_llm_param")
CONCAT = Op("concat", "concat", TEXT, bindable=False)
CHOOSE = Op("choose", "CASE")
"""Condition, tree, other tree: rendered as CASE, which computes only the branch taken."""
ROW = Op("row", "row", bindable=False)
"""Several trees as one; stands only at the top of what compiles to a SELECT list."""


def linearise(outputs: Iterable[Node]) -> list[Node]:
    """Every node below and with `outputs`, each once, arguments before the calls that use them."""
    order: list[Node] = []
    seen: set[int] = set()
    stack = [(node, False) for node in reversed(list(outputs))]
    while stack:
        node, arguments_done = stack.pop()
        if arguments_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args) if isinstance(arg, Node))
    return order


def rebuild(structure: Structure, leaves: tuple[ColumnElement[Any], ...]) -> Node:
    """The tree that a node's structure and leaves describe."""
    nodes: list[Node] = []
    for op, refs, label in structure:
        args: list[Arg] = []
        for ref in refs:
            if isinstance(ref, Constant):
                args.append(ref)
            else:
                args.append(nodes[ref] if ref >= 0 else leaves[~ref])
        nodes.append((TensorNode if op.type is TENSOR else Node)(op, args, label))
    return nodes[-1]


# ---- from Python values to arguments ----

_COMPOUND = (BinaryExpression, UnaryExpression, ExpressionClauseList)


def tensor(value: Any) -> Arg:
    """A tensor argument: a node or column element as it is, else anything NumPy makes a float32 array of."""
    operator = _operator(value)
    if operator is None:
        return coerce(value, TENSOR)
    # An expression of plain columns and nodes: its nodes take part in the sharing.
    operands = [tensor(operand) for operand in value.get_children()]
    if len(operands) == 1:
        return TensorNode(operator, operands)
    return functools.reduce(lambda left, right: TensorNode(operator, [left, right]), operands)


def _operator(value: Any) -> Op | None:
    if not isinstance(value, _COMPOUND) or not isinstance(value.type, Tensor):
        return None
    if isinstance(value.operator, operators.custom_op):
        return CUSTOM.get(value.operator.opstring)
    return OPERATORS.get(value.operator)


_PLAIN: tuple[tuple[type[Any], Callable[[Any], Any]], ...] = (
    (Boolean, bool),
    (Integer, index),
    (Double, float),
    (Text, str),
)


def coerce(value: Any, type_: TypeEngine[Any]) -> Arg:
    """`value` as an argument of SQL type `type_`."""
    if isinstance(value, Constant | ColumnElement):
        return value
    if hasattr(value, "__clause_element__"):  # a mapped class's attribute
        return coerce(value.__clause_element__(), type_)
    for plain, convert in _PLAIN:
        if isinstance(type_, plain):
            return Constant.of(None if value is None else convert(value))
    if isinstance(type_, ARRAY) and hasattr(value, "tolist"):
        value = value.tolist()
    return BindParameter(None, value, type_=type_, unique=True)
