"""Random calls of every SQL function of ours: arguments that fit together, and what is done to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .hostile_values import MODEL, SENSE, VALUES, VOCAB, tensor, tokens
from .op_cases import CASES, Case, literal
from .small_models import Connection

# -- arguments that fit together: an op's are those of its cases


def size(rng: Random) -> int:
    return rng.choice((1, 1, 2, 3, 5, 8, 17, 33))


def any_tensor(rng: Random) -> str:
    return tensor(rng, *(size(rng) for _ in range(rng.randint(1, 3))))


TYPES = {
    "boolean": bool,
    "integer": int,
    "double precision": float,
    "text": str,
    "integer[]": list,
    "jsonb": dict,
}


def takes(types: list[str], case: Case) -> bool:
    """Whether a function of these arguments, dout apart, is the case's op: on tensors or on bytea."""
    n = len(case.shapes)
    given = [*case.constants, *(case.sizes or ())] if "bytea" in types else case.constants
    return (
        not case.sql
        and (case.sizes is not None or "bytea" not in types)
        and set(types[:n]) <= {"tensor", "bytea"}
        and not {"tensor", "bytea"} & set(types[n:])
        and len(given) <= len(types) - n
        and all(TYPES.get(t) is type(value) for t, value in zip(types[n:], given, strict=False))
    )


def op_arguments(rng: Random, name: str, types: list[str]) -> list[str] | None:
    """From one of the op's cases, defaults at the end left out; None: it has no case for these types."""
    is_backward = name.endswith("_backward")
    op, own = name.removesuffix("_backward").removeprefix("pg_llm_"), types[is_backward:]
    cases = [case for case in CASES if case.op == op and takes(own, case)]
    if not cases:
        return None
    case = rng.choice(cases)
    inputs = [tensor(rng, *shape) for shape in case.shapes]
    if is_backward and types[0] == "double precision":
        inputs.insert(0, "0.5")
    elif is_backward:
        inputs.insert(0, tensor(rng, *case.expected().shape))
    sizes = (case.sizes or ()) if "bytea" in types else ()
    return [*inputs, *map(literal, (*case.constants, *sizes))]


# -- and those of functions that are no ops: by name

Family = Callable[[Random], list[str]]


def optimizer(rng: Random) -> list[str]:
    shape = (size(rng), size(rng))
    moment = f"pg_llm_full('{{{shape[0]},{shape[1]}}}', 0.1)"
    return [*(tensor(rng, *shape) for _ in range(3)), moment, "0.01", "0.9", "0.99", "1e-8", "0.1", "3"]


def fed(rng: Random) -> list[str]:
    w = any_tensor(rng)
    return [f"'{MODEL}'", rng.choice(("'wte.weight'", "'x'")), "0", w, rng.choice(("NULL", w)), "NULL"]


FAMILIES: dict[str, Family] = {
    "pg_llm_adamw_step": optimizer,
    "pg_llm_arena_put": fed,
    "pg_llm_penalize": lambda rng: [tensor(rng, VOCAB), tokens(rng), "1.1", "0.1", "0.1"],
}


@dataclass
class Function:
    """A function of the schema: how it is called, and with what."""

    name: str
    signature: str
    kind: str
    types: list[str]
    names: list[str]

    def sensible(self, rng: Random) -> list[str]:
        """Arguments that should work, where we know some."""
        family = FAMILIES.get(self.name)
        known = family(rng) if family else op_arguments(rng, self.name, self.types)
        if known is not None:
            typed = [f"{a}::{t}" if t == "bytea" else a for a, t in zip(known, self.types, strict=False)]
            return typed + [self.sense(rng, i) for i in range(len(known), len(self.types))]
        return [self.sense(rng, i) for i in range(len(self.types))]

    @property
    def is_forward(self) -> bool:
        """Whether it computes with tensors, and from arguments of which we know that they fit."""
        return (
            "tensor" in self.types
            and not self.name.endswith("_backward")
            and (self.name in FAMILIES or op_arguments(Random(0), self.name, self.types) is not None)
        )

    def sense(self, rng: Random, i: int) -> str:
        sense = SENSE.get(self.names[i]) if i < len(self.names) else None
        if self.types[i] == "tensor":
            return any_tensor(rng)
        if self.name == "llm_create_model" and self.names[i] == "model":
            return "'another'"
        if self.types[i] in ("integer[]",) and self.names[i : i + 1] in (["target"], ["targets"]):
            return SENSE["tokens"](rng)
        if self.names[i : i + 1] == ["optimizer"] and self.types[i] == "text":
            return rng.choice(("'keep'", "'drop'"))
        return sense(rng) if sense is not None else rng.choice(VALUES[self.types[i]][:4])

    def hostile(self, rng: Random, i: int) -> str:
        return "NULL" if rng.random() < 0.08 else rng.choice(VALUES[self.types[i]])

    def call(self, rng: Random) -> str:
        """A statement: half are sensible, a quarter has one absurd argument, a quarter nothing else."""
        arguments = self.sensible(rng)
        roll = rng.random()
        if roll > 0.5 and arguments:
            chosen = range(len(arguments)) if roll > 0.75 else [rng.randrange(len(arguments))]
            for i in chosen:
                arguments[i] = self.hostile(rng, i)
        typed = ", ".join(
            a if t in ("anyarray", '"any"') else f"({a})::{t}"
            for a, t in zip(arguments, self.types, strict=True)
        )
        if self.kind == "p":
            return f"CALL {self.name}({typed})"
        if self.kind == "a":
            return f"SELECT {self.name}({typed}) FROM generate_series(0, {rng.randrange(4)}) HAVING true"
        return f"SELECT count(*) FROM {self.name}({typed}) q"


NOT_CALLABLE = {"internal", "trigger"}


def functions(conn: Connection) -> list[Function]:
    """All of schema public that SQL can call."""
    rows = conn.execute(
        """SELECT p.proname, p.oid::regprocedure::text, p.prokind,
            ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY a (t, i) ORDER BY i),
            COALESCE(p.proargnames, '{}'), p.proargmodes, format_type(p.prorettype, NULL)
        FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace ORDER BY 2"""
    ).fetchall()
    return [
        Function(
            name,
            signature,
            kind,
            types,
            [n for n, m in zip(names, modes or "i" * len(names), strict=True) if m in "ib"],
        )
        for name, signature, kind, types, names, modes, result in rows
        if not NOT_CALLABLE & {*types, result}
    ]
