"""Every op as SQL, the tape and the graph reach it: its inputs, its constants, NumPy's formula in float64.

test_ops.py holds values and gradients against NumPy, test_bytea_ops.py the bits of the overload on bytea
against those on tensors, tests/graph/test_ops.py the graph's node, and hostile.py takes sensible arguments
here. Each fails for an op of pg_llm_ops() without a case. An activation needs none: its cases follow from
ACTIVATIONS in tests/reference/ops.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_sql import graph as g

from ..reference import ops

Array = NDArray[Any]
SEED = 20


def positive(x: Array) -> Array:
    return np.abs(x) + 0.5


def away_from_zero(x: Array) -> Array:
    return x + np.sign(x) * 0.1


@dataclass(frozen=True)
class Case:
    """pg_llm_<op> of random tensors of these shapes, followed by constants."""

    op: str
    shapes: Sequence[tuple[int, ...]]
    numpy: Callable[..., Any]
    """Of the inputs and constants, in float64."""
    constants: Sequence[Any] = ()
    """Each of the Python type of its SQL argument: 2 is an integer, 2.0 double precision, a dict jsonb."""
    sizes: Sequence[int] | None = None
    """What the overload on bytea takes after the constants; None: bytea has no such form."""
    node: Callable[..., g.Node] | None = None
    """The graph's function of inputs and constants."""
    sql: str | None = None
    """Another form than the call; {0} and {1} stand for the inputs."""
    prepare: Callable[[Array], Array] | None = None
    """Moves the inputs to where the op is smooth."""
    forward_only: bool = False
    """A form without a _backward of its own; the tape differentiates it."""
    drawn: bool = False
    """Random numbers act on the values, not on the shape: numpy gives no more than that."""

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) or "()" for shape in self.shapes)
        return f"{self.op}-{self.sql or shapes}{''.join(f'-{c}' for c in self.constants)}"

    def inputs(self) -> list[NDArray[np.float32]]:
        rng = np.random.default_rng(SEED)
        arrays = [rng.normal(size=shape) for shape in self.shapes]
        return [(self.prepare(a) if self.prepare else a).astype(np.float32) for a in arrays]

    def expected(self, *inputs: Array) -> Array:
        """What NumPy computes of the inputs, as float64."""
        wide = [x.astype(np.float64) for x in inputs or self.inputs()]
        return np.asarray(self.numpy(*wide, *self.constants))

    def call(self, inputs: Sequence[str], *, suffix: str = "", sizes: Sequence[int] = ()) -> str:
        """The SQL of a call with these inputs, of which dout is the first when the suffix is "_backward"."""
        if self.sql and not suffix:
            return self.sql.format(*inputs)
        return f"pg_llm_{self.op}{suffix}({', '.join([*inputs, *map(literal, (*self.constants, *sizes))])})"


def literal(value: Any) -> str:
    """A constant in SQL."""
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, dict):
        return f"'{json.dumps(value)}'::jsonb"
    if isinstance(value, list):
        return "'" + str(value).replace("[", "{").replace("]", "}").replace(" ", "") + "'::int[]"
    return str(value).lower()


def named_activation(x: Array, name: str) -> Array:
    [activation] = [a for a in ops.ACTIVATIONS.values() if name in a.names]
    return activation.forward(x)


def concatenate(a: Array, b: Array, axis: int) -> Array:
    return np.concatenate([a, b], axis)


def rms_norm_gain(x: Any, gain: Any, eps: float = 1e-5) -> g.Node:
    return g.rms_norm(x, eps, gain)


TARGETS = [3, -1, 10, 0, 3]
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

