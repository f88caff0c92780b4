"""The tape as a user meets it: whole graphs, gradients of own expressions, modes, errors, sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..reference import ops
from ..support.small_models import Connection, make_trainable, train
from ..support.tensors import value

Connect = Callable[..., Connection]

ON = "UPDATE llm_autograd_mode SET flag = true"
LOSS = "SELECT llm_loss('tiny', tokens, target) FROM llm_dataset WHERE model = 'tiny' ORDER BY id LIMIT 1"


def check_whole(conn: Connection, model: str) -> None:
    """Every input is an earlier output or a leaf, the graph ends in the loss, every parameter takes part."""
    ops = conn.execute(
        "SELECT id, inputs, output, name FROM llm_tape WHERE model = %s ORDER BY position", (model,)
    ).fetchall()
    assert ops
    made: set[int] = set()
    read: set[int] = set()
    outputs = {output for _, _, output, _ in ops}
    for row_id, inputs, output, _ in ops:
        assert row_id == output
        for i in inputs:
            assert i in made or i not in outputs, "an op reads what comes later"
        read |= set(inputs)
        assert output not in made
        made.add(output)
    assert outputs - read == {ops[-1][2]}, "only the loss is read by nobody"
    assert ops[-1][3] == "lm_head_loss"
    unmapped = conn.execute(
        """SELECT p.name, t.requires_grad, t.grad_norm FROM llm_param p
        LEFT JOIN llm_tensor_map m USING (model, name, token_id)
        LEFT JOIN llm_tensor_rt t ON t.id = m.tensor_id
        WHERE p.model = %s AND (t.id IS NULL OR NOT t.requires_grad OR t.grad_norm IS NULL
            OR NOT m.tensor_id = ANY (%s))""",
        (model, list(read)),
    ).fetchall()
    assert unmapped == []
    known = {row[0] for row in conn.execute("SELECT id FROM llm_tensor_rt")}
    assert read | made <= known


@pytest.mark.parametrize("arch", ["gpt2", "gpt3", "microgpt"])
def test_a_training_step_is_a_whole_graph(conn: Connection, arch: str) -> None:
    make_trainable(conn, arch=arch)
    conn.execute("SET pg_llm.tape_keep = 'last'")
    train(conn, n_steps=3, dropout_p=0.1, batch_size=2, grad_accum=2)
    assert value(conn, "SELECT array_agg(DISTINCT step) FROM llm_tape") == [3]
    check_whole(conn, "tiny")


def test_a_pass_by_hand_is_a_whole_graph(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(ON)
    conn.execute(LOSS)
    n_ops = value(conn, "SELECT llm_backprop(NULL, 'tiny')")
    assert n_ops == value(conn, "SELECT count(*) FROM llm_tape")
    check_whole(conn, "tiny")


def test_the_tied_embedding_is_one_leaf_used_twice(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(ON)
    conn.execute(LOSS)
    uses = conn.execute(
        """SELECT t.name FROM llm_tape t JOIN llm_tensor_map m ON m.tensor_id = ANY (t.inputs)
        WHERE m.name = 'wte.weight' ORDER BY position"""
    ).fetchall()
    assert uses == [("embedding",), ("lm_head_loss",)]


@pytest.mark.parametrize("record", ["off", "graph", "full"])
@pytest.mark.parametrize("keep", ["none", "last", "all"])
def test_what_a_pass_leaves(conn: Connection, record: str, keep: str) -> None:
    make_trainable(conn)
    conn.execute("SELECT set_config('pg_llm.record', %s, false)", (record,))
    conn.execute("SELECT set_config('pg_llm.tape_keep', %s, false)", (keep,))
    conn.execute(ON)
    for _ in range(2):
        conn.execute(LOSS)
        # What memory holds does not depend on what is written.
        assert value(conn, "SELECT llm_backprop(NULL, 'tiny')") > 20
    passes = value(conn, "SELECT count(DISTINCT id / 16777216) FROM llm_tape")
    tensors = conn.execute("SELECT norm, data, grad FROM llm_tensor_rt").fetchall()
    assert passes == (0 if record == "off" else {"none": 0, "last": 1, "all": 2}[keep])
    assert bool(tensors) is (passes > 0)
    assert all(norm is not None for norm, _, _ in tensors)
    assert all((data is not None) is (record == "full") for _, data, _ in tensors)
    assert any(grad is not None for _, _, grad in tensors) is (record == "full" and passes > 0)


# -- an expression of one's own

EXPRESSION = """
    SELECT pg_llm_mean(y * y + b), pg_llm_tensor_id(x), pg_llm_tensor_id(w), pg_llm_tensor_id(b)
    FROM (
        SELECT a.*, pg_llm_gelu(a.x @ a.w) AS y
        FROM (
            SELECT pg_llm_autograd_track_tensor(%(x)s::tensor) AS x,
                pg_llm_autograd_track_tensor(%(w)s::tensor) AS w,
                pg_llm_autograd_track_tensor(%(b)s::tensor) AS b
            OFFSET 0
        ) a
        OFFSET 0
    ) q
