"""Trees with some of their variables given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from sqlalchemy import literal
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter

from .elements import CONCAT, Arg, Constant, Node, Variable, coerce, linearise

NodeT = TypeVar("NodeT", bound=Node)


def bind(tree: NodeT, values: Mapping[Any, Any]) -> NodeT:
    """`tree` with some of its variables given, by name or as g.tokens: a value, a column or another tree."""
    named = {key.key if isinstance(key, Variable) else key: value for key, value in values.items()}
    known = {e.key for leaf in tree.leaves for e in visitors.iterate(leaf) if isinstance(e, Variable)}
    if unknown := named.keys() - known:
        raise ArgumentError(f"the tree has variables {sorted(known)}, not {sorted(unknown)}")
    return substitute(tree, named)


def substitute(tree: NodeT, values: Mapping[str, Any]) -> NodeT:
    """`tree` with variables replaced by name: by another tree, a column, or a plain value of the variable's
    type.

    A plain value becomes a bind parameter, so that trees which differ in values alone share a cached
    statement; a layer's number becomes part of the names it stands in.
    """
    replaced: dict[int, Arg] = {}
    given: dict[str, Arg] = {}
    rewritten: dict[int, Arg] = {}

    def value_of(arg: Arg) -> Arg:
        if isinstance(arg, Node):
            return replaced[id(arg)]
        if isinstance(arg, Variable):
            return variable(arg)
        if isinstance(arg, Constant):
            return arg
        if id(arg) not in rewritten:
            mentioned = any(isinstance(e, Variable) and e.key in values for e in visitors.iterate(arg))
            rewritten[id(arg)] = visitors.replacement_traverse(arg, {}, inside) if mentioned else arg
        return rewritten[id(arg)]

    def variable(arg: Variable) -> Arg:
        if arg.key not in values:
            return arg
        if arg.key not in given:
            value = coerce(values[arg.key], arg.type)
            if isinstance(value, Constant) and not arg.structural:
                value = BindParameter(None, value.value, type_=arg.type, unique=True)
            given[arg.key] = value
        return given[arg.key]

    def inside(element: Any, **_: Any) -> Any:
        if not isinstance(element, Variable) or element.key not in values:
            return None
        value = variable(element)
        return literal(value.value, element.type) if isinstance(value, Constant) else value

    for node in linearise([tree]):
        args = [value_of(arg) for arg in node.args]
        if all(new is old for new, old in zip(args, node.args, strict=True)):
            replaced[id(node)] = node
        else:
            replaced[id(node)] = (
                concat(args) if node.call is CONCAT else type(node)(node.call, args, node.bound_as)
            )
    result = replaced[id(tree)]
    if not isinstance(result, type(tree)):
        raise ArgumentError("the tree reduces to a constant")
    return result


def concat(parts: Iterable[Arg]) -> Arg:
    """Text put together from `parts`; a constant when all of them are."""
    parts = list(parts)
    if all(isinstance(part, Constant) for part in parts):
        return Constant.of("".join(str(part.value) for part in parts if isinstance(part, Constant)))
    return Node(CONCAT, parts)
