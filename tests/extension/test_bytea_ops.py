"""Every op has an overload on bytea, forward and backward, with the same bits as on tensors.

The cases stand in op_cases.py; test_ops.py holds the values themselves against NumPy.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import psycopg
import pytest

from ..support.op_cases import CASES, SEED, Case

Connection = psycopg.Connection[Any]

# Arrangements of axes, which bytes do not have: substring() and || are bytea's own.
SHAPES_ONLY = {"pg_llm_reshape", "pg_llm_slice", "pg_llm_concat", "pg_llm_last"}
# Work on the tape, a model in memory or a file; make tensors; carry operators between a tensor and a number.
NOT_OPS = re.compile(
    r"pg_llm_(arena|autograd|file|fingerprint|gen|tape|tensor|sum_accum|sum_final|avg_final|number|grad|param|megatron|item|normal|full)"
    r"|pg_llm_(add|sub|mul|div)_number|pg_llm_(apply|penalize|top_tokens|ranks|memo_put|to_bf16|to_float32)"
)


def bits(values: Any) -> list[bytes]:
    """Tensors, bytes and numbers alike as little-endian float32."""
    return [v if isinstance(v, bytes) else np.asarray(v, "<f4").tobytes() for v in values]


@pytest.mark.parametrize("suffix", ["", "_backward"], ids=["forward", "backward"])
@pytest.mark.parametrize("case", [case for case in CASES if case.sizes is not None], ids=str)
def test_same_bits(conn: Connection, case: Case, suffix: str) -> None:
    if suffix and case.forward_only:
        return
    inputs = case.inputs()
    output = case.expected(*inputs)
    dout = np.random.default_rng(SEED + 1).standard_normal(output.shape).astype(np.float32)
    named = {f"x{i}": x for i, x in enumerate(inputs)} | {"dout": dout}
    tensors = [f"%(x{i})s::tensor" for i in range(len(inputs))]
    raw = [f"{x}::bytea" for x in tensors]
    if suffix:
        tensors.insert(0, "%(dout)s::tensor")
        raw.insert(0, f"%(dout)s::tensor::{'bytea' if output.ndim else 'double precision'}")
    conn.execute("BEGIN")
    conn.execute("SELECT pg_llm_pass_begin(1, 2, 0)")  # dropout is keyed by the pass
    calls = case.call(tensors, suffix=suffix), case.call(raw, suffix=suffix, sizes=case.sizes or ())
    expected, got = (conn.execute(f"SELECT * FROM {c}", named, binary=True).fetchone() for c in calls)
    conn.execute("ROLLBACK")
    assert expected is not None
    assert got is not None
    assert len(got) == len(expected) == (len(inputs) if suffix else 1)
    assert bits(got) == bits(expected)


def test_every_op_has_an_overload(conn: Connection) -> None:
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
    assert ops - SHAPES_ONLY <= {f"pg_llm_{case.op}" for case in CASES if case.sizes is not None}
    assert ops | {f"{name}_backward" for name in ops} <= on_tensor


def test_sample_takes_bytes(conn: Connection) -> None:
    logits = np.random.default_rng(SEED).standard_normal(50).astype(np.float32)
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
        (f"pg_llm_activation({FOUR}, 'mish')", "22023"),
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
