"""The second compile target: installed PL/pgSQL functions, where what is bound is a local variable.

PL/pgSQL hands tensors on by pointer in `x1 := f(x)` and `RETURN f(x)`; it copies in `y := x` and `SELECT ...
INTO`, which therefore do not occur in what is generated here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

from sqlalchemy import literal_column
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnElement

from . import elements as e
from . import variables as v
from .declared import OPS, text
from .elements import SCHEMA, Node, TensorNode, Variable, quote_literal
from .ops import cross_entropy, last, lm_head, lm_head_loss
from .program import Program, render

if TYPE_CHECKING:
    from .architecture import Architecture, ParameterSpec

SQL_TYPES = {
    e.TENSOR: f"{SCHEMA}.tensor",
    e.INTEGERS: "int[]",
    e.INTEGER: "int",
    e.BIGINT: "bigint",
    e.REAL: "double precision",
}

# As every function of ours has it: names are ours or PostgreSQL's, whatever the caller's path finds.
SEARCH_PATH = "SET search_path = pg_catalog, pg_llm, pg_temp"

# How a variable is written inside the generated functions.
ARGUMENTS = {a.key: a.key for a in (v.model, v.tokens, v.targets, v.training, v.dropout_p)}
CONFIGURATION = {a.key: f"config.{a.key}" for a in (v.n_layer, v.n_head, v.d_model, v.n_positions, v.vocab)}
CONFIGURATION |= {a.key: f"config.{a.key}" for a in (v.layer_norm_eps, v.tied, v.activation_function)}
CONFIGURATION[v.d_ff.key] = "COALESCE(config.d_ff, 4 * config.d_model)"
LOCALS = {v.x.key: v.x.key, v.layer.key: v.layer.key}
# A setting by its type in llm_arch.settings: its type in SQL, and how it is read there. llm_config has
# checked it, so no cast fails.
SETTINGS = {
    "text": ("text", "(config.settings ->> {name})"),
    "boolean": ("boolean", "(config.settings ->> {name})::boolean"),
    "integer": ("int", "(config.settings ->> {name})::int"),
    "number": ("double precision", "(config.settings ->> {name})::double precision"),
    "object": ("jsonb", "(config.settings -> {name})"),
    "options": ("jsonb", "(config.settings -> {name})"),
}
# A setting's local variable. Its own name may be a keyword.
LOCAL_SETTING = "setting_{name}"
READ_CONFIG = f"config := {SCHEMA}.llm_config(model);"
LINE = 96
RESERVED = frozenset(
    {*ARGUMENTS, *LOCALS, "config", "pinned", "last_only", "n_blocks", "lengths", "width", "is_batch"}
)


def configuration(arch: Architecture) -> dict[str, str]:
    """How what a model's configuration holds is written: its sizes, and the architecture's settings, which
    are read once, into variables (Body.read_settings).
    """
    return CONFIGURATION | {s.name: LOCAL_SETTING.format(name=s.name) for s in arch.settings}


class Body:
    """The statements of one function, and the local variables they need."""

    def __init__(self, scope: Mapping[str, str], where: str) -> None:
        self.scope = scope
        self.where = where
        self.locals: dict[str, str] = {}
        self._used: set[str] = set()

    def leaf(self, element: ColumnElement[Any]) -> str:
        """A variable's name, or an expression over variables with every value as a literal."""
        if isinstance(element, Variable):
            return self._variable(element)
        if element._from_objects:
            raise ArgumentError(f"{self.where}: an installed function cannot read the column {element}")

        def written_out(element: Any, **_: Any) -> Any:
            if not isinstance(element, Variable):
                return None
            return literal_column(self._variable(element), element.type)

        written = visitors.replacement_traverse(element, {}, written_out)
        sql = str(written.compile(dialect=_dialect(), compile_kwargs={"literal_binds": True}))
        if "\n" in sql:
            raise ArgumentError(f"{self.where}: {element} has line breaks")
        return sql

    def _variable(self, element: Variable) -> str:
        if element.key not in self.scope:
            known = ", ".join(sorted(self.scope))
            raise ArgumentError(
                f"{self.where}: variable {element.key!r} has no value here; known are {known}"
            )
        self._used.add(element.key)
        return self.scope[element.key]

    def read_settings(self, arch: Architecture) -> str:
        """The statements that read the settings which the trees assigned so far use, a line each."""
        statements = []
        for setting in arch.settings:
            local = LOCAL_SETTING.format(name=setting.name)
            if setting.name in self._used and self.scope[setting.name] == local:
                type_, read = SETTINGS[setting.type]
                self.locals[local] = type_
                statements.append(f"\n{local} := {read.format(name=quote_literal(setting.name))};")
        return "".join(statements)

    def assign(self, tree: Node, name: str = "x") -> str:
        """Statements that assign the tree to `name`, each shared node to a local variable before."""
        program = Program([tree], reserved={*RESERVED, *self.scope.values()})
        statements = []
        for binding in program.bindings:
            self.locals[binding.name] = SQL_TYPES[binding.node.call.type]
            call = render(binding.node, program=program, leaf=self.leaf, pinned=True, bind=False, width=LINE)
            statements.append(f"{binding.name} := {call};")
        result = render(tree, program=program, leaf=self.leaf, pinned=True, width=LINE)
        statements.append(f"{name} := {result};")
        return "\n".join(statements)


