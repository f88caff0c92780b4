"""The nodes of an expression tree: calls of tensor functions, their constants, and the variables they run
over.

A node is a SQLAlchemy column element. Trees share nodes by identity: `h = f(x); h + g(h)` evaluates `h` once.
How a tree becomes SQL stands in program.py (what is bound where), adhoc.py (SELECT) and plpgsql.py (installed
functions).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import ARRAY, Boolean, Double, Integer, Text, literal
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

from llm_sql.models.types import Tensor

SCHEMA = "public"

TENSOR: TypeEngine[Any] = Tensor()
INTEGERS: TypeEngine[Any] = ARRAY(Integer)
INTEGER: TypeEngine[Any] = Integer()
REAL: TypeEngine[Any] = Double()
BOOLEAN: TypeEngine[Any] = Boolean()
TEXT: TypeEngine[Any] = Text()


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
    """Python's operators on tensors give nodes: `+ - * /` with NumPy's broadcasting, `@` and unary `-`."""

    inherit_cache = True

    def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        if op in OPERATORS and isinstance(self.type, Tensor):
            return Node(OPERATORS[op], [self, *(tensor(o) for o in other)])
        return super().operate(op, *other, **kwargs)

    def reverse_operate(self, op: Any, other: Any, **kwargs: Any) -> ColumnElement[Any]:
        if op in OPERATORS and isinstance(self.type, Tensor):
            return Node(OPERATORS[op], [tensor(other), self])
        return super().reverse_operate(op, other, **kwargs)


class Variable(Operators, BindParameter[Any]):
    """A name that a tree runs over: a bind parameter in a SELECT, a variable in an installed function."""

    inherit_cache = True

    def __init__(self, name: str, type_: TypeEngine[Any], **default: Any) -> None:
        super().__init__(name, type_=type_, required=not default, **default)


class Node(Operators):
    """A call of an op. Built by the functions of llm_sql.graph.ops rather than directly."""

    __visit_name__ = "llm_sql_graph_node"
    # The whole tree below stands flattened in two attributes, so that SQLAlchemy's traversals and cache keys
    # take time and stack proportional to neither the number of paths nor the depth.
    _traverse_internals = [  # noqa: RUF012
        ("structure", visitors.InternalTraversal.dp_plain_obj),
        ("leaves", visitors.InternalTraversal.dp_clauseelement_tuple),
    ]

    def __init__(self, op: Op, args: Iterable[Arg], label: str | None = None) -> None:
        self.op = op
        self.args: tuple[Arg, ...] = tuple(args)
        self.type = op.type
        self.bound_as = label

    def __repr__(self) -> str:
        return f"<{self.op.name} node with {len(self.args)} arguments>"

    @memoized_property
    def structure(self) -> Structure:
        """Every node, arguments first; an argument is a node's position, a constant, or ~(a leaf's)."""
        return self._flat[0]

    @memoized_property
    def leaves(self) -> tuple[ColumnElement[Any], ...]:
        """The tree's column elements that are no nodes, each once."""
        return self._flat[1]

    @memoized_property
    def _flat(self) -> tuple[Structure, tuple[ColumnElement[Any], ...]]:
        position: dict[int, int] = {}
        leaves: dict[int, ColumnElement[Any]] = {}
        leaf_number: dict[int, int] = {}
        structure = []
        for node in linearise([self]):
            refs: list[int | Constant] = []
            for arg in node.args:
                if isinstance(arg, Constant):
                    refs.append(arg)
                elif isinstance(arg, Node):
                    refs.append(position[id(arg)])
                else:
                    leaves.setdefault(id(arg), arg)
                    refs.append(~leaf_number.setdefault(id(arg), len(leaf_number)))
            position[id(node)] = len(structure)
            structure.append((node.op, tuple(refs), node.bound_as))
        return tuple(structure), tuple(leaves.values())

    def _copy_internals(self, **kw: Any) -> None:
        super()._copy_internals(**kw)  # type: ignore[no-untyped-call]
        self.__dict__.pop("_flat", None)
        self.args = rebuild(self.structure, self.leaves).args

    @property
    def _from_objects(self) -> list[Any]:
        return [from_ for leaf in self.leaves for from_ in leaf._from_objects]

    def self_group(self, against: Any = None) -> Node:
        return self  # a call or a parenthesised subquery needs no parentheses


OPERATORS: dict[Any, Op] = {
    operators.add: Op("add", "pg_llm_add"),
    operators.sub: Op("sub", "pg_llm_sub"),
    operators.mul: Op("mul", "pg_llm_mul"),
    operators.truediv: Op("div", "pg_llm_div"),
    operators.matmul: Op("matmul", "pg_llm_matmul"),
    operators.neg: Op("neg", "pg_llm_neg"),
}
PARAMETER = Op("p", "llm_weight", pinned_sql="pg_llm_param")
CONCAT = Op("concat", "concat", TEXT, bindable=False)
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
        nodes.append(Node(op, args, label))
    return nodes[-1]