"""


def expression(x: Any, w: Any, b: Any) -> float:
    y = ops.gelu(x @ w)
    return float(np.mean(y * y + b))


def central_difference(values: dict[str, Any], name: str) -> Any:
    result = np.zeros_like(values[name])
    for i in np.ndindex(result.shape):
        moved = []
        for step in (1e-6, -1e-6):
            shifted = {k: v.copy() for k, v in values.items()}
            shifted[name][i] += step
            moved.append(expression(**shifted))
        result[i] = (moved[0] - moved[1]) / 2e-6
    return result


def test_gradients_of_an_expression(conn: Connection) -> None:
    rng = np.random.default_rng(2)
    values = {"x": rng.normal(size=(3, 4)), "w": rng.normal(size=(4, 5)), "b": rng.normal(size=(5,))}
    values = {name: v.astype(np.float32).astype(np.float64) for name, v in values.items()}
    conn.execute(ON)
    row = conn.execute(EXPRESSION, {k: v.astype(np.float32) for k, v in values.items()}).fetchone()
    assert row is not None
    assert float(row[0]) == pytest.approx(expression(**values), rel=1e-5)
    assert value(conn, "SELECT llm_backprop()") == value(conn, "SELECT count(*) FROM pg_llm_tape(false)")
    for name, tensor_id in zip(("x", "w", "b"), row[1:], strict=True):
        got = value(conn, "SELECT pg_llm_grad_by_id(%s)", (tensor_id,))
        np.testing.assert_allclose(got, central_difference(values, name), rtol=1e-4, atol=1e-6)


def test_gradients_by_the_tensor_itself(conn: Connection) -> None:
    conn.execute(ON)
    conn.execute("CREATE TEMP TABLE got (grad tensor)")
    conn.execute(
        """DO $$
        DECLARE
            x tensor := pg_llm_autograd_track_tensor('[1,2,3]');
            loss tensor;
        BEGIN
            loss := pg_llm_sum(x * x);
            PERFORM llm_backprop(pg_llm_tensor_id(loss));
            INSERT INTO got VALUES (pg_llm_grad(x)), (pg_llm_grad('[1,2,3]'));
        END $$"""
    )
    grads = [row[0] for row in conn.execute("SELECT grad FROM got")]
    assert grads[0].tolist() == [2, 4, 6]
    assert grads[1] is None


def test_a_leaf_mapped_by_hand(conn: Connection) -> None:
    conn.execute(ON)
    conn.execute(
        "SELECT pg_llm_sum(pg_llm_autograd_map_param('mine', 'w', 0, '[1,2,3,4]', '{2,2}')"
        " @ '[[1],[1]]'::tensor)"
    )
    conn.execute("SELECT llm_backprop()")
    rows = conn.execute(
        "SELECT p.model, p.name, t.shape, t.grad_norm FROM pg_llm_tape_params() p"
        " JOIN pg_llm_tape_tensors(false) t USING (id)"
    ).fetchall()
    assert rows == [("mine", "w", [2, 2], pytest.approx(2.0))]


def test_tracking_without_recording_is_no_tracking(conn: Connection) -> None:
    assert value(conn, "SELECT pg_llm_tensor_id(pg_llm_autograd_track_tensor('[1,2]'))") is None
    assert value(conn, "SELECT pg_llm_tensor_id(pg_llm_add('[1]', '[2]'))") is None
    assert value(conn, "SELECT count(*) FROM pg_llm_tape(false)") == 0


def test_generating_and_evaluating_record_nothing(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(ON)
    conn.execute("SELECT llm_evaluate('tiny', 'train')")
    assert value(conn, "SELECT count(*) FROM pg_llm_tape(false)") == 0
    assert value(conn, "SELECT flag FROM llm_autograd_mode") is True


# -- sessions


def test_two_sessions_have_two_tapes(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    other = connect()
    conn.execute(ON)
    assert value(other, "SELECT flag FROM llm_autograd_mode") is False
    conn.execute(LOSS)
    assert value(other, "SELECT count(*) FROM pg_llm_tape(false)") == 0
    mine = value(conn, "SELECT max(id) FROM pg_llm_tape(false)")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is recorded"):
        other.execute("SELECT llm_backprop(%s, 'tiny')", (mine,))
    other.execute(ON)
    other.execute(LOSS)
    theirs = value(other, "SELECT max(id) FROM pg_llm_tape(false)")
    assert mine // 2**24 != theirs // 2**24
    with pytest.raises(errors.UndefinedObject, match="not on this session's tape"):
        other.execute("SELECT pg_llm_grad_by_id(%s)", (mine,))
    assert value(conn, "SELECT llm_backprop(%s, 'tiny')", (mine,)) > 20


def test_a_tensor_of_another_pass_is_a_leaf(conn: Connection) -> None:
    """Identity is not kept by a table: what comes back from one is a constant."""
    conn.execute(ON)
    conn.execute("CREATE TEMP TABLE kept AS SELECT pg_llm_autograd_track_tensor('[1,2]') * 2.0 AS x")
    assert value(conn, "SELECT pg_llm_tensor_id(x) FROM kept") in (
        None,
        value(conn, "SELECT max(id) FROM pg_llm_tape(false)"),
    )
    conn.execute("SELECT llm_prune_autograd_state()")
    assert value(conn, "SELECT pg_llm_tensor_id(x) FROM kept") is None
    conn.execute("SELECT pg_llm_sum(x) FROM kept")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="does not depend on"):
        conn.execute("SELECT llm_backprop()")


# -- errors


def test_backprop_without_a_recorded_pass(conn: Connection) -> None:
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is recorded") as caught:
        conn.execute("SELECT llm_backprop()")
    assert "llm_autograd_mode" in str(caught.value.diag.message_hint)


def test_backprop_twice(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(ON)
    conn.execute(LOSS)
    conn.execute("SELECT llm_backprop(NULL, 'tiny')")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="differentiated already"):
        conn.execute("SELECT llm_backprop(NULL, 'tiny')")
    conn.execute(LOSS)
    assert value(conn, "SELECT llm_backprop(NULL, 'tiny')") > 20


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT pg_llm_autograd_track_tensor('[1,2]') * 2.0", r"the gradient of a tensor of shape \[2\]"),
        ("SELECT pg_llm_sum('[1,2]')", "does not depend on any parameter"),
    ],
)
def test_starts_that_have_no_gradient(conn: Connection, query: str, message: str) -> None:
    conn.execute(ON)
    conn.execute(query)
    with pytest.raises(psycopg.Error, match=message):
        conn.execute("SELECT llm_backprop()")


def test_backprop_from_the_middle(conn: Connection) -> None:
    """From an op before the newest: what came after it gets no gradient."""
    conn.execute(ON)
    row = conn.execute(
        """SELECT pg_llm_tensor_id(x), pg_llm_tensor_id(s), pg_llm_sum(s * 5.0)
        FROM (
            SELECT x, pg_llm_sum(x * x) AS s
            FROM (SELECT pg_llm_autograd_track_tensor('[1,2]') AS x OFFSET 0) a
            OFFSET 0
        ) b"""
    ).fetchone()
    assert row is not None
    conn.execute("SELECT llm_backprop(%s)", (row[1],))
    assert value(conn, "SELECT pg_llm_grad_by_id(%s)", (row[0],)).tolist() == [2, 4]


def test_an_error_takes_the_pass_with_it(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(ON)
    conn.execute(LOSS)
    with pytest.raises(errors.InvalidParameterValue):
        conn.execute("SELECT pg_llm_matmul('[[1,2]]', '[[1,2]]')")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is recorded"):
        conn.execute("SELECT llm_backprop()")
    conn.execute(LOSS)
    conn.execute("SELECT llm_backprop(NULL, 'tiny')")
    check_whole(conn, "tiny")


# -- the mode


def test_the_mode_is_always_one_row(conn: Connection) -> None:
    flag = "SELECT array_agg(flag) FROM llm_autograd_mode"
    assert value(conn, flag) == [False]
    for statement, state in (
        ("INSERT INTO llm_autograd_mode VALUES (true)", True),
        ("INSERT INTO llm_autograd_mode VALUES (false)", False),
        ("UPDATE llm_autograd_mode SET flag = true", True),
        ("UPDATE llm_autograd_mode SET flag = NOT flag", False),
        ("INSERT INTO llm_autograd_mode (flag) VALUES (true)", True),
        ("DELETE FROM llm_autograd_mode", False),
        ("DELETE FROM llm_autograd_mode", False),
        ("SET pg_llm.autograd = on", True),
    ):
        conn.execute(statement)
        assert value(conn, flag) == [state], statement
        assert value(conn, "SELECT pg_llm_autograd_enabled()") is state
    for statement in (
        "UPDATE llm_autograd_mode SET flag = NULL",
        "INSERT INTO llm_autograd_mode VALUES (NULL)",
    ):
        with pytest.raises(errors.NotNullViolation):
            conn.execute(statement)
    assert value(conn, flag) == [True]


def test_the_mode_is_rolled_back(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute(ON)
        assert value(conn, "SELECT flag FROM llm_autograd_mode") is True
    assert value(conn, "SELECT flag FROM llm_autograd_mode") is False


def test_a_read_only_transaction_uses_set(conn: Connection) -> None:
    make_trainable(conn)
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(errors.ReadOnlySqlTransaction), conn.transaction():
            conn.execute(ON)
        conn.execute("SET LOCAL pg_llm.autograd = on")
        conn.execute(LOSS)
        assert value(conn, "SELECT llm_backprop(NULL, 'tiny')") > 20
        assert value(
            conn,
            "SELECT bool_and(grad_norm > 0) FROM pg_llm_tape_params()"
            " JOIN pg_llm_tape_tensors(false) USING (id)",
        )
    assert value(conn, "SELECT count(*) FROM llm_tape") == 0
    assert value(conn, "SELECT flag FROM llm_autograd_mode") is False