def _dialect() -> PGDialect:
    dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]
    dialect._backslash_escapes = False  # what the server itself has since 9.1
    return dialect


def head_variants(head: TensorNode) -> tuple[TensorNode, TensorNode, TensorNode]:
    """From the tree that ends in logits: the logits, those of the last position, and the mean loss.

    A head that ends in lm_head gives its loss without holding the logits, and computes one position where one
    is wanted.
    """
    if head.call is not OPS["lm_head"]:
        return head, last(head), cross_entropy(head)
    hidden, weight = head.args
    if not isinstance(hidden, Node | ColumnElement) or not isinstance(weight, Node | ColumnElement):
        raise ArgumentError("lm_head takes two tensors")
    return head, lm_head(last(hidden), weight), lm_head_loss(hidden, weight)


def forward_function(arch: Architecture) -> str:
    """CREATE FUNCTION public.llm_forward_<arch>(...), without a semicolon."""
    head = f"""CREATE FUNCTION {SCHEMA}.{arch.forward_name}(
    model text,
    tokens int[],
    training boolean DEFAULT false,
    targets int[] DEFAULT NULL,
    dropout_p double precision DEFAULT 0.1,
    last_only boolean DEFAULT false
) RETURNS {SCHEMA}.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
{SEARCH_PATH}"""
    if arch.same_as is not None:
        call = f"{arch.same_as.forward_name}(model, tokens, training, targets, dropout_p, last_only)"
        return function(head, [], f"RETURN {SCHEMA}.{call};")
    body = Body({**ARGUMENTS, **configuration(arch), **LOCALS}, f"architecture {arch.name}")
    logits, logits_of_last, loss = (body.assign(tree) for tree in head_variants(arch.head))
    stem, block = body.assign(arch.stem), body.assign(arch.block)
    source = f"""
        IF model IS NULL OR tokens IS NULL THEN
            RETURN NULL;
        END IF;
        @config
        -- A caller that computes many passes pins the version once for all of them.
        pinned := {SCHEMA}.pg_llm_arena_pinned(model);
        IF NOT pinned THEN
            PERFORM {SCHEMA}.llm_pin(model);
        END IF;

        @stem
        FOR layer IN 0 .. config.n_layer - 1 LOOP
            PERFORM {SCHEMA}.pg_llm_tape_segment();
            @block
        END LOOP;
        PERFORM {SCHEMA}.pg_llm_tape_segment();
        IF targets IS NOT NULL THEN
            @loss
        ELSIF last_only THEN
            @last
        ELSE
            @logits
        END IF;

        IF NOT pinned THEN
            PERFORM {SCHEMA}.pg_llm_arena_close(model);
        END IF;
        RETURN x;"""
    pieces = {"stem": stem, "block": block, "loss": loss, "last": logits_of_last, "logits": logits}
    pieces["config"] = READ_CONFIG + body.read_settings(arch)
    variables = [f"config {SCHEMA}.llm_model_config;", "pinned boolean;", f"x {SCHEMA}.tensor;"]
    variables += [f"{name} {type_};" for name, type_ in body.locals.items()]
    return function(head, variables, fill(dedent(source).strip("\n"), pieces))


def final_state(head: TensorNode) -> TensorNode | None:
    """The head's last state before the logits, from `x`; None when that is `x` itself."""
    hidden = head.args[0] if head.call is OPS["lm_head"] else v.x
    return hidden if isinstance(hidden, Node) and isinstance(hidden, TensorNode) else None


