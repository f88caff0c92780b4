"""The op table, walked: every op's value against float64 NumPy, every gradient against central differences.

A case gives the SQL call over tracked tensors, the same in NumPy float64, and the shapes. The test fails for
an op that has no case, so that adding one to the table means adding it here; without its backward an op's
gradients cannot pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from .tensors import value

Array = NDArray[Any]
RNG_SEED = 20
STEP = 1e-6


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layernorm(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * gamma + beta


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_exact(x: Array) -> Array:
    return x * 0.5 * np.array([math.erfc(-v / math.sqrt(2)) for v in x.reshape(-1)]).reshape(x.shape)


def attention(q: Array, k: Array, v: Array, n_head: int) -> Array:
    def heads(x: Array) -> Array:
        return x.reshape(*x.shape[:-1], n_head, -1).swapaxes(-2, -3)

    q, k, v = heads(q), heads(k), heads(v)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    mask = np.tril(np.ones(scores.shape[-2:], dtype=bool))
    out = softmax(np.where(mask, scores, -np.inf)) @ v
    return out.swapaxes(-2, -3).reshape(*out.shape[:-3], out.shape[-2], -1)


def cross_entropy(logits: Array, targets: list[int]) -> Array:
    rows = logits.reshape(-1, logits.shape[-1])
    losses = [-np.log(softmax(row)[t]) for row, t in zip(rows, targets, strict=True) if t >= 0]
    return np.array(np.mean(losses))


def positive(x: Array) -> Array:
    return np.abs(x) + 0.5


def away_from_zero(x: Array) -> Array:
    return x + np.sign(x) * 0.1


@dataclass
class Case:
    op: str
    sql: str  # {0}, {1}, ... stand for the tracked tensors
    numpy: Callable[..., Array]
    shapes: list[tuple[int, ...]]
    prepare: dict[int, Callable[[Array], Array]] = field(default_factory=dict)


CASES = [
    Case("embedding", "pg_llm_embedding({0}, '{{2,0,2,4}}')", lambda w: w[[2, 0, 2, 4]], [(5, 3)]),
    Case(
        "embedding", "pg_llm_embedding({0}, '{{{{1,1}},{{0,4}}}}')", lambda w: w[[[1, 1], [0, 4]]], [(5, 7)]
    ),
    Case("linear", "pg_llm_linear({0}, {1}, {2})", lambda x, w, b: x @ w + b, [(2, 3, 5), (5, 4), (4,)]),
    Case("linear", "pg_llm_linear({0}, {1}, {2})", lambda x, w, b: x @ w + b, [(5,), (5, 17), (17,)]),
    Case("linear", "pg_llm_linear({0}, {1})", lambda x, w: x @ w, [(3, 33), (33, 2)]),
    Case("matmul", "pg_llm_matmul({0}, {1})", np.matmul, [(3, 4), (4, 5)]),
    Case("matmul", "{0} @ {1}", np.matmul, [(2, 1, 3, 4), (3, 4, 5)]),
    Case("matmul", "{0} @ {1}", np.matmul, [(2, 3, 4), (4, 5)]),
    Case("matmul", "{0} @ {1}", np.matmul, [(4,), (2, 4, 3)]),
    Case("matmul", "{0} @ {1}", np.matmul, [(2, 3, 4), (4,)]),
    Case("matmul", "{0} @ {1}", np.matmul, [(4,), (4,)]),
    Case("add", "{0} + {1}", np.add, [(2, 3, 4), (3, 1)]),
    Case("add", "{0} + 2.5", lambda a: a + 2.5, [(2, 3)]),
    Case("sub", "{0} - {1}", np.subtract, [(3, 1), (2, 1, 4)]),
    Case("sub", "1.5 - {0}", lambda a: 1.5 - a, [(2, 3)]),
    Case("mul", "{0} * {1}", np.multiply, [(2, 3, 4), (4,)]),
    Case("mul", "{0} * {1}", np.multiply, [(), (2, 3)]),
    Case("div", "{0} / {1}", np.divide, [(2, 3), (2, 1)], {1: positive}),
    Case("neg", "-{0}", np.negative, [(2, 3)]),
    Case("layernorm", "pg_llm_layernorm({0}, {1}, {2})", layernorm, [(2, 3, 19), (19,), (19,)]),
    Case(
        "rmsnorm",
        "pg_llm_rmsnorm({0}, 1e-5)",
        lambda x: x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5),
        [(3, 17)],
    ),
    Case("gelu", "pg_llm_gelu({0})", gelu, [(3, 21)]),
    Case("gelu_exact", "pg_llm_gelu_exact({0})", gelu_exact, [(3, 21)]),
    Case("gelu_exact", "pg_llm_activation({0}, 'gelu')", gelu_exact, [(21,)]),
    Case("gelu", "pg_llm_activation({0}, 'gelu_new')", gelu, [(21,)]),
    Case("relu", "pg_llm_relu({0})", lambda x: np.maximum(x, 0), [(3, 21)], {0: away_from_zero}),
    Case("softmax", "pg_llm_softmax({0})", softmax, [(3, 35)]),
    Case("dropout", "pg_llm_dropout({0}, 0.5)", lambda x: x, [(3, 5)]),
    Case(
        "causal_attention",
        "pg_llm_causal_attention({0}, {1}, {2}, 2)",
        lambda q, k, v: attention(q, k, v, 2),
        [(2, 7, 6), (2, 7, 6), (2, 7, 6)],
    ),
    Case(
        "causal_attention",
        "pg_llm_causal_attention({0}, 3)",
        lambda qkv: attention(*np.split(qkv, 3, axis=-1), 3),
        [(9, 3 * 15)],
    ),
    Case(
        "causal_attention",
        "pg_llm_attention({0}, {1}, {2}, {3}, {4}, 2, 5, 4)",
        lambda x, wi, bi, wo, bo: attention(*np.split(x @ wi + bi, 3, axis=-1), 2) @ wo + bo,
        [(5, 4), (4, 12), (12,), (4, 4), (4,)],
    ),
    Case("lm_head", "pg_llm_lm_head({0}, {1})", lambda x, w: x @ w.T, [(2, 3, 5), (11, 5)]),
    Case(
        "lm_head_loss",
        "pg_llm_lm_head_loss({0}, {1}, '{{1,-1,10,0}}')",
        lambda x, w: cross_entropy(x @ w.T, [1, -1, 10, 0]),
        [(4, 5), (11, 5)],
    ),
    Case(
        "cross_entropy",
        "pg_llm_cross_entropy({0}, ARRAY[3,-100,0])",
        lambda x: cross_entropy(x, [3, -100, 0]),
        [(3, 18)],
    ),
    Case("cross_entropy", "pg_llm_cross_entropy({0}, 2)", lambda x: cross_entropy(x, [2]), [(5,)]),
    Case("transpose", "pg_llm_transpose({0})", lambda x: x.swapaxes(-1, -2), [(2, 3, 5)]),
    Case("transpose", "pg_llm_transpose({0}, 3, 5)", lambda x: x.T, [(3, 5)]),
    Case("reshape", "pg_llm_reshape({0}, '{{4,-1}}')", lambda x: x.reshape(4, -1), [(2, 6)]),
    Case("slice", "pg_llm_slice({0}, -2, 1, -1)", lambda x: x[:, 1:-1], [(2, 5, 3)]),
    Case(
        "concat", "pg_llm_concat({0}, {1}, 1)", lambda a, b: np.concatenate([a, b], 1), [(2, 3, 2), (2, 1, 2)]
    ),
    Case("sum", "pg_llm_sum({0})", np.sum, [(3, 50)]),
    Case("mean", "pg_llm_mean({0})", np.mean, [(3, 50)]),
    Case("last", "pg_llm_last({0})", lambda x: x[..., -1:, :], [(2, 3, 4)]),
    # one value in both places: both shares of its gradient arrive
    Case("mul", "pg_llm_mul(t.x, t.x)", lambda x: x * x, [(3, 4)]),
    Case("matmul", "t.x @ t.x", lambda x: x @ x, [(4, 4)]),
    Case(
        "causal_attention",
        "pg_llm_causal_attention(t.x, t.x, t.x, 2)",
        lambda x: attention(x, x, x, 2),
        [(5, 6)],
    ),
]


def inputs_of(case: Case) -> list[Array]:
    rng = np.random.default_rng(RNG_SEED)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in case.shapes]
    return [case.prepare[i](a).astype(np.float32) if i in case.prepare else a for i, a in enumerate(arrays)]


def central_differences(f: Callable[..., Array], inputs: list[Array], weights: Array) -> list[Array]:
    """d sum(f(inputs) * weights) / d inputs, by (f(x + h) - f(x - h)) / 2h in float64."""
    inputs = [x.astype(np.float64) for x in inputs]
    gradients = []
    for x in inputs:
        gradient = np.empty(x.shape)
        for i in np.ndindex(x.shape):
            kept = x[i]
            x[i] = kept + STEP
            high = np.sum(f(*inputs) * weights)
            x[i] = kept - STEP
            gradient[i] = (high - np.sum(f(*inputs) * weights)) / (2 * STEP)
            x[i] = kept
        gradients.append(gradient)
    return gradients


def statement(case: Case) -> str:
    tracked = [f"pg_llm_autograd_track_tensor(%(x{i})s)" for i in range(len(case.shapes))]
    call = case.sql.format(*tracked)
    if "t.x" in call:
        return f"SELECT {call} AS y FROM (SELECT {tracked[0]} AS x OFFSET 0) t"
    return f"SELECT {call} AS y"


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.sql}")
def test_op(conn: psycopg.Connection[Any], case: Case) -> None:
    inputs = inputs_of(case)
    parameters: dict[str, Any] = {f"x{i}": x for i, x in enumerate(inputs)}
    expected = np.asarray(case.numpy(*[x.astype(np.float64) for x in inputs]))
    weights = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)

    (value,) = conn.execute(statement(case), parameters).fetchone()  # type: ignore[misc]
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)
    assert np.shape(value) == expected.shape

    conn.execute("SET pg_llm.autograd = on")
    conn.execute("SELECT pg_llm_tape_clear()")
    conn.execute(
        f"SELECT pg_llm_sum(pg_llm_mul(q.y, %(weights)s)) FROM ({statement(case)} OFFSET 0) q",
        {**parameters, "weights": weights},
    )
    conn.execute("SELECT pg_llm_backward_begin(NULL, NULL)")
    conn.execute("SELECT pg_llm_backward(id) FROM pg_llm_tape(false)")
    gradients = conn.execute(
        "SELECT pg_llm_grad_by_id(id) FROM pg_llm_tape_tensors() WHERE requires_grad"
        " AND id NOT IN (SELECT output FROM pg_llm_tape(false)) ORDER BY id"
    ).fetchall()
    assert len(gradients) == len(inputs)
    for (gradient,), reference in zip(
        gradients, central_differences(case.numpy, inputs, weights), strict=True
    ):
        np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=2e-5)


def test_every_op_has_a_case(conn: psycopg.Connection[Any]) -> None:
    table = {name for (name,) in conn.execute("SELECT name FROM pg_llm_ops()")} - {"linear_nobias"}
    assert table == {case.op for case in CASES}


def test_every_op_has_its_sql_functions(conn: psycopg.Connection[Any]) -> None:
    names = {name for (name,) in conn.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'pg_llm_%'")}
    for (op,) in conn.execute("SELECT DISTINCT name FROM pg_llm_ops()"):
        assert {f"pg_llm_{op}", f"pg_llm_{op}_backward"} <= names


def test_backward_functions_give_the_tape_s_gradients(conn: psycopg.Connection[Any]) -> None:
    rng = np.random.default_rng(3)
    x, w, b, dout = (rng.normal(size=s).astype(np.float32) for s in [(6, 5), (5, 4), (4,), (6, 4)])
    dx, dw, db = conn.execute(
        "SELECT * FROM pg_llm_linear_backward(%s, %s, %s, %s)", (dout, x, w, b)
    ).fetchone()  # type: ignore[misc]
    np.testing.assert_allclose(dx, dout @ w.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dw, x.T @ dout, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(db, dout.sum(0), rtol=1e-5, atol=1e-6)
    (dx,) = conn.execute("SELECT pg_llm_gelu_backward(%s, %s)", (np.ones_like(x), x)).fetchone()  # type: ignore[misc]
    (reference,) = central_differences(gelu, [x], np.ones_like(x))
    np.testing.assert_allclose(dx, reference, rtol=1e-5, atol=1e-6)


def test_dropout_outside_training_passes_its_input_through(conn: psycopg.Connection[Any]) -> None:
    for x in ("'[1,-2]'", "pg_llm_neg('[-1,2]')"):
        assert value(conn, f"SELECT pg_llm_dropout({x}, 0.5)::text") == "[1,-2]"
        assert value(conn, f"SELECT (pg_llm_dropout({x}, 0.5) + pg_llm_dropout({x}, 0.5))::text") == "[2,-4]"


def test_dropout_s_gradient_has_the_forward_s_mask(conn: psycopg.Connection[Any]) -> None:
    ones = np.ones((40, 50), dtype=np.float32)
    conn.execute("SET pg_llm.autograd = on")
    conn.execute("SELECT pg_llm_tape_clear()")
    (out, _) = conn.execute(  # type: ignore[misc]
        "SELECT y, pg_llm_sum(y)"
        " FROM (SELECT pg_llm_dropout(pg_llm_autograd_track_tensor(%s), 0.25, true) AS y OFFSET 0) q",
        (ones,),
    ).fetchone()
    conn.execute("SELECT pg_llm_backward_begin(NULL, NULL)")
    conn.execute("SELECT pg_llm_backward(id) FROM pg_llm_tape(false)")
    (gradient,) = conn.execute("SELECT pg_llm_grad_by_id(0)").fetchone()  # type: ignore[misc]
    np.testing.assert_array_equal(gradient, out)
    assert set(np.unique(out)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert 0.70 < (out > 0).mean() < 0.80


def test_a_null_argument_gives_null(conn: psycopg.Connection[Any]) -> None:
    row = conn.execute(
        "SELECT pg_llm_gelu(NULL), NULL::tensor + '[1]', pg_llm_linear('[1]', NULL, '[1]')"
    ).fetchone()
    assert row == (None, None, None)


@pytest.mark.parametrize(
    "call",
    [
        "pg_llm_linear('[1,2,3]', '[[1],[2]]')",
        "pg_llm_matmul('[[1,2]]', '[[1,2]]')",
        "'[1,2]'::tensor + '[1,2,3]'::tensor",
        "pg_llm_layernorm('[1,2]', '[1]', '[1]')",
        "pg_llm_causal_attention('[[1,2,3]]', 2)",
        "pg_llm_cross_entropy('[[1,2]]', ARRAY[0,1])",
        "pg_llm_slice('[1,2]', 1, 0, 1)",
        "pg_llm_reshape('[1,2]', '{3}')",
        "pg_llm_dropout('[1,2]', 1.0, true)",
        "pg_llm_dropout(pg_llm_neg('[1,2]'), 1.0)",
    ],
)
def test_shapes_that_do_not_fit_are_named(conn: psycopg.Connection[Any], call: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute(f"SELECT {call}")


def test_an_id_out_of_range_is_named(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="id 5 at position 2"):
        conn.execute("SELECT pg_llm_embedding('[[1],[2]]', '{0,5}')")


VOLATILE_C = "provolatile = 'v' AND proparallel IN ('r', 'u')"


def test_what_can_be_taped_is_volatile(conn: psycopg.Connection[Any]) -> None:
    """A planner that runs an op twice, early or not at all would falsify the tape."""
    for (op,) in conn.execute("SELECT DISTINCT name FROM pg_llm_ops()").fetchall():
        for row in conn.execute(
            f"SELECT oid::regprocedure, {VOLATILE_C} FROM pg_proc"
            " WHERE proname IN ('pg_llm_' || %s, 'pg_llm_' || %s) AND 'tensor'::regtype = ANY (proargtypes)",
            (op, f"{op}_backward"),
        ):
            assert row[1], row[0]
    operators = conn.execute(
        f"SELECT o.oid::regoperator, {VOLATILE_C} FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode"
        " WHERE oprname IN ('+', '-', '*', '/', '@') AND 'tensor'::regtype IN (oprleft, oprright)"
    ).fetchall()
    assert len(operators) == 14
    assert all(volatile for _, volatile in operators)


@pytest.mark.parametrize("wrong", ["'Infinity'", "'-Infinity'", "'NaN'"])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_attention_refuses_what_is_not_finite(conn: psycopg.Connection[Any], wrong: str, part: int) -> None:
    """A masked weight times infinity would be NaN in rows before the value's own."""
    rows = np.random.default_rng(RNG_SEED).normal(size=(40, 12)).astype(np.float32)
    number = {"'Infinity'": np.inf, "'-Infinity'": -np.inf, "'NaN'": np.nan}[wrong]
    damaged = rows.copy()
    damaged[33, 4 * part + 1] = number
    q, k, v = np.split(damaged, 3, axis=1)
    for query, values in (
        ("SELECT pg_llm_causal_attention(%s, 2)", (damaged,)),
        ("SELECT pg_llm_causal_attention(%s, %s, %s, 2)", (q, k, v)),
        ("SELECT pg_llm_causal_attention(%s::tensor::bytea, 2, 40, 4)", (damaged,)),
        (
            "SELECT pg_llm_attention(%s, tensor(%s::real[]), pg_llm_full('{12}', 0), pg_llm_full('{4,4}', 1),"
            " pg_llm_full('{4}', 0), 2, 40, 4)",
            (damaged[:, 4 * part : 4 * part + 4], np.ones((4, 12)).tolist()),
        ),
    ):
        with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="attention"):
            conn.execute(query, values)
    assert np.isfinite(conn.execute("SELECT pg_llm_causal_attention(%s, 2)", (rows,)).fetchone()[0]).all()  # type: ignore[index]
