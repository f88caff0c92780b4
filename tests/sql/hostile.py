"""Random calls of every SQL function of ours: arguments that fit together, and what is done to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .hostile_values import MODEL, SENSE, VALUES, VOCAB, tensor, tokens
from .small_models import Connection

# -- arguments that fit together, for ops: by name and number of arguments of the forward

Family = Callable[[Random], list[str]]


def size(rng: Random) -> int:
    return rng.choice((1, 1, 2, 3, 5, 8, 17, 33))


def linear(rng: Random) -> list[str]:
    n, i, o = size(rng), size(rng), size(rng)
    return [tensor(rng, n, i), tensor(rng, i, o), tensor(rng, o)]


def head(rng: Random) -> list[str]:
    n, d, vocab = size(rng), size(rng), size(rng)
    targets = ",".join(str(rng.randrange(-1, vocab)) for _ in range(n))
    return [tensor(rng, n, d), tensor(rng, vocab, d), f"'{{{targets}}}'"]


def norm(rng: Random) -> list[str]:
    n, d = size(rng), size(rng)
    return [tensor(rng, n, d), tensor(rng, d), tensor(rng, d), "1e-5"]


def pair(rng: Random) -> list[str]:
    n, d = size(rng), size(rng)
    return [tensor(rng, n, d), tensor(rng, *rng.choice(((n, d), (d,), (1, d), (n, 1), ())))]


def heads(rng: Random) -> tuple[int, int, int]:
    n_head = rng.choice((1, 2, 3))
    return size(rng), n_head, n_head * rng.choice((1, 2, 5, 16))


def attention(rng: Random, inputs: int) -> list[str]:
    t, n_head, d = heads(rng)
    x = [tensor(rng, rng.choice((1, 2)), t, 3 * d)] if inputs == 1 else [tensor(rng, t, d) for _ in range(3)]
    return [*x, str(n_head), rng.choice(("0", "0.2")), rng.choice(("true", "false")), "'s'"]


def attention_block(rng: Random) -> list[str]:
    t, n_head, d = heads(rng)
    shapes = ((t, d), (d, 3 * d), (3 * d,), (d, d), (d,))
    return [*(tensor(rng, *shape) for shape in shapes), str(n_head), str(t), str(d)]


def any_tensor(rng: Random) -> str:
    return tensor(rng, *(size(rng) for _ in range(rng.randint(1, 3))))


def logits(rng: Random) -> list[str]:
    n, vocab = size(rng), size(rng)
    targets = ",".join(str(rng.randrange(-1, vocab)) for _ in range(n))
    return [tensor(rng, n, vocab), f"'{{{targets}}}'"]


def sliced(rng: Random) -> list[str]:
    return [
        tensor(rng, size(rng), size(rng)),
        rng.choice("01"),
        rng.choice(("0", "1", "-2")),
        rng.choice(("2", "-1")),
    ]


def optimizer(rng: Random) -> list[str]:
    shape = (size(rng), size(rng))
    w, g, m = (tensor(rng, *shape) for _ in range(3))
    return [
        w,
        g,
        m,
        f"pg_llm_full('{{{shape[0]},{shape[1]}}}', 0.1)",
        "0.01",
        "0.9",
        "0.99",
        "1e-8",
        "0.1",
        "3",
    ]


def concatenated(rng: Random) -> list[str]:
    d = size(rng)
    return [tensor(rng, size(rng), d), tensor(rng, size(rng), d), "0"]


def fed(rng: Random) -> list[str]:
    w = any_tensor(rng)
    return [f"'{MODEL}'", rng.choice(("'wte.weight'", "'x'")), "0", w, rng.choice(("NULL", w)), "NULL"]


FAMILIES: dict[tuple[str, int], Family] = {
    ("pg_llm_embedding", 2): lambda rng: [tensor(rng, VOCAB, size(rng)), tokens(rng)],
    ("pg_llm_linear", 3): linear,
    ("pg_llm_linear", 2): lambda rng: linear(rng)[:2],
    ("pg_llm_matmul", 2): lambda rng: linear(rng)[:2],
    ("pg_llm_layernorm", 4): norm,
    ("pg_llm_lm_head", 2): lambda rng: head(rng)[:2],
    ("pg_llm_lm_head_loss", 3): head,
    ("pg_llm_cross_entropy", 2): logits,
    ("pg_llm_causal_attention", 5): lambda rng: attention(rng, 1),
    ("pg_llm_causal_attention", 7): lambda rng: attention(rng, 3),
    ("pg_llm_attention", 8): attention_block,
    ("pg_llm_slice", 4): sliced,
    ("pg_llm_concat", 3): concatenated,
    ("pg_llm_reshape", 2): lambda rng: [tensor(rng, 2, 6), rng.choice(("'{3,4}'", "'{-1}'", "'{2,-1,3}'"))],
    ("pg_llm_transpose", 1): lambda rng: [tensor(rng, size(rng), size(rng))],
    ("pg_llm_transpose", 3): lambda rng: [tensor(rng, 2, 6), "3", "4"],
    ("pg_llm_last", 1): lambda rng: [tensor(rng, size(rng), size(rng))],
    ("pg_llm_dropout", 4): lambda rng: [any_tensor(rng), "0.3", "true", "'s'"],
    ("pg_llm_activation", 2): lambda rng: [any_tensor(rng), rng.choice(("'gelu'", "'gelu_new'", "'relu'"))],
    ("pg_llm_rmsnorm", 2): lambda rng: [any_tensor(rng), "1e-5"],
    ("pg_llm_adamw_step", 10): optimizer,
    ("pg_llm_arena_put", 6): fed,
    ("pg_llm_penalize", 5): lambda rng: [tensor(rng, VOCAB), tokens(rng), "1.1", "0.1", "0.1"],
    **{(f"pg_llm_{name}", 2): pair for name in ("add", "sub", "mul", "div")},
    **{
        (f"pg_llm_{name}", 1): lambda rng: [any_tensor(rng)]
        for name in ("neg", "gelu", "gelu_exact", "relu", "softmax", "sum", "mean")
    },
}


def byte_family(name: str, rng: Random) -> list[str] | None:
    """The same on bytea with explicit sizes; arguments are named as in the extension."""
    n, i, o = size(rng), size(rng), size(rng)

    def raw(*shape: int) -> str:
        return tensor(rng, *shape) + "::bytea"

    sizes = [str(n), str(i), str(o)]
    x, pairs = raw(n, i), [raw(n, i), raw(n, i)]
    t, n_head, d = heads(rng)
    targets = "'{" + ",".join(str(rng.randrange(i)) for _ in range(n)) + "}'"
    block = [raw(t, d), raw(d, 3 * d), raw(3 * d), raw(d, d), raw(d), str(n_head), str(t), str(d)]
    known: dict[str, list[str]] = {
        "pg_llm_matmul/5": [x, raw(i, o), *sizes],
        "pg_llm_matmul_backward/6": [raw(n, o), x, raw(i, o), *sizes],
        "pg_llm_linear/6": [x, raw(i, o), raw(o), *sizes],
        "pg_llm_transpose/3": [x, str(n), str(i)],
        "pg_llm_softmax/3": [x, str(n), str(i)],
        "pg_llm_softmax_backward/4": [*pairs, str(n), str(i)],
        "pg_llm_rmsnorm/4": [x, "1e-5", str(n), str(i)],
        "pg_llm_layernorm/4": [x, raw(i), raw(i), "1e-5"],
        "pg_llm_layernorm_backward/5": [*pairs, raw(i), raw(i), "1e-5"],
        "pg_llm_embedding/4": [raw(VOCAB, i), tokens(rng), str(VOCAB), str(i)],
        "pg_llm_attention/8": block,
        "pg_llm_cross_entropy/2": [raw(i), str(rng.randrange(i))],
        "pg_llm_cross_entropy/4": [x, targets, str(n), str(i)],
        "pg_llm_adamw_step/10": [e + "::bytea" for e in optimizer(rng)[:4]] + optimizer(rng)[4:],
        "pg_llm_add/2": pairs,
        "pg_llm_linear/5": [x, raw(i, o), *sizes],
        "pg_llm_linear_backward/6": [raw(n, o), x, raw(i, o), *sizes],
        "pg_llm_linear_backward/7": [raw(n, o), x, raw(i, o), raw(o), *sizes],
        "pg_llm_lm_head/5": [x, raw(o, i), str(n), str(i), str(o)],
        "pg_llm_lm_head_backward/6": [raw(n, o), x, raw(o, i), str(n), str(i), str(o)],
        "pg_llm_embedding_backward/5": [raw(2, i), raw(VOCAB, i), "'{1,1}'", str(VOCAB), str(i)],
        "pg_llm_transpose_backward/4": [*pairs, str(n), str(i)],
        "pg_llm_rmsnorm_backward/5": [*pairs, "1e-5", str(n), str(i)],
        "pg_llm_cross_entropy_backward/5": ["0.5", x, targets, str(n), str(i)],
        "pg_llm_attention_backward/9": [raw(t, d), *block],
        "pg_llm_causal_attention/4": [raw(t, 3 * d), str(n_head), str(t), str(d)],
        "pg_llm_causal_attention/6": [*(raw(t, d) for _ in "qkv"), str(n_head), str(t), str(d)],
        "pg_llm_causal_attention_backward/5": [raw(t, d), raw(t, 3 * d), str(n_head), str(t), str(d)],
        "pg_llm_causal_attention_backward/7": [*(raw(t, d) for _ in "dqkv"), str(n_head), str(t), str(d)],
        "pg_llm_dropout/4": [x, "0.3", "true", "'s'"],
        "pg_llm_dropout_backward/5": [*pairs, "0.3", "true", "'s'"],
        "pg_llm_activation/2": [x, "'gelu'"],
        "pg_llm_activation_backward/3": [*pairs, "'gelu'"],
        **{f"pg_llm_{op}/2": pairs for op in ("sub", "mul", "div")},
        **{f"pg_llm_{op}_backward/3": [*pairs, x] for op in ("add", "sub", "mul", "div")},
        **{f"pg_llm_{op}_backward/2": pairs for op in ("gelu", "gelu_exact", "relu", "neg")},
    }
    return known.get(name)


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
        forward, is_backward = self.name.removesuffix("_backward"), self.name.endswith("_backward")
        if (
            "bytea" in self.types
            and (known := byte_family(f"{self.name}/{len(self.types)}", rng)) is not None
        ):
            return known
        family = FAMILIES.get((forward, len(self.types) - is_backward))
        if family is not None and "tensor" in self.types:
            arguments = family(rng)
            if self.types[-1] == "integer" and self.name == "pg_llm_cross_entropy":
                return [tensor(rng, 5), "3"]
            if not is_backward:
                return arguments
            typed = [f"{a}::{t}" for a, t in zip(arguments, self.types[1:], strict=True)]
            return [f"{forward}({', '.join(typed)})", *arguments]
        return [self.sense(rng, i) for i in range(len(self.types))]

    def sense(self, rng: Random, i: int) -> str:
        sense = SENSE.get(self.names[i]) if i < len(self.names) else None
        if self.types[i] == "tensor":
            return any_tensor(rng)
        if self.name == "llm_create_model" and self.names[i] == "model":
            return "'another'"
        if self.types[i] in ("integer[]",) and self.names[i : i + 1] in (["target"], ["targets"]):
            return SENSE["tokens"](rng)
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
