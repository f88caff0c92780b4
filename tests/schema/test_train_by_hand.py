"""A training step made from its parts, in SQL a user can type, gives the bits of llm_train_step."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import make_trainable, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]

SETTINGS = {"dropout_p": 0.2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "wd": 0.1, "lr_max": 0.01}


def step_by_hand(conn: Connection, model: str, row: int, warmup: int, total: int) -> float:
    arguments = SETTINGS | {"model": model, "row": row, "warmup": warmup, "total": total}
    conn.execute("SELECT llm_materialize_params(%(model)s)", arguments)
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    loss = value(
        conn,
        "SELECT llm_loss(%(model)s, tokens, target, 2, 2, 16, 13, %(dropout_p)s, true) FROM llm_dataset"
        " WHERE id = %(row)s",
        arguments,
    )
    conn.execute("UPDATE llm_autograd_mode SET flag = false")
    conn.execute("SELECT llm_backprop(NULL, %(model)s)", arguments)
    conn.execute("SELECT llm_accumulate_grads(%(model)s, 1)", arguments)
    conn.execute(
        """UPDATE llm_param SET step = step + 1, (data, m, v) = (
            SELECT * FROM pg_llm_adamw_step(data, grad, m, v,
                pg_llm_lr_schedule(step + 1, %(warmup)s, %(total)s, %(lr_max)s),
                %(beta1)s, %(beta2)s, %(eps)s, %(wd)s, step + 1)
        ) WHERE model = %(model)s""",
        arguments,
    )
    conn.execute("SELECT llm_prune_autograd_state(1)")
    assert isinstance(loss, float)
    return loss


@pytest.mark.parametrize("in_transaction", [False, True])
def test_same_bits(conn: Connection, in_transaction: bool) -> None:
    for model in ("function", "hand"):
        make_trainable(conn, model)
    rows = [
        row[0] for row in conn.execute("SELECT id FROM llm_dataset WHERE model = 'hand' ORDER BY id LIMIT 4")
    ]
    for row in rows:
        called = value(
            conn,
            """SELECT llm_train_step('function', %(row)s, dropout_p => %(dropout_p)s, beta1 => %(beta1)s,
                beta2 => %(beta2)s, eps => %(eps)s, wd => %(wd)s, lr_max => %(lr_max)s, warmup => 2,
                total_steps => 6)""",
            SETTINGS | {"row": row},
        )
        if in_transaction:
            with conn.transaction():
                made = step_by_hand(conn, "hand", row, 2, 6)
        else:
            made = step_by_hand(conn, "hand", row, 2, 6)
        assert made == called
        assert weights(conn, "function") == weights(conn, "hand")


def test_train_is_a_sequence_of_steps(conn: Connection) -> None:
    """llm_train over one row and llm_train_step on it agree when their schedules do."""
    for model in ("run", "steps"):
        make_trainable(conn, model)
    conn.execute("DELETE FROM llm_dataset WHERE id NOT IN (SELECT min(id) FROM llm_dataset GROUP BY model)")
    conn.execute("SELECT llm_train('run', 3, lr_max => 0.01, warmup => 1, log_every => 0)")
    row = value(conn, "SELECT id FROM llm_dataset WHERE model = 'steps'")
    losses = [
        value(
            conn, "SELECT llm_train_step('steps', %s, lr_max => 0.01, warmup => 1, total_steps => 3)", (row,)
        )
        for _ in range(3)
    ]
    assert weights(conn, "run") == weights(conn, "steps")
    logged = conn.execute("SELECT loss FROM llm_train_log WHERE model = 'run' ORDER BY step").fetchall()
    assert [loss for (loss,) in logged] == losses


def test_steps_without_a_planned_end_keep_their_rate(conn: Connection) -> None:
    make_trainable(conn)
    row = value(conn, "SELECT min(id) FROM llm_dataset")
    for _ in range(4):
        conn.execute("SELECT llm_train_step('tiny', %s, lr_max => 0.01, warmup => 2)", (row,))
    rates = [lr for (lr,) in conn.execute("SELECT lr FROM llm_train_log ORDER BY step")]
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.01])


def test_a_step_past_the_schedule_is_refused(conn: Connection) -> None:
    make_trainable(conn)
    row = value(conn, "SELECT min(id) FROM llm_dataset")
    conn.execute("SELECT llm_train_step('tiny', %s, total_steps => 1)", (row,))
    with pytest.raises(errors.InvalidParameterValue, match="1 steps from step 1 ends before step 2"):
        conn.execute("SELECT llm_train_step('tiny', %s, total_steps => 1)", (row,))


def test_an_unknown_row(conn: Connection) -> None:
    make_trainable(conn)
    with pytest.raises(errors.NoDataFound, match="no row -1"):
        conn.execute("SELECT llm_train_step('tiny', -1)")


def test_gradients_accumulate_until_they_are_stored(conn: Connection) -> None:
    make_trainable(conn)
    tokens, target = (
        conn.execute("SELECT tokens, target FROM llm_dataset ORDER BY id LIMIT 1").fetchone() or ()
    )
    norms = []
    for passes in (1, 2):
        conn.execute("SELECT llm_materialize_params('tiny')")
        conn.execute("INSERT INTO llm_autograd_mode VALUES (true)")
        for _ in range(passes):
            conn.execute("SELECT llm_loss('tiny', %s, %s)", (tokens, target))
            conn.execute("SELECT llm_backprop(NULL, 'tiny')")
        conn.execute("DELETE FROM llm_autograd_mode")
        conn.execute("SELECT llm_accumulate_grads('tiny')")
        norms.append(value(conn, "SELECT norm(grad) FROM llm_param WHERE name = 'wte.weight'"))
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-5)


def test_backprop_from_a_recorded_id(conn: Connection) -> None:
    make_trainable(conn)
    tokens, target = (
        conn.execute("SELECT tokens, target FROM llm_dataset ORDER BY id LIMIT 1").fetchone() or ()
    )
    conn.execute("SELECT llm_materialize_params('tiny')")
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    conn.execute("SELECT llm_loss('tiny', %s, %s)", (tokens, target))
    last = value(conn, "SELECT max(output) FROM llm_tape WHERE model = 'tiny'")
    assert value(conn, "SELECT llm_backprop(%s, 'tiny')", (last,)) == value(
        conn, "SELECT count(*) FROM llm_tape"
    )
    with pytest.raises(errors.UndefinedObject, match="not on this session's tape"):
        conn.execute("SELECT llm_backprop(-1, 'tiny')")
    conn.execute("UPDATE llm_autograd_mode SET flag = false")
    conn.execute("SELECT llm_prune_autograd_state()")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is recorded"):
        conn.execute("SELECT llm_backprop(NULL, 'tiny')")


def test_gradients_that_a_trigger_keeps_out_are_noticed(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RETURN CASE WHEN new.name = 'ln_f.bias' THEN NULL ELSE new END; END $$"""
    )
    conn.execute("CREATE TRIGGER keep BEFORE UPDATE ON llm_param FOR EACH ROW EXECUTE FUNCTION keep()")
    before = weights(conn)
    conn.execute("SELECT llm_materialize_params('tiny')")
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    conn.execute("SELECT llm_loss('tiny', '{1,2,3}', '{2,3,4}')")
    conn.execute("UPDATE llm_autograd_mode SET flag = false")
    conn.execute("SELECT llm_backprop(NULL, 'tiny')")
    with pytest.raises(errors.InsufficientPrivilege, match="only 27 of 28 rows"):
        conn.execute("SELECT llm_accumulate_grads('tiny')")
    assert weights(conn) == before
    assert value(conn, "SELECT count(grad) FROM llm_param WHERE model = 'tiny'") == 0
