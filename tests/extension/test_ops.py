"""The op table, walked: every op's value against float64 NumPy, every gradient against central differences.

The cases stand in op_cases.py. The test fails for an op without one; without its backward an op's gradients
cannot pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from ..reference import ops
from ..support import op_cases
from ..support.op_cases import CASES, COMPOSITES, SEED, Case
from ..support.tensors import value

Array = NDArray[Any]
STEP = 1e-6


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
    call = case.call(tracked)
    if "t.x" in call:
        return f"SELECT {call} AS y FROM (SELECT {tracked[0]} AS x OFFSET 0) t"
    return f"SELECT {call} AS y"


@pytest.mark.parametrize("case", [case for case in CASES if not case.drawn], ids=str)
def test_op(conn: psycopg.Connection[Any], case: Case) -> None:
    inputs = case.inputs()
    parameters: dict[str, Any] = {f"x{i}": x for i, x in enumerate(inputs)}
    expected = case.expected(*inputs)
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
    differences = central_differences(case.expected, inputs, weights)
    for (gradient,), difference in zip(gradients, differences, strict=True):
        np.testing.assert_allclose(gradient, difference, rtol=1e-4, atol=2e-5)


def test_every_op_has_a_case(conn: psycopg.Connection[Any]) -> None:
    table = {name for (name,) in conn.execute("SELECT name FROM pg_llm_ops()")}
    assert table | COMPOSITES == {case.op for case in CASES}


def test_every_op_has_its_sql_functions(conn: psycopg.Connection[Any]) -> None:
    names = {name for (name,) in conn.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'pg_llm_%'")}
    for (op,) in conn.execute("SELECT DISTINCT name FROM pg_llm_ops()"):
        assert {f"pg_llm_{op}", f"pg_llm_{op}_backward"} <= names


def test_backward_functions_give_the_same_gradients_as_the_tape(conn: psycopg.Connection[Any]) -> None:
    rng = np.random.default_rng(3)
    x, w, b, dout = (rng.normal(size=s).astype(np.float32) for s in [(6, 5), (5, 4), (4,), (6, 4)])
    dx, dw, db = conn.execute(
        "SELECT * FROM pg_llm_linear_backward(%s, %s, %s, %s)", (dout, x, w, b)
    ).fetchone()  # type: ignore[misc]
    np.testing.assert_allclose(dx, dout @ w.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dw, x.T @ dout, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(db, dout.sum(0), rtol=1e-5, atol=1e-6)
    (dx,) = conn.execute("SELECT pg_llm_gelu_backward(%s, %s)", (np.ones_like(x), x)).fetchone()  # type: ignore[misc]
    np.testing.assert_allclose(dx, ops.gelu_backward(np.ones_like(x), x), rtol=1e-5, atol=1e-6)


def test_dropout_outside_training_passes_its_input_through(conn: psycopg.Connection[Any]) -> None:
    for x in ("'[1,-2]'", "pg_llm_neg('[-1,2]')"):
        assert value(conn, f"SELECT pg_llm_dropout({x}, 0.5)::text") == "[1,-2]"
        assert value(conn, f"SELECT (pg_llm_dropout({x}, 0.5) + pg_llm_dropout({x}, 0.5))::text") == "[2,-4]"


def test_the_gradient_of_dropout_has_the_mask_of_the_forward(conn: psycopg.Connection[Any]) -> None:
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
    rows = np.random.default_rng(SEED).normal(size=(40, 12)).astype(np.float32)
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


ROTARY = "pg_llm_rotary('[[1,2,3,4],[5,6,7,8]]'::tensor, {})"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("3, 1e4, 0, '{0,1}'", "not divisible by 3 heads"),
        ("0, 1e4, 0, '{0,1}'", "not divisible by 0 heads"),
        ("1, 1e4, 3, '{0,1}'", "cannot turn 3 of the 4"),
        ("1, 1e4, 6, '{0,1}'", "cannot turn 6 of the 4"),
        ("4, 1e4, 0, '{0,1}'", "cannot turn 1 of the 1"),
        ("1, 1e4, -2, '{0,1}'", "cannot turn -2"),
        ("1, 0, 0, '{0,1}'", "theta must be"),
        ("1, 'NaN', 0, '{0,1}'", "theta must be"),
        ("1, 1e-300, 0, '{0,1}'", "theta must be"),
        ("1, 1e300, 0, '{0,1}'", "theta must be"),
        ("1, 1e4, 0, '{0,1,2}'", r"x \[2,4\], positions \[3\]"),
        ("1, 1e4, 0, '{}'", "cannot take the shapes"),
        ("1, 1e4, 0, '{0,1}', '[]'", "scaling is not a JSON object"),
        ("1, 1e4, 0, '{0,1}', '3'", "scaling is not a JSON object"),
        ("1, 1e4, 0, '{0,1}', '{\"rope_type\": \"yarn\"}'", 'the unknown type "yarn"'),
        ("1, 1e4, 0, '{0,1}', '{\"rope_type\": 2}'", "rope_type that is not a string"),
        ("1, 1e4, 0, '{0,1}', '{\"type\": \"linear\"}'", 'no number "factor"'),
        ('1, 1e4, 0, \'{0,1}\', \'{"type": "linear", "factor": 0}\'', "which is not at least 1"),
        ("1, 1e4, 0, '{0,1}', '{\"factor\": 2}'", 'unknown key "factor"'),
        ("1, 1e4, 0, '{0,1}', '{\"rope_theta\": 2}'", 'unknown key "rope_theta"'),
    ],
)
def test_rotary_refuses(conn: psycopg.Connection[Any], arguments: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        conn.execute(f"SELECT {ROTARY.format(arguments)}")


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"type": "linear", "factor": 1e-50}, "not at least 1"),
        ({"type": "linear", "factor": 1e300}, "not at least 1"),
        ({"rope_type": "default", "type": "linear"}, 'both "rope_type" and "type"'),
        (op_cases.LLAMA3 | {"high_freq_factor": 1.00000001}, "not below its high_freq_factor"),
        (op_cases.LLAMA3 | {"original_max_position_embeddings": 0}, "not at least 1"),
    ],
)
def test_rotary_refuses_a_scaling(
    conn: psycopg.Connection[Any], scaling: dict[str, Any], message: str
) -> None:
    arguments = f"1, 1e4, 0, '{{0,1}}', '{json.dumps(scaling)}'"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        conn.execute(f"SELECT {ROTARY.format(arguments)}")


def test_rotary_refuses_a_negative_position(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="id -1 at position 2 of positions"):
        conn.execute(f"SELECT {ROTARY.format('''1, 1e4, 0, '{0,-1}' ''')}")


def test_the_tape_names_the_constants_of_an_op(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET pg_llm.autograd = on")
    conn.execute("SELECT pg_llm_tape_clear()")
    scaled = '1, 1e4, 2, \'{0,1}\', \'{"rope_type": "linear", "factor": 2}\''
    conn.execute(f"SELECT {ROTARY.format(scaled)}")
    (extra,) = conn.execute("SELECT extra FROM pg_llm_tape(true)").fetchone()  # type: ignore[misc]
    assert extra == {
        "shape": [2, 4],
        "n_head": 1,
        "theta": 10000,
        "dims": 2,
        "positions": 2,
        "scaling": {"rope_type": "linear", "factor": 2},
    }