def substitute(tree: Node, values: Mapping[str, Any]) -> Node:
    """`tree` with variables replaced by name: by another tree, a column, or a plain value of the variable's
    type.

    A plain value becomes a bind parameter, so that trees which differ in values alone share a cached
    statement; a layer's number becomes part of the names it stands in.
    """
    replaced: dict[int, Arg] = {}
    given: dict[str, Arg] = {}

    def value_of(arg: Arg) -> Arg:
        if isinstance(arg, Node):
            return replaced[id(arg)]
        if isinstance(arg, Variable):
            return variable(arg)
        if isinstance(arg, Constant):
            return arg
        return visitors.replacement_traverse(arg, {}, inside_expression)

    def variable(arg: Variable) -> Arg:
        if arg.key not in values:
            return arg
        if arg.key not in given:
            value = coerce(values[arg.key], arg.type)
            if isinstance(value, Constant) and arg is not layer:
                value = BindParameter(None, value.value, type_=arg.type, unique=True)
            given[arg.key] = value
        return given[arg.key]

    def inside_expression(element: Any, **_: Any) -> Any:
        if not isinstance(element, Variable) or element.key not in values:
            return None
        value = variable(element)
        return literal(value.value, element.type) if isinstance(value, Constant) else value

    for node in linearise([tree]):
        args = [value_of(arg) for arg in node.args]
        if all(new is old for new, old in zip(args, node.args, strict=True)):
            replaced[id(node)] = node
        else:
            replaced[id(node)] = concat(args) if node.op is CONCAT else Node(node.op, args, node.bound_as)
    result = replaced[id(tree)]
    if not isinstance(result, Node):
        raise ArgumentError("nothing is left of the tree but a constant")
    return result


def concat(parts: Iterable[Arg]) -> Arg:
    """Text put together from `parts`; a constant when all of them are."""
    parts = list(parts)
    if all(isinstance(part, Constant) for part in parts):
        return Constant.of("".join(str(part.value) for part in parts if isinstance(part, Constant)))
    return Node(CONCAT, parts)


# ---- from Python values to arguments ----


_COMPOUND = (BinaryExpression, UnaryExpression, ExpressionClauseList)


def tensor(value: Any) -> Arg:
    """A tensor argument: a node or column element as it is, else anything NumPy makes a float32 array of."""
    if isinstance(value, Node):
        return value
    if isinstance(value, _COMPOUND) and isinstance(value.type, Tensor) and value.operator in OPERATORS:
        # An expression of plain columns and nodes: its nodes take part in the sharing.
        operands = [tensor(operand) for operand in value.get_children()]
        if len(operands) == 1:
            return Node(OPERATORS[value.operator], operands)
        return functools.reduce(lambda left, right: Node(OPERATORS[value.operator], [left, right]), operands)
    return coerce(value, TENSOR)


def integers(value: Any) -> Arg:
    """An int[] argument: token ids, one- or two-dimensional."""
    return coerce(value, INTEGERS)


def integer(value: Any) -> Arg:
    return coerce(value, INTEGER)


def real(value: Any) -> Arg:
    return coerce(value, REAL)


def boolean(value: Any) -> Arg:
    return coerce(value, BOOLEAN)


def text(value: Any) -> Arg:
    """A name. `{layer}` in it stands for the layer's number."""
    if not isinstance(value, str):
        return coerce(value, TEXT)
    parts: list[Arg] = []
    for i, constant in enumerate(value.split("{layer}")):
        if i > 0:
            parts.append(layer)
        if constant or not value:
            parts.append(Constant.of(constant))
    return concat(parts)


_PLAIN: tuple[tuple[type[Any], Callable[[Any], Any]], ...] = (
    (Boolean, bool),
    (Integer, int),
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


# ---- variables ----

# Those from n_layer on are columns of llm_model_config; an installed function reads them there.

x = Variable("x", TENSOR)
"""The residual stream: what the stem made and each block hands on."""
model = Variable("model", TEXT)
"""The model's name: in scope for every parameter `p(...)`."""
tokens = Variable("tokens", INTEGERS)
"""Token ids, [T] or [B, T]."""
targets = Variable("targets", INTEGERS)
"""Next tokens, shaped as `tokens`; those below 0 are ignored by losses."""
training = Variable("training", BOOLEAN, value=False)
"""Whether dropout acts."""
dropout_p = Variable("dropout_p", REAL, value=0.1)
"""The probability with which dropout zeroes an element."""
layer = Variable("layer", INTEGER)
"""The number of a block, from 0."""
n_layer = Variable("n_layer", INTEGER)
n_head = Variable("n_head", INTEGER)
d_model = Variable("d_model", INTEGER)
n_positions = Variable("n_positions", INTEGER)
vocab = Variable("vocab", INTEGER)
d_ff = Variable("d_ff", INTEGER)
"""Width of the feed-forward layer; 4 * d_model unless the model's configuration says otherwise."""
layer_norm_eps = Variable("layer_norm_eps", REAL, value=1e-5)
tied = Variable("tied", BOOLEAN, value=True)
"""Whether the token embedding is the output head too."""
