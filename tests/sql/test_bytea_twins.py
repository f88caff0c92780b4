"""Every op on tensors has its twin on bytea, forward and backward, with the same bits.

The values themselves are held against NumPy in test_ops.py and test_bytea_ops.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest

Connection = psycopg.Connection[Any]
RNG_SEED = 31

# Arrangements of axes, which bytes do not have: substring() and || are bytea's own.
SHAPES_ONLY = {"pg_llm_reshape", "pg_llm_slice", "pg_llm_concat", "pg_llm_last"}
# Work on the tape, a model in memory or a file; make tensors; carry operators between a tensor and a number.
NOT_OPS = re.compile(
    r"pg_llm_(arena|autograd|file|gen|tape|tensor|sum_accum|sum_final|avg_final|number|grad|param|megatron|item|normal|full)"
    r"|pg_llm_(add|sub|mul|div)_number|pg_llm_(penalize|top_tokens)"
)


@dataclass(frozen=True)
class Twin:
    """One op: its bytea arguments by shape, what follows them, and the dimensions at the end."""

    op: str
    inputs: tuple[tuple[int, ...], ...]
    constants: str = ""
    dimensions: str = ""
    output: tuple[int, ...] = ()
    """Shape of the output, for dout; (): a number."""

    def call(self, suffix: str, inputs: list[str], constants: str) -> str:
        arguments = ", ".join(part for part in (*inputs, constants) if part)
        return f"pg_llm_{self.op}{suffix}({arguments})"


FLAT = (37,)
TWINS = [
    *(Twin(op, (FLAT, FLAT), output=FLAT) for op in ("add", "sub", "mul", "div")),
    *(Twin(op, (FLAT,), output=FLAT) for op in ("neg", "gelu", "gelu_exact", "relu")),
    *(Twin("activation", (FLAT,), f"'{name}'", output=FLAT) for name in ("gelu", "gelu_new", "relu")),
    Twin("dropout", (FLAT,), "0.4", output=FLAT),
    Twin("dropout", (FLAT,), "0.4, true, 'here'", output=FLAT),
    Twin("softmax", ((5, 7),), dimensions="5, 7", output=(5, 7)),
    Twin("layernorm", ((5, 7), (7,), (7,)), "1e-3", output=(5, 7)),
    Twin("rmsnorm", ((5, 7),), "1e-3", "5, 7", (5, 7)),
    Twin("matmul", ((5, 7), (7, 3)), dimensions="5, 7, 3", output=(5, 3)),
    Twin("linear", ((5, 7), (7, 3), (3,)), dimensions="5, 7, 3", output=(5, 3)),
    Twin("linear", ((5, 7), (7, 3)), dimensions="5, 7, 3", output=(5, 3)),
    Twin("transpose", ((5, 7),), dimensions="5, 7", output=(7, 5)),
    Twin("embedding", ((9, 4),), "'{8,0,8}'::int[]", "9, 4", (3, 4)),
    Twin("causal_attention", ((6, 8), (6, 8), (6, 8)), "2", "6, 8", (6, 8)),
    Twin("causal_attention", ((6, 24),), "2", "6, 8", (6, 8)),
    Twin("attention", ((6, 8), (8, 24), (24,), (8, 8), (8,)), "2, 6, 8", output=(6, 8)),
    Twin("lm_head", ((5, 7), (11, 7)), dimensions="5, 7, 11", output=(5, 11)),
    Twin("lm_head_loss", ((5, 7), (11, 7)), "'{3,-1,10,0,3}'::int[]", "5, 7, 11"),
    Twin("cross_entropy", ((5, 11),), "'{3,-1,10,0,3}'::int[]", "5, 11"),
    Twin("sum", (FLAT,)),
    Twin("mean", (FLAT,)),
]


def bits(values: Any) -> list[bytes]:
    """Tensors, bytes and numbers alike as little-endian float32."""
    return [v if isinstance(v, bytes) else np.asarray(v, "<f4").tobytes() for v in values]


@pytest.mark.parametrize("twin", TWINS, ids=lambda t: f"{t.op}-{len(t.inputs)}-{t.constants}")
def test_same_bits(conn: Connection, twin: Twin) -> None:
    rng = np.random.default_rng(RNG_SEED)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in twin.inputs]
    dout = rng.standard_normal(twin.output).astype(np.float32)
    named = {f"x{i}": a for i, a in enumerate(arrays)} | {"dout": dout}
    tensors = [f"%(x{i})s" for i in range(len(arrays))]
    raw = [f"%(x{i})s::tensor::bytea" for i in range(len(arrays))]
    of_tensor = "%(dout)s" if twin.output else "%(dout)s::tensor"
    of_raw = "%(dout)s::tensor::bytea" if twin.output else "%(dout)s::tensor::double precision"
    with_dimensions = ", ".join(part for part in (twin.constants, twin.dimensions) if part)
    # transposing a tensor takes no sizes, dropout is keyed by the pass
    for suffix, tensor_inputs, raw_inputs in (
        ("", tensors, raw),
        ("_backward", [of_tensor, *tensors], [of_raw, *raw]),
    ):
        conn.execute("BEGIN")
        conn.execute("SELECT pg_llm_pass_begin(1, 2, 0)")
        expected = conn.execute(
            f"SELECT * FROM {twin.call(suffix, tensor_inputs, twin.constants)}", named, binary=True
        ).fetchone()
        got = conn.execute(
            f"SELECT * FROM {twin.call(suffix, raw_inputs, with_dimensions)}", named, binary=True
        ).fetchone()
        conn.execute("ROLLBACK")
        assert expected is not None
        assert got is not None
        assert len(got) == len(expected) == (len(arrays) if suffix else 1)
        assert bits(got) == bits(expected)


def test_every_op_has_a_twin(conn: Connection) -> None:
    """By the catalog: every function of a tensor that is an op is there for bytea, under the same name."""
    rows = conn.execute(
        "SELECT proname, 'tensor'::regtype = ANY (proargtypes), 'bytea'::regtype = ANY (proargtypes)"
        " FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'"
        " AND proname LIKE 'pg\\_llm\\_%'"
    ).fetchall()
    on_tensor = {name for name, tensor, _ in rows if tensor and not NOT_OPS.match(name)}
    on_tensor |= {"pg_llm_grad_clip"}
    on_bytea = {name for name, _, raw in rows if raw}
    shapes_only = SHAPES_ONLY | {f"{name}_backward" for name in SHAPES_ONLY}
    assert shapes_only <= on_tensor
    assert on_tensor - shapes_only - on_bytea == set()
    ops = {f"pg_llm_{name}" for (name,) in conn.execute("SELECT name FROM pg_llm_ops()")}
    assert ops - SHAPES_ONLY <= {f"pg_llm_{twin.op}" for twin in TWINS}
    assert ops | {f"{name}_backward" for name in ops} <= on_tensor


def test_sample_takes_bytes(conn: Connection) -> None:
    logits = np.random.default_rng(RNG_SEED).standard_normal(50).astype(np.float32)
    query = (
        "SELECT pg_llm_sample(%(x)s{0}, 0.9, 10, 0.9, n), pg_llm_sample(%(x)s{0}, 0)"
        " FROM generate_series(1, 20) n"
    )
    expected = conn.execute(query.format(""), {"x": logits}).fetchall()
    assert conn.execute(query.format("::tensor::bytea"), {"x": logits}).fetchall() == expected
    assert conn.execute("SELECT pg_llm_sample(NULL::bytea)").fetchone() == (None,)


FOUR, EIGHT = "'\\x00000000'::bytea", "'\\x0000000000000000'::bytea"


@pytest.mark.parametrize(
    ("query", "state"),
    [
        (f"pg_llm_sub({FOUR}, {EIGHT})", "22023"),
        (f"pg_llm_add_backward({FOUR}, {EIGHT}, {EIGHT})", "22023"),
        (f"pg_llm_linear_backward({FOUR}, {FOUR}, {FOUR}, {EIGHT}, 1, 1, 1)", "22023"),
        (f"pg_llm_linear_backward({EIGHT}, {FOUR}, {FOUR}, {FOUR}, 1, 1, 1)", "22023"),
        (f"pg_llm_linear({FOUR}, {FOUR}, 2147483647, 2147483647, 2147483647)", "22023"),
        (f"pg_llm_embedding_backward({FOUR}, {FOUR}, '{{1}}', 1, 1)", "22003"),
        (f"pg_llm_cross_entropy_backward(1, {FOUR}, '{{1}}', 1, 1)", "22003"),
        (f"pg_llm_cross_entropy_backward('NaN', {FOUR}, '{{0}}', 0, 1)", "22023"),
        (f"pg_llm_causal_attention({FOUR}, {FOUR}, {FOUR}, 2, 1, 1)", "22023"),
        (f"pg_llm_causal_attention({EIGHT}, 1, 1, 1)", "22023"),
        (f"pg_llm_attention_backward({FOUR}, {FOUR}, {FOUR}, {FOUR}, {FOUR}, {FOUR}, 1, 1, 1)", "22023"),
        (f"pg_llm_dropout({FOUR}, 1.5, true)", "22023"),
        (f"pg_llm_activation({FOUR}, 'swish')", "22023"),
        ("pg_llm_activation('[1]', 'GELU')", "22023"),
        ("pg_llm_sample('\\x'::bytea)", "22023"),
    ],
)
def test_errors(conn: Connection, query: str, state: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(f"SELECT {query}")
    assert caught.value.sqlstate == state


def test_null_gives_null(conn: Connection) -> None:
    assert conn.execute(
        "SELECT pg_llm_dropout(NULL::bytea, 0.5), pg_llm_sum(NULL::bytea),"
        " pg_llm_lm_head(NULL::bytea, NULL, 1, 1, 1)"
    ).fetchone() == (None, None, None)
