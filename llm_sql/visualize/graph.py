"""The graph of an architecture, from its expression trees, or of a model, from a pass over a few tokens.

Stem, block and head; the block stands once, whatever the number of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from llm_sql.errors import LLMSQLError
from llm_sql.graph import ARCHITECTURES, Architecture
from llm_sql.graph.elements import CONCAT, PARAMETER, Constant, Node, Variable, linearise
from llm_sql.printable import title, visible

from . import quoting
from .memory import recorded_pass
from .read import LAYER, TapeRow, groups_of
from .tape import shorten, size

STREAM = "x"
"""What the stem makes and every block hands on."""


@dataclass(frozen=True)
class Op:
    """An op of a part: its inputs are numbers of ops before it in the part, or STREAM."""

    number: int
    name: str
    inputs: tuple[int | str, ...]
    parameters: tuple[str, ...]
    shape: str = ""


@dataclass(frozen=True)
class Part:
    """Stem, block or head. repeated: how often it stands in the model, as text."""

    name: str
    ops: tuple[Op, ...]
    repeated: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} × {self.repeated}" if self.repeated else self.name


@dataclass(frozen=True)
class Graph:
    """An architecture or a model, part by part."""

    title: str
    parts: tuple[Part, ...]


def read_graph(connection: Connection, name: str) -> Graph:
    """The graph of a model with weights, or of a built-in architecture, or of a registered one by one of its
    models. LLMSQLError when there is nothing of that name.
    """
    model = connection.execute(
        text(
            "SELECT c.arch, c.n_layer,"
            " EXISTS (SELECT FROM public.llm_param p WHERE p.model = c.model) AS weights"
            " FROM public.llm_model_config c WHERE c.model = :name"
        ),
        {"name": name},
    ).first()
    if model is not None and model.weights:
        return of_model(connection, name, model.arch, model.n_layer)
    built_in = {architecture.name: architecture for architecture in ARCHITECTURES}
    arch = name if model is None else model.arch
    if arch in built_in:
        layers = "n_layer" if model is None else str(model.n_layer)
        return of_architecture(built_in[arch], layers)
    some = connection.execute(
        text(
            "SELECT c.model, c.n_layer FROM public.llm_model_config c WHERE c.arch = :arch"
            " AND EXISTS (SELECT FROM public.llm_param p WHERE p.model = c.model)"
            " ORDER BY c.created_at, c.model LIMIT 1"
        ),
        {"arch": arch},
    ).first()
    if some is not None:
        return of_model(connection, some.model, arch, some.n_layer)
    registered = connection.scalar(
        text("SELECT EXISTS (SELECT FROM public.llm_arch WHERE arch = :arch)"), {"arch": arch}
    )
    if registered:
        raise LLMSQLError(
            f'architecture "{arch}" has no model with weights to record a pass of',
            hint=f"Make one: SELECT llm_create_model('small', arch => '{arch}', n_layer => 1, ...)",
        )
    raise LLMSQLError(
        f'there is no architecture or model "{name}"',
        hint="SELECT arch FROM llm_arch lists architectures, SELECT model FROM llm_model_config models.",
    )


# ---- from expression trees ----


def of_architecture(architecture: Architecture, layers: str = "n_layer") -> Graph:
    """The graph of an architecture of llm_sql.graph."""
    parts = (
        Part("stem", _ops_of(architecture.stem)),
        Part("block", _ops_of(architecture.block), layers),
        Part("head", _ops_of(architecture.head)),
    )
    return Graph(architecture.description or architecture.name, parts)


def _ops_of(tree: Node) -> tuple[Op, ...]:
    numbers: dict[int, int] = {}
    ops: list[Op] = []
    for node in linearise([tree]):
        if node.call in (PARAMETER, CONCAT) or node.call.type is not tree.call.type:
            continue  # parameters and positions are named at what reads them
        inputs: list[int | str] = []
        parameters: list[str] = []
        for arg in node.args:
            if isinstance(arg, Node) and arg.call is PARAMETER:
                parameters.append(" or ".join(_names(arg.args[1])))
            elif isinstance(arg, Node) and id(arg) in numbers:
                inputs.append(numbers[id(arg)])
            elif isinstance(arg, Node) and arg.call is not CONCAT:
                parameters.append(arg.call.name)
            elif isinstance(arg, Variable) and arg.key == STREAM:
                inputs.append(STREAM)
            elif isinstance(arg, Variable) and arg.key == "tokens":
                parameters.append("tokens")
        numbers[id(node)] = len(ops) + 1
        ops.append(Op(len(ops) + 1, node.call.name, tuple(inputs), tuple(parameters)))
    return tuple(ops)


def _names(name: Any) -> list[str]:
    """What a parameter may be called: one name, or the alternatives of a CASE."""
    if isinstance(name, Constant):
        return [str(name.value)]
    if isinstance(name, Node):  # a concatenation around the block's number
        pieces = [
            str(arg.value) if isinstance(arg, Constant) else "{layer}"
            for arg in name.args
            if isinstance(arg, Constant | Variable)
        ]
        return ["".join(pieces)]
    values = [child.value for child in _binds(name) if isinstance(getattr(child, "value", None), str)]
    return values or [str(name)]


def _binds(element: Any) -> Iterator[Any]:
    from sqlalchemy.sql import visitors

    for child in visitors.iterate(element):
        if child.__visit_name__ == "bindparam":
            yield child


# ---- from a recorded pass ----


def of_model(connection: Connection, model: str, arch: str, n_layer: int) -> Graph:
    """The graph of a model with weights, with shapes: a pass over a few tokens, recorded in memory alone."""
    with recorded_pass(connection, model, tokens=None) as recorded:
        names = {p.tensor_id: p.name for p in recorded.parameters}
        groups = groups_of(recorded.ops, names)
        parts = []
        for key, name, repeated in (
            ("embedding", "stem", ""),
            ("0", "block", str(n_layer)),
            ("head", "head", ""),
        ):
            ops = [op for op, group in zip(recorded.ops, groups, strict=True) if group == key]
            if ops:
                parts.append(Part(name, _from_tape(ops), repeated))
        length = (recorded.ops[0].shape or [0])[0] if recorded.ops else 0
    return Graph(f"{title(model)}: {title(arch)}, {n_layer} layers, shapes for {length} tokens", tuple(parts))


def _from_tape(ops: Sequence[TapeRow]) -> tuple[Op, ...]:
    numbers = {f"#{op.position}": number for number, op in enumerate(ops, 1)}
    found = []
    for number, op in enumerate(ops, 1):
        inputs: list[int | str] = []
        parameters = []
        for name in op.reads:
            if name in numbers:
                inputs.append(numbers[name])
            elif name.startswith("#"):
                inputs.append(STREAM)
            else:
                parameters.append(LAYER.sub("h.{layer}.", name))
        if op.name == "embedding":
            parameters.append("tokens" if "wpe" not in "".join(parameters) else "positions")
        found.append(Op(number, op.name, tuple(inputs), tuple(parameters), size(op.shape)))
    return tuple(found)


# ---- as text ----


def lines(graph: Graph) -> list[str]:
    """A tree: parts, and below each its ops with what they read."""
    result = [graph.title]
    for part in graph.parts:
        last_part = part is graph.parts[-1]
        result.append(f"{'└' if last_part else '├'}── {part.title}")
        stem = "    " if last_part else "│   "
        for op in part.ops:
            corner = "└" if op is part.ops[-1] else "├"
            reads = ", ".join([*(_input(i) for i in op.inputs), *map(visible, shorten(op.parameters))])
            shape = f"  [{op.shape}]" if op.shape else ""
            result.append(f"{stem}{corner}── {op.number:>2} {op.name}({reads}){shape}")
    return result


def _input(number: int | str) -> str:
    return number if isinstance(number, str) else f"#{number}"


def dot(graph: Graph) -> str:
    """The graph for Graphviz: a cluster per part."""
    result = ["digraph model {", "  rankdir=TB; node [shape=box];", f"  label={quoting.dot([graph.title])};"]
    edges = []
    for part in graph.parts:
        result.append(f"  subgraph cluster_{part.name} {{ label={quoting.dot([part.title])};")
        for op in part.ops:
            result.append(f"    {_id(part, op.number)} [label={quoting.dot(_label(op))}];")
        result.append("  }")
    for before, part, source, target in _edges(graph):
        edges.append(f"  {_id(before, source)} -> {_id(part, target)};")
    return "\n".join([*result, *edges, "}"])


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart: a subgraph per part."""
    result = ["flowchart TB"]
    for part in graph.parts:
        result.append(f"    subgraph {part.name}[{quoting.mermaid([part.title])}]")
        for op in part.ops:
            result.append(f"        {_id(part, op.number)}[{quoting.mermaid(_label(op))}]")
        result.append("    end")
    for before, part, source, target in _edges(graph):
        result.append(f"    {_id(before, source)} --> {_id(part, target)}")
    return "\n".join(result) + "\n"


def _edges(graph: Graph) -> Iterator[tuple[Part, Part, int, int]]:
    """(part of the source, part of the target, source, target); STREAM is the last op of the part before."""
    for before, part in zip((None, *graph.parts), graph.parts, strict=False):
        for op in part.ops:
            for source in op.inputs:
                if isinstance(source, int):
                    yield part, part, source, op.number
                elif before is not None:
                    yield before, part, before.ops[-1].number, op.number


def _id(part: Part, number: int) -> str:
    return f"{part.name}_{number}"


def _label(op: Op) -> list[str]:
    """What an op's box says, line by line."""
    return [op.name, *shorten(op.parameters), *([op.shape] if op.shape else [])]


def as_json(graph: Graph) -> dict[str, Any]:
    return {
        "title": graph.title,
        "parts": [
            {
                "name": part.name,
                "repeated": part.repeated or None,
                "ops": [
                    {
                        "number": op.number,
                        "op": op.name,
                        "inputs": list(op.inputs),
                        "parameters": list(op.parameters),
                        "shape": op.shape or None,
                    }
                    for op in part.ops
                ],
            }
            for part in graph.parts
        ],
    }
