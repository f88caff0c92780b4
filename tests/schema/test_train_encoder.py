"""All that training does, done to an encoder: a user's, and the built-in one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest

from ..support.encoder_pairs import add_pairs, make_bag, make_bert
from ..support.small_models import state_sha256, train, weights
from ..support.tensors import value
from ..support.training import gradients, losses_of_run
from ..support.waiting import wait_for

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

SETTINGS: dict[str, Any] = {"batch_size": 4, "lr_max": 0.01, "dropout_p": 0.2, "warmup": 1}


@pytest.fixture(params=["bag", "bert"])
def model(conn: Connection, request: pytest.FixtureRequest) -> str:
    """With twenty pairs to train on, and twenty to recall."""
    name = str(request.param)
    {"bag": make_bag, "bert": make_bert}[name](conn, name, d_model=16)
    add_pairs(conn, name, rows=20)
    add_pairs(conn, name, rows=20, split="validation")
    return name


def recall(conn: Connection, model: str) -> float:
    return float(value(conn, "SELECT recall FROM llm_recall(%s, k => 1)", (model,)))


def test_training_raises_recall(conn: Connection, model: str) -> None:
    before = recall(conn, model)
    losses = losses_of_run(conn, train(conn, model, 60, batch_size=8, lr_max=0.02))
    assert losses[-1] < 0.6 * losses[0]
    assert recall(conn, model) > before + 0.4


def test_the_same_seed_gives_the_same_bits(conn: Connection, model: str) -> None:
    train(conn, model, 6, **SETTINGS)
    first = state_sha256(conn, model)
    conn.execute("SELECT llm_init_model(%s, 1)", (model,))
    conn.execute("SET pg_llm.threads = 2")
    train(conn, model, 3, total_steps=6, **SETTINGS)
    train(conn, model, 3, total_steps=6, start_step=1, **SETTINGS)
    assert state_sha256(conn, model) == first
    conn.execute("RESET pg_llm.threads")


def test_accumulated_batches(conn: Connection, model: str) -> None:
    """The gradient of a step is the mean of its micro-batches', each contrasted in itself."""
    rows = conn.execute(
        "SELECT tokens, target FROM llm_dataset WHERE model = %s AND split = 'train' ORDER BY id LIMIT 4",
        (model,),
    ).fetchall()
    tokens, targets = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    halves = [gradients(conn, model, tokens[i : i + 2], targets[i : i + 2]) for i in (0, 2)]
    run = train(conn, model, 1, batch_size=2, grad_accum=2, dropout_p=0, data_order="by_id", keep_grad=True)
    assert losses_of_run(conn, run)[0] == pytest.approx((halves[0][0] + halves[1][0]) / 2, rel=1e-6)
    for name, grad in conn.execute("SELECT name, grad FROM llm_param WHERE model = %s", (model,)).fetchall():
        expected = (halves[0][1][name] + halves[1][1][name]) / 2
        np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_tape_shows_the_loss(conn: Connection, model: str) -> None:
    conn.execute("SET pg_llm.tape_keep = 'last'")
    run = train(conn, model, 1, batch_size=3)
    names = [name for (name,) in conn.execute("SELECT name FROM llm_tape WHERE run = %s ORDER BY id", (run,))]
    assert names[-1] == "cross_entropy"
    assert {"slice", "transpose", "matmul"} <= set(names)
    conn.execute("RESET pg_llm.tape_keep")


