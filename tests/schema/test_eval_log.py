"""llm_log_evaluation: what it measures is stored beside the step it belongs to, and goes with that step."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ..support.small_models import add_rows, make_trainable, train
from ..support.tensors import value

Connection = psycopg.Connection[Any]
ROWS = "SELECT step, split, tokens, loss FROM llm_eval_log ORDER BY id"
LOG = "SELECT step, 'validation', tokens, nll FROM llm_log_evaluation('tiny')"


def prepare(conn: Connection) -> None:
    make_trainable(conn)
    add_rows(conn, rows=3, split="validation")


def test_it_is_the_evaluation_of_the_stored_weights(conn: Connection) -> None:
    prepare(conn)
    logged = [conn.execute(LOG).fetchone()]
    train(conn, n_steps=3)
    expected = value(conn, "SELECT nll FROM llm_evaluate('tiny')")
    logged.append(conn.execute(LOG).fetchone())
    assert conn.execute(ROWS).fetchall() == logged
    assert logged[1] == (3, "validation", 24, expected)
    assert conn.execute("SELECT tape_id FROM llm_eval_log ORDER BY id").fetchall() == [
        (None,),
        (value(conn, "SELECT tape_id FROM llm_train_log WHERE step = 3"),),
    ]


def test_training_gives_the_same_bits_with_evaluations_between(conn: Connection) -> None:
    prepare(conn)
    with conn.transaction(force_rollback=True):
        train(conn, n_steps=4, total_steps=4)
        expected = conn.execute("SELECT name, data::bytea FROM llm_param ORDER BY name").fetchall()
    train(conn, n_steps=2, total_steps=4)
    conn.execute(LOG)
    train(conn, n_steps=2, start_step=1, total_steps=4)
    assert conn.execute("SELECT name, data::bytea FROM llm_param ORDER BY name").fetchall() == expected


def test_it_goes_with_its_step_its_weights_or_its_model(conn: Connection) -> None:
    prepare(conn)
    conn.execute(LOG)
    train(conn, n_steps=1)
    conn.execute(LOG)
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT llm_init_model('tiny', 2)")
        assert conn.execute(
            "SELECT e.step, l.superseded FROM llm_eval_log e LEFT JOIN llm_train_log l USING (tape_id)"
        ).fetchall() == [(1, True)]
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT llm_prune_runs('tiny', 0)")
        assert [row[0] for row in conn.execute(ROWS)] == [0]
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT llm_rename_model('tiny', 'other')")
        assert value(conn, "SELECT count(*) FROM llm_eval_log WHERE model = 'other'") == 2
    conn.execute("SELECT llm_drop_model('tiny')")
    assert conn.execute(ROWS).fetchall() == []


def test_what_it_refuses(conn: Connection) -> None:
    prepare(conn)
    with pytest.raises(psycopg.errors.NoDataFound):
        conn.execute("SELECT llm_log_evaluation('tiny', 'none')")
    with pytest.raises(psycopg.errors.UndefinedObject):
        conn.execute("SELECT llm_log_evaluation('nobody')")
    conn.execute("SET ROLE llm_reader")
    for what in (LOG, "SELECT llm_log_evaluation('tiny', 'none')"):  # refused before any row is read
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="llm_eval_log"):
            conn.execute(what)
    conn.execute("RESET ROLE")
    assert conn.execute(ROWS).fetchall() == []


def test_rows_without_a_target_have_no_loss_to_store(conn: Connection) -> None:
    prepare(conn)
    conn.execute(
        "INSERT INTO llm_dataset (model, split, tokens, target) VALUES ('tiny', 'mute', '{1}', '{-1}')"
    )
    assert conn.execute("SELECT tokens, nll FROM llm_log_evaluation('tiny', 'mute')").fetchone() == (0, None)
    assert conn.execute(ROWS).fetchall() == []