def hidden_function(arch: Architecture) -> str:
    """CREATE FUNCTION public.llm_hidden_<arch>(model, tokens, layer), without a semicolon."""
    head = f"""CREATE FUNCTION {SCHEMA}.{arch.hidden_name}(
    model text,
    tokens int[],
    n_blocks int DEFAULT NULL
) RETURNS {SCHEMA}.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
{SEARCH_PATH}"""
    if arch.same_as is not None:
        call = f"{arch.same_as.hidden_name}(model, tokens, n_blocks)"
        return function(head, [], f"RETURN {SCHEMA}.{call};")
    scope = {**ARGUMENTS, **configuration(arch), **LOCALS}
    scope |= {v.training.key: "false", v.dropout_p.key: "0.0"}
    body = Body(scope, f"architecture {arch.name}")
    final = final_state(arch.head)
    pieces = {"stem": body.assign(arch.stem), "block": body.assign(arch.block)}
    ending = ""
    if final is not None:
        pieces["final"] = body.assign(final)
        ending = """
        IF n_blocks = config.n_layer THEN
            @final
        END IF;"""
    pieces["config"] = READ_CONFIG + body.read_settings(arch)
    source = f"""
        IF model IS NULL OR tokens IS NULL THEN
            RETURN NULL;
        END IF;
        @config
        n_blocks := COALESCE(n_blocks, config.n_layer);
        pinned := {SCHEMA}.pg_llm_arena_pinned(model);
        IF NOT pinned THEN
            PERFORM {SCHEMA}.llm_pin(model);
        END IF;

        @stem
        FOR layer IN 0 .. least(n_blocks, config.n_layer) - 1 LOOP
            @block
        END LOOP;{ending}

        IF NOT pinned THEN
            PERFORM {SCHEMA}.pg_llm_arena_close(model);
        END IF;
        RETURN x;"""
    variables = [f"config {SCHEMA}.llm_model_config;", "pinned boolean;", f"x {SCHEMA}.tensor;"]
    variables += [f"{name} {type_};" for name, type_ in body.locals.items()]
    return function(head, variables, fill(dedent(source).strip("\n"), pieces))


def parameters_function(arch: Architecture) -> str:
    """CREATE FUNCTION public.llm_parameters_<arch>(model), without a semicolon: one row per parameter, in the
    order in which they are declared.
    """
    head = f"""CREATE FUNCTION {SCHEMA}.{arch.parameters_name}(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
{SEARCH_PATH}"""
    if arch.same_as is not None:
        columns = "p.name, p.shape, p.init, p.std"
        call = f"{SCHEMA}.{arch.same_as.parameters_name}(model)"
        return function(head, [], f"RETURN QUERY SELECT {columns} FROM {call} p;")
    scope = {**configuration(arch), v.layer.key: v.layer.key}
    body = Body(scope, f"parameters of architecture {arch.name}")
    lines = []
    for per_layer, specs in groupby(arch.parameters, lambda spec: spec.per_layer):
        rows = "\n".join(_emit(spec, body) for spec in specs)
        if per_layer:
            rows = f"FOR layer IN 0 .. config.n_layer - 1 LOOP\n{indent(rows, '    ')}\nEND LOOP;"
        lines.append(rows)
    lines.insert(0, READ_CONFIG + body.read_settings(arch))
    variables = [f"config {SCHEMA}.llm_model_config;", *(f"{n} {t};" for n, t in body.locals.items())]
    return function(head, variables, "\n".join(lines))


def _emit(spec: ParameterSpec, body: Body) -> str:
    name = text(spec.name)
    if isinstance(name, Node):
        written = render(name, program=Program([name]), leaf=body.leaf)
    else:
        written = quote_literal(spec.name)
    sizes = [str(size) if isinstance(size, int) else body.leaf(size) for size in spec.shape]
    array = f"ARRAY[{', '.join(sizes)}]::int[]"
    # Beside the line's other parts.
    if len(array) > LINE - 36:
        array = "ARRAY[\n" + ",\n".join(f"    {size}" for size in sizes) + "\n]::int[]"
    std = {"normal": repr(spec.std), "residual": f"{spec.std!r} / sqrt(2.0 * config.n_layer)"}.get(
        spec.init, "NULL"
    )
    row = (
        f"name := {written};\n"
        f"init := {quote_literal(spec.init)}; std := {std};\n"
        f"shape := {array}; RETURN NEXT;"
    )
    if spec.only_if is None:
        return row
    return f"IF {body.leaf(spec.only_if)} THEN\n{indent(row, '    ')}\nEND IF;"


def fill(source: str, pieces: Mapping[str, str]) -> str:
    """`source` with each line `@name` replaced by that piece, at the line's indentation."""
    lines = []
    for line in source.split("\n"):
        stripped = line.lstrip()
        if stripped.startswith("@"):
            lines.append(indent(pieces[stripped[1:]], line[: len(line) - len(stripped)]))
        else:
            lines.append(line)
    return "\n".join(lines)


def function(head: str, variables: Sequence[str], source: str) -> str:
    declared = "".join(f"    {variable}\n" for variable in variables)
    body = f"BEGIN\n{indent(source, '    ')}\nEND;"
    if declared:
        body = f"DECLARE\n{declared}{body}"
    tag = "$function$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return f"{head}\nAS {tag}\n{body}\n{tag}"