def test_steps_by_hand(conn: Connection, model: str) -> None:
    """A row with negatives, by llm_train_step and by the calls that its comment lists."""
    add_pairs(conn, model, rows=1, split="one", negatives=2)
    row = value(conn, "SELECT id FROM llm_dataset WHERE split = 'one'")
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT llm_train_step(%s, %s, dropout_p => 0.2, lr_max => 0.01)", (model, row))
        expected = state_sha256(conn, model)
    conn.execute("SELECT llm_materialize_params(%s)", (model,))
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    conn.execute(
        "SELECT llm_loss(%s, tokens, target, NULL, NULL, NULL, NULL, 0.2, true)"
        " FROM llm_dataset WHERE id = %s",
        (model, row),
    )
    conn.execute("UPDATE llm_autograd_mode SET flag = false")
    conn.execute("SELECT llm_backprop(NULL, %s)", (model,))
    conn.execute("SELECT llm_accumulate_grads(%s)", (model,))
    conn.execute(
        """UPDATE llm_param SET (data, m, v) = (
            SELECT s.new_weight, s.new_m, s.new_v FROM pg_llm_adamw_step(data, grad, m, v,
            pg_llm_lr_schedule(step + 1, 0, 1, 0.01, 'constant'), 0.9, 0.999, 1e-8, 0.01, step + 1) s),
            step = step + 1 WHERE model = %s""",
        (model,),
    )
    conn.execute("SELECT llm_prune_autograd_state()")
    assert state_sha256(conn, model) == expected


def test_checkpoints_replay_and_costs(conn: Connection, model: str) -> None:
    run = train(conn, model, 4, **SETTINGS)
    replayed = conn.execute("SELECT step, same FROM llm_replay(%s)", (run,)).fetchall()
    assert replayed == [(1, True), (2, True), (3, True), (4, True)]
    state = weights(conn, model)
    saved = value(conn, "SELECT llm_checkpoint_save(%s)", (model,))
    train(conn, model, 2, **SETTINGS)
    assert weights(conn, model) != state
    conn.execute("SELECT llm_checkpoint_load(%s, %s)", (model, saved))
    assert weights(conn, model) == state
    total = value(conn, "SELECT heap_bytes FROM llm_write_cost(%s) WHERE part = 'total'", (model,))
    assert total > 0
    with pytest.raises(psycopg.errors.OutOfMemory, match="weights x 4 bytes"):
        conn.execute("SELECT llm_require_room_for(%s, 'training', 2000000000)", (model,))
    conn.execute("SELECT llm_copy_model(%s, 'copied')", (model,))
    conn.execute("UPDATE llm_dataset SET model = NULL")
    assert recall(conn, model) == recall(conn, "copied")


def test_a_killed_loop_is_resumed_to_the_same_bits(fresh_conn: Connection, connect: Connect) -> None:
    conn = fresh_conn
    make_bert(conn, "bert", d_model=16)
    add_pairs(conn, "bert", rows=20)
    trainer = connect()

    def work() -> None:
        with pytest.raises(psycopg.OperationalError):
            trainer.execute(
                "CALL llm_train_loop('bert', 150, commit_every => 1, write_back_every => 100000,"
                " log_every => 0, batch_size => 4, lr_max => 0.01, dropout_p => 0.2, warmup => 1)"
            )

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_for(lambda: value(conn, "SELECT count(*) > 6 FROM llm_train_log"))
    conn.execute("SELECT pg_terminate_backend(%s)", (trainer.info.backend_pid,))
    thread.join(600)
    run, stored, logged = (
        conn.execute("SELECT run_id, stored_step, last_step FROM llm_train_run").fetchone() or ()
    )
    assert stored == 0 < logged < 150
    conn.execute("CALL llm_train_resume(%s)", (run,))
    resumed = state_sha256(conn, "bert")
    conn.execute("SELECT llm_init_model('bert', 1)")
    train(conn, "bert", 150, **SETTINGS)
    assert state_sha256(conn, "bert") == resumed


def test_rows_that_change_are_noticed(conn: Connection, model: str) -> None:
    """A sequence that becomes part of another one changes the row's targets alone."""
    run = train(conn, model, 2, **SETTINGS)
    conn.execute(
        "UPDATE llm_dataset SET target = '{0,1,1,1,1}'"
        " WHERE id = (SELECT min(id) FROM llm_dataset WHERE model = %s)",
        (model,),
    )
    with pytest.raises(psycopg.errors.SerializationFailure, match="have changed"):
        conn.execute("SELECT * FROM llm_replay(%s)", (run,))
