"""Every op of the graph: that it calls the SQL function it names with its arguments where they belong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy.orm import Session

from llm_sql import graph as g

from ..reference import gpt2_numpy as reference

random = np.random.default_rng(5)
X, Y = random.standard_normal((2, 4, 6))
Q, K, V = random.standard_normal((3, 2, 4, 6))
GAIN, BIAS = 1 + random.standard_normal((2, 6)) / 4
WEIGHT = random.standard_normal((6, 5))
TABLE = random.standard_normal((7, 6))
IDS = [[3, 0, 6], [3, 3, 1]]
TARGETS = [1, -1, 4, 0]


def attended(x: Any, w_qkv: Any, b_qkv: Any, w_o: Any, b_o: Any) -> Any:
    q, k, v = np.split(x @ w_qkv + b_qkv, 3, axis=-1)
    return reference.causal_attention(q, k, v, 2) @ w_o + b_o


PROJECTIONS = (
    random.standard_normal((6, 18)),
    random.standard_normal(18),
    random.standard_normal((6, 6)),
    random.standard_normal(6),
)

# The op's name: the node, and what NumPy computes in float64.
CASES: dict[str, tuple[Callable[[], g.Node], Any]] = {
    "track": (lambda: g.track(X), X),
    "zeros_like": (lambda: g.zeros_like(X), X * 0),
    "ones_like": (lambda: g.ones_like(X), X * 0 + 1),
    "embedding": (lambda: g.embedding(TABLE, IDS), TABLE[IDS]),
    "positions": (lambda: g.positions(IDS), [[0, 1, 2], [0, 1, 2]]),
    "add": (lambda: g.add(X, GAIN), X + GAIN),
    "sub": (lambda: g.sub(X, GAIN), X - GAIN),
    "mul": (lambda: g.mul(X, GAIN), X * GAIN),
    "div": (lambda: g.div(X, GAIN), X / GAIN),
    "neg": (lambda: g.neg(X), -X),
    "matmul": (lambda: g.matmul(X, WEIGHT), X @ WEIGHT),
    "linear": (lambda: g.linear(X, WEIGHT, BIAS[:5]), X @ WEIGHT + BIAS[:5]),
    "transpose": (lambda: g.transpose(Q), np.swapaxes(Q, -1, -2)),
    "reshape": (lambda: g.reshape(X, [3, -1]), X.reshape(3, -1)),
    "slice_axis": (lambda: g.slice_axis(X, 1, 1, -2), X[:, 1:-2]),
    "concat": (lambda: g.concat(X, Y[:1], 0), np.concatenate([X, Y[:1]])),
    "last": (lambda: g.last(Q), Q[:, -1:]),
    "shape": (lambda: g.shape(Q), [2, 4, 6]),
    "item": (lambda: g.item(g.slice_axis(GAIN, 0, 2, 3)), GAIN[2]),
    "sum_all": (lambda: g.sum_all(X), X.sum()),
    "mean_all": (lambda: g.mean_all(X), X.mean()),
    "norm": (lambda: g.norm(X), np.linalg.norm(X)),
    "layer_norm": (lambda: g.layer_norm(X, GAIN, BIAS, 0.1), reference.layer_norm(X, GAIN, BIAS, 0.1)),
    "rms_norm": (lambda: g.rms_norm(X, 0.1), reference.rms_norm(X, 0.1)),
    "softmax": (lambda: g.softmax(X), reference.softmax(X)),
    "gelu": (lambda: g.gelu(X), reference.gelu(X)),
    "gelu_exact": (lambda: g.gelu_exact(X), reference.gelu_exact(X)),
    "activation": (lambda: g.activation(X, "gelu"), reference.gelu_exact(X)),
    "relu": (lambda: g.relu(X), np.maximum(X, 0)),
    "dropout": (lambda: g.dropout(X, 0.5, training=False, site="s"), X),
    "causal_attention": (
        lambda: g.causal_attention(np.concatenate([Q, K, V], axis=-1), 3, 0.5, False, "s"),
        reference.causal_attention(Q, K, V, 3),
    ),
    "causal_attention_qkv": (
        lambda: g.causal_attention_qkv(Q, K, V, 3, 0.5, False, "s"),
        reference.causal_attention(Q, K, V, 3),
    ),
    "attention": (lambda: g.attention(X, *PROJECTIONS, 2, 4, 6), attended(X, *PROJECTIONS)),
    "lm_head": (lambda: g.lm_head(X, TABLE), X @ TABLE.T),
    "lm_head_loss": (lambda: g.lm_head_loss(X, TABLE, TARGETS), reference.loss(X @ TABLE.T, TARGETS)),
    "cross_entropy": (lambda: g.cross_entropy(X, TARGETS), reference.loss(X, TARGETS)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_numpy_does(session: Session, name: str) -> None:
    build, expected = CASES[name]
    actual = np.asarray(session.execute(g.select(build())).scalar_one())
    assert actual.shape == np.shape(expected)
    assert np.allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_every_op_stands_here() -> None:
    assert g.OPS.keys() - {"tensor_id"} == CASES.keys()


def test_dropout_in_training_scales_what_it_keeps(session: Session) -> None:
    kept = session.execute(g.select(g.dropout(np.ones((40, 40)), 0.25, training=True, site="s"))).scalar_one()
    assert set(np.unique(kept)) == {np.float32(0), np.float32(4 / 3)}
    assert 0.2 < (kept == 0).mean() < 0.3


def test_every_differentiable_function_of_the_extension_has_an_op(conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute(
        "SELECT DISTINCT regexp_replace(proname, '_backward$', '') FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'pg\\_llm\\_%\\_backward'"
    ).fetchall()
    assert {row[0] for row in rows} <= {op.sql for op in g.OPS.values()}