CASES = [
    Case("embedding", [(5, 3)], ops.embedding, [[2, 0, 2, 4]], [5, 3], g.embedding),
    Case("embedding", [(5, 7)], ops.embedding, [[[1, 1], [0, 4]]], None, g.embedding),
    # linear algebra
    Case("linear", [(2, 3, 5), (5, 4), (4,)], ops.linear, (), [6, 5, 4], g.linear),
    Case("linear", [(5,), (5, 17), (17,)], ops.linear, (), [1, 5, 17], g.linear),
    Case("linear", [(5, 19), (19, 23), (23,)], ops.linear, (), [5, 19, 23]),
    Case("linear", [(3, 33), (33, 2)], ops.linear, (), [3, 33, 2], g.linear),
    Case("matmul", [(3, 4), (4, 5)], np.matmul, (), [3, 4, 5], g.matmul),
    Case("matmul", [(1, 1), (1, 1)], np.matmul, (), [1, 1, 1]),
    Case("matmul", [(7, 129), (129, 3)], np.matmul, (), [7, 129, 3]),
    Case("matmul", [(1, 300), (300, 5)], np.matmul, (), [1, 300, 5]),
    Case("matmul", [(65, 17), (17, 1)], np.matmul, (), [65, 17, 1]),
    Case("matmul", [(2, 1, 3, 4), (3, 4, 5)], np.matmul, node=g.matmul, sql="{0} @ {1}"),
    Case("matmul", [(2, 3, 4), (4, 5)], np.matmul, node=g.matmul, sql="{0} @ {1}"),
    Case("matmul", [(4,), (2, 4, 3)], np.matmul, sql="{0} @ {1}"),
    Case("matmul", [(2, 3, 4), (4,)], np.matmul, sql="{0} @ {1}"),
    Case("matmul", [(4,), (4,)], np.matmul, sql="{0} @ {1}"),
    Case("lm_head", [(2, 3, 5), (11, 5)], ops.lm_head, (), [6, 5, 11], g.lm_head),
    # positions
    Case("rotary", [(2, 5, 24)], ops.rotary, [3, 100.0, 0, [0, 1, 2, 3, 9]], None, g.rotary),
    Case("rotary", [(5, 24)], ops.rotary, [2, 10000.0, 6, [4, 0, 1, 700, 2], {}], [5, 24], g.rotary),
    Case("rotary", [(5, 24)], ops.rotary, [1, 1e4, 0, [0, 1, 2, 3, 4], LINEAR], [5, 24], g.rotary),
    Case("rotary", [(2, 3, 32)], ops.rotary, [1, 1e4, 0, [0, 1, 2, 30, 31, 32], LLAMA3], None, g.rotary),
    # elementwise
    *(
        Case(name, [(37,), (37,)], formula, (), [], prepare=positive)
        for name, formula in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide))
    ),
    Case("add", [(2, 3, 4), (3, 1)], np.add, node=g.add, sql="{0} + {1}"),
    Case("add", [(2, 3)], lambda a: a + 2.5, sql="{0} + 2.5"),
    Case("sub", [(3, 1), (2, 1, 4)], np.subtract, node=g.sub, sql="{0} - {1}"),
    Case("sub", [(2, 3)], lambda a: 1.5 - a, sql="1.5 - {0}"),
    Case("mul", [(2, 3, 4), (4,)], np.multiply, node=g.mul, sql="{0} * {1}"),
    Case("mul", [(), (2, 3)], np.multiply, node=g.mul, sql="{0} * {1}"),
    Case("div", [(2, 3), (2, 1)], np.divide, node=g.div, sql="{0} / {1}", prepare=positive),
    Case("neg", [(2, 3)], np.negative, node=g.neg, sql="-{0}"),
    Case("neg", [(37,)], np.negative, (), []),
    *(
        Case(name, [(3, 21)], activation.forward, (), [], getattr(g, name), prepare=away_from_zero)
        for name, activation in ops.ACTIVATIONS.items()
    ),
    *(
        Case(
            "activation",
            [(21,)],
            named_activation,
            [name],
            [],
            g.activation,
            prepare=away_from_zero,
        )
        for activation in ops.ACTIVATIONS.values()
        for name in activation.names
    ),
    Case("swiglu", [(3, 7), (3, 7)], ops.swiglu, (), [], g.swiglu),
    Case("swiglu", [(37,), (37,)], ops.swiglu, (), []),
    Case("dropout", [(3, 5)], lambda x, *_: x, [0.5], [], lambda x, p: g.dropout(x, p, training=False)),
    Case("dropout", [(37,)], lambda x, *_: x, [0.4, True, "here"], [], drawn=True),
    # rows
    Case("layernorm", [(2, 3, 19), (19,), (19,)], ops.layernorm, (), [], g.layer_norm),
    Case("layernorm", [(5, 7), (7,), (7,)], ops.layernorm, [0.1], [], g.layer_norm),
    Case("rmsnorm", [(3, 17)], ops.rmsnorm, [1e-05], [3, 17], g.rms_norm),
    Case("rmsnorm", [(5, 7)], ops.rmsnorm, [0.1], [5, 7], g.rms_norm),
    Case("rmsnorm", [(2, 3, 24), (8,)], ops.rmsnorm_gain, [0.1], [], rms_norm_gain),
    Case("rmsnorm", [(5, 19), (19,)], ops.rmsnorm_gain, (), [], rms_norm_gain),
    Case("l2_normalize", [(3, 35)], ops.l2_normalize, [True], [3, 35], g.l2_normalize),
    Case("l2_normalize", [(2, 3, 5)], ops.l2_normalize, (), None, g.l2_normalize),
    Case("l2_normalize", [(4, 6)], ops.l2_normalize, [False], [4, 6], g.l2_normalize),
    Case("softmax", [(3, 35)], ops.softmax, (), [3, 35], g.softmax),
    Case("softmax", [(4, 129)], ops.softmax, (), [4, 129]),
    # attention
    Case("causal_attention", [(2, 7, 6)] * 3, ops.attention, [2], None, g.causal_attention),
    Case("causal_attention", [(9, 12)] * 3, ops.attention, [3], [9, 12], g.causal_attention),
    Case("causal_attention", [(9, 3 * 15)], ops.fused_attention, [3], [9, 15], g.causal_attention_qkv),
    Case("causal_attention", [(2, 5, 3 * 4)], ops.fused_attention, [1], None, g.causal_attention_qkv),
    Case("causal_attention", [(2, 5, 12)], lambda qkv, *_: qkv[..., :4], [2, 0.2, True, "s"], drawn=True),
    Case("causal_attention", [(5, 6)] * 3, lambda q, *_: q, [2, 0.2, True, "s"], drawn=True),
    Case(
        "causal_attention",
        [(2, 7, 12), (2, 7, 6), (2, 7, 6)],
        ops.shared_attention,
        [4, 0.1, False, "", 2],
        None,
        g.causal_attention,
    ),
    Case(
        "causal_attention",
        [(40, 12), (40, 4), (40, 4)],
        ops.shared_attention,
        [3, 0.1, False, "", 1, 18],
        None,
        g.causal_attention,
    ),
    Case(
        "causal_attention",
        [(40, 3 * 8)],
        ops.fused_attention,
        [2, 0.1, False, "", 18],
        None,
        g.causal_attention_qkv,
    ),
    Case(
        "causal_attention",
        [(40, 6), (40, 3), (40, 3)],
        lambda q, *_: q,
        [2, 0.2, True, "s", 1, 18],
        drawn=True,
    ),
    Case(
        "bidirectional_attention",
        [(2, 7, 6)] * 3,
        ops.bidirectional_attention,
        [2],
        None,
        g.bidirectional_attention,
    ),
    Case(
        "bidirectional_attention",
        [(9, 12)] * 3,
        ops.bidirectional_attention,
        [3, 0.1, False, "", [4, 1, 4]],
        [9, 12],
        g.bidirectional_attention,
    ),
    Case(
        "bidirectional_attention",
        [(9, 6)] * 3,
        lambda q, *_: q,
        [2, 0.2, True, "s", [4, 3, 2]],
        [9, 6],
        drawn=True,
    ),
    Case(
        "attention",
        [(5, 4), (4, 12), (12,), (4, 4), (4,)],
        lambda *inputs: ops.attention_layer(*inputs[:6]),
        [2, 5, 4],
        [],
        g.attention,
    ),
    # one row for each sequence
    *(
        case
        for name, formula, node in (
            ("mean_pool", ops.mean_pool, g.mean_pool),
            ("cls_pool", ops.cls_pool, g.cls_pool),
        )
        for case in (
            Case(name, [(9, 21)], formula, [[1, 6, 2]], [9, 21], node),
            Case(name, [(5, 7)], formula, [[5]], [5, 7], node),
            Case(name, [(2, 3, 4, 5)], formula, (), None, node),
        )
    ),
    Case("pool", [(9, 21)], ops.pool, [[1, 6, 2], "mean"], [9, 21], g.pool),
    Case("pool", [(9, 21)], ops.pool, [[1, 6, 2], "cls"], [9, 21], g.pool),
    # losses
    Case("lm_head_loss", [(5, 7), (11, 7)], ops.lm_head_loss, [TARGETS], [5, 7, 11], g.lm_head_loss),
    Case("lm_head_loss", [(4, 5), (11, 5)], ops.lm_head_loss, [[1, -1, 10, 0]], [4, 5, 11]),
    Case("cross_entropy", [(5, 11)], ops.mean_cross_entropy, [TARGETS], [5, 11], g.cross_entropy),
    Case("cross_entropy", [(3, 18)], ops.mean_cross_entropy, [[3, -100, 0]], [3, 18]),
    Case("cross_entropy", [(5,)], ops.mean_cross_entropy, [2], [], forward_only=True),
    # shape
    Case("transpose", [(2, 3, 5)], lambda x: x.swapaxes(-1, -2), node=g.transpose),
    Case("transpose", [(5, 7)], np.transpose, (), [5, 7]),
    Case("transpose", [(3, 5)], lambda x, *_: x.T, [3, 5], forward_only=True),
    Case("reshape", [(2, 6)], np.reshape, [[4, -1]], None, g.reshape),
    Case("slice", [(2, 5, 3)], lambda x, *_: x[:, 1:-1], [-2, 1, -1], None, g.slice_axis),
    Case("concat", [(2, 3, 2), (2, 1, 2)], concatenate, [1], None, g.concat),
    Case("last", [(2, 3, 4)], lambda x: x[..., -1:, :], node=g.last),
    # sums
    Case("sum", [(3, 50)], np.sum, (), [], g.sum_all),
    Case("mean", [(3, 50)], np.mean, (), [], g.mean_all),
    # one value in both places: both shares of its gradient arrive
    Case("mul", [(3, 4)], lambda x: x * x, sql="pg_llm_mul(t.x, t.x)"),
    Case("matmul", [(4, 4)], lambda x: x @ x, sql="t.x @ t.x"),
    Case(
        "causal_attention",
        [(5, 6)],
        lambda x: ops.attention(x, x, x, 2),
        sql="pg_llm_causal_attention(t.x, t.x, t.x, 2)",
    ),
]

# Functions made of ops, differentiable and on bytea as these are.
COMPOSITES = {"attention", "activation", "pool"}
