"""What ops.py is made with: declaring an op, arguments of its SQL function, and values that are no op."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias

import numpy as np
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeEngine

from . import variables
from .elements import (
    BOOLEAN,
    CHOOSE,
    INTEGER,
    INTEGERS,
    OPERATORS,
    PARAMETER,
    REAL,
    SLICE,
    TEXT,
    Arg,
    Constant,
    Node,
    Op,
    TensorNode,
    coerce,
    tensor,
)
from .substitute import concat as concat_text

P = ParamSpec("P")

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
TensorLike: TypeAlias = "ColumnElement[Any] | Array | Sequence[Any] | float"
"""A node, a column of type tensor, or a value that becomes a bind parameter."""
IntsLike: TypeAlias = "ColumnElement[Any] | Array | Sequence[int] | Sequence[Sequence[int]]"
IntLike: TypeAlias = "ColumnElement[Any] | int"
RealLike: TypeAlias = "ColumnElement[Any] | float"
BoolLike: TypeAlias = "ColumnElement[Any] | bool"
Arguments: TypeAlias = "Sequence[Arg | None]"
TextLike: TypeAlias = "ColumnElement[Any] | str"

OPS: dict[str, Op] = {op.name: op for op in (*OPERATORS.values(), SLICE, CHOOSE)}
"""Every op by its Python name."""


def op(sql: str) -> Callable[[Callable[P, Arguments]], Callable[P, TensorNode]]:
    """Declare an op: the decorated function lists the arguments of the SQL function `sql`; None: left out."""

    def declare(arguments: Callable[P, Arguments]) -> Callable[P, TensorNode]:
        declared = OPS[arguments.__name__] = Op(arguments.__name__, sql)

        @functools.wraps(arguments)
        def build(*args: P.args, **kwargs: P.kwargs) -> TensorNode:
            return TensorNode(declared, _given(declared, arguments(*args, **kwargs)))

        return build

    return declare


def scalar_op(sql: str, type_: TypeEngine[Any]) -> Callable[[Callable[P, Arguments]], Callable[P, Node]]:
    """`op` for functions of tensors that return another type."""

    def declare(arguments: Callable[P, Arguments]) -> Callable[P, Node]:
        declared = OPS[arguments.__name__] = Op(arguments.__name__, sql, type_)

        @functools.wraps(arguments)
        def build(*args: P.args, **kwargs: P.kwargs) -> Node:
            return Node(declared, _given(declared, arguments(*args, **kwargs)))

        return build

    return declare


def _given(declared: Op, arguments: Arguments) -> list[Arg]:
    given = [arg for arg in arguments if arg is not None]
    if any(arg is None for arg in arguments[: len(given)]):
        raise ArgumentError(f"{declared.name}: only trailing arguments can be omitted")
    return given


# ---- arguments ----


def integers(value: Any) -> Arg:
    """An int[] argument: token ids, one- or two-dimensional."""
    return coerce(value, INTEGERS)


def lengths_of(value: Any) -> Arg | None:
    """The number of tokens of each of several sequences laid end to end; None: left out."""
    return None if value is None else integers(value)


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
            parts.append(variables.layer)
        if constant or not value:
            parts.append(Constant.of(constant))
    return concat_text(parts)


# ---- values ----


def p(name: TextLike, model: TextLike = variables.model) -> TensorNode:
    """A parameter of the model in scope, or of `model`. `{layer}` in the name is the block's number."""
    return TensorNode(PARAMETER, [text(model), text(name)])


def let(name: str, value: TensorNode) -> TensorNode:
    """`value`, bound under `name` even if used once: makes compiled SQL easier to read."""
    if not (name.isascii() and name.isidentifier() and name == name.lower()):
        raise ArgumentError(f"{name!r} is not a lower-case identifier")
    return TensorNode(value.call, value.args, name)


def choose(condition: BoolLike, tree: TensorLike, other: TensorLike) -> TensorNode:
    """`tree` where the condition is true, else `other`: a part of a graph that a setting turns on.

    Only the branch taken is computed. What stands in a branch more than once, though, is computed before the
    choice, whichever way it goes; so a parameter that not every model has is used once in its branch.
    """
    return TensorNode(CHOOSE, [boolean(condition), tensor(tree), tensor(other)])
