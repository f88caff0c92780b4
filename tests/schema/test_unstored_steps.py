"""Steps that are logged and not stored: nobody loses them unasked, and none is taken for another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg import errors

from ..support.small_models import Connection, make_trainable, train, weights
from ..support.tensors import value
from ..support.training import refusing_write_backs, run_of, trigger

Connect = Callable[..., Connection]

STEADY = "total_steps => 1000, warmup => 2, lr_max => 0.01, dropout_p => 0.2, batch_size => 3, log_every => 0"


def left(conn: Connection, stored: int = 0, n: int = 6, model: str = "tiny") -> int:
    """A run of n steps that could not store its last ones."""
    if stored:
        train(conn, model, stored)
    with refusing_write_backs(conn), pytest.raises(errors.DiskFull):
        conn.execute(f"CALL llm_train_loop('{model}', {n}, 2, {n}, {STEADY})")
    return run_of(conn, model)


def logged(conn: Connection, run: int) -> list[int]:
    rows = conn.execute(
        "SELECT step FROM llm_train_log WHERE run_id = %s AND NOT superseded ORDER BY step", (run,)
    )
    return [step for (step,) in rows]


BEGINNINGS = {
    "llm_train": "SELECT llm_train('tiny', 1)",
    "llm_train_loop": "CALL llm_train_loop('tiny', 1)",
    "llm_train_step": "SELECT llm_train_step('tiny', (SELECT min(id) FROM llm_dataset))",
    "llm_train_begin": "SELECT llm_train_begin('tiny', hyperparameters) FROM llm_train_run ORDER BY run_id LIMIT 1",  # noqa: E501
}


@pytest.mark.parametrize("way", BEGINNINGS)
def test_another_run_does_not_supersede_them_unasked(conn: Connection, connect: Connect, way: str) -> None:
    make_trainable(conn)
    train(conn, "tiny", 2)
    run = left(conn)
    begin = BEGINNINGS[way].replace("hyperparameters", "hyperparameters - '{start_step,total_steps}'::text[]")
    for session in (conn, connect()):
        with pytest.raises(
            errors.ObjectNotInPrerequisiteState, match=f"steps 3 to 8 of run {run}"
        ) as refused:
            session.execute(begin)
        hint = refused.value.diag.message_hint or ""
        assert f"CALL llm_train_resume({run})" in hint
        assert f"SELECT llm_train_give_up({run})" in hint
    assert logged(conn, run) == [3, 4, 5, 6, 7, 8]
    assert value(conn, "SELECT count(*) FROM llm_train_run") == 2
    assert value(conn, "SELECT llm_train_give_up(%s)", (run,)) == 6
    assert logged(conn, run) == []
    conn.execute(begin)


def test_the_run_that_has_them_goes_on(conn: Connection, connect: Connect) -> None:
    for model in ("tiny", "whole"):
        make_trainable(conn, model)
    run = left(conn)
    connect().execute("CALL llm_train_resume(%s)", (run,))
    conn.execute(f"SELECT llm_train('whole', 6, {STEADY})")
    assert weights(conn, "tiny") == weights(conn, "whole")
    train(conn, "tiny", 1)


def test_what_was_given_up_can_be_made_again(conn: Connection, connect: Connect) -> None:
    """The same steps come out, since nothing else has changed."""
    for model in ("tiny", "whole"):
        make_trainable(conn, model)
    run = left(conn)
    assert value(conn, "SELECT llm_train_give_up(%s)", (run,)) == 6
    assert value(conn, "SELECT llm_train_give_up(%s)", (run,)) == 0
    assert value(conn, "SELECT last_step FROM llm_train_run WHERE run_id = %s", (run,)) == 0
    conn.execute("CALL llm_train_resume(%s)", (run,))
    conn.execute(f"SELECT llm_train('whole', 6, {STEADY})")
    assert weights(conn, "tiny") == weights(conn, "whole")
    assert logged(conn, run) == [1, 2, 3, 4, 5, 6]
    assert value(conn, "SELECT count(*) FROM llm_train_log WHERE run_id = %s", (run,)) == 12


def test_giving_up_is_for_trainers_and_for_runs_that_stand_still(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    run = left(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL ROLE llm_reader")
        with pytest.raises(errors.InsufficientPrivilege), conn.transaction():
            conn.execute("SELECT llm_train_give_up(%s)", (run,))
        conn.execute("SET LOCAL ROLE llm_trainer")
        assert value(conn, "SELECT llm_train_give_up(%s)", (run,)) == 6
    for unknown in (None, -1, 2**63 - 1):
        with pytest.raises(errors.UndefinedObject, match="does not exist"):
            conn.execute("SELECT llm_train_give_up(%s::bigint)", (unknown,))
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT llm_lock_model('tiny', 'trained')")
        with pytest.raises(errors.LockNotAvailable, match="being trained"):
            connect().execute("SELECT llm_train_give_up(%s)", (run,))
    assert logged(conn, run) == [1, 2, 3, 4, 5, 6]


def test_an_older_run_is_not_resumed_over_them(conn: Connection, connect: Connect) -> None:
    """It would log steps of the same numbers."""
    make_trainable(conn)
    older = left(conn)
    conn.execute("SELECT llm_train_give_up(%s)", (older,))
    newer = left(conn)
    for session in (conn, connect()):
        for how in ("error", "rewind"):
            with pytest.raises(errors.ObjectNotInPrerequisiteState, match=f"steps 1 to 6 of run {newer}"):
                session.execute("CALL llm_train_resume(%s, on_mismatch => %s)", (older, how))
    assert logged(conn, newer) == [1, 2, 3, 4, 5, 6]
    conn.execute("SELECT llm_train_give_up(%s)", (newer,))
    conn.execute("CALL llm_train_resume(%s)", (older,))
    assert logged(conn, older) == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_is_the_only_one_that_is_going_on(conn: Connection) -> None:
    make_trainable(conn)
    run = left(conn)
    dead = value(
        conn,
        "INSERT INTO llm_train_run (model, first_step, last_step, stored_step, hyperparameters)"
        " VALUES ('tiny', 1, 0, 0, '{\"n_steps\": 9}') RETURNING run_id",
    )
    assert value(conn, "SELECT status FROM llm_train_run WHERE run_id = %s", (dead,)) == "running"
    body = (
        "PERFORM set_config('test.seen', (SELECT string_agg(s.status, ' ' ORDER BY s.run_id)"
        " FROM llm_train_status s), false);"
    )
    conn.execute("SELECT llm_train_give_up(%s)", (run,))
    with trigger(conn, body, "AFTER INSERT ON llm_train_log", "llm_train_log"):
        conn.execute("CALL llm_train_resume(%s)", (run,))
    assert value(conn, "SELECT current_setting('test.seen')") == "running interrupted"


def test_memory_is_not_taken_for_that_of_a_later_history(conn: Connection, connect: Connect) -> None:
    """Another session gives the steps up and makes others of the same numbers, on other data."""
    make_trainable(conn)
    first, second = connect(), connect()
    run = left(first)
    conn.execute("UPDATE llm_dataset SET tokens[2] = (tokens[2] + 1) % 13, target[1] = (target[1] + 1) % 13")
    with refusing_write_backs(conn), pytest.raises(errors.DiskFull):
        second.execute("CALL llm_train_resume(%s, on_mismatch => 'rewind')", (run,))
    assert logged(conn, run) == [1, 2, 3, 4, 5, 6]
    first.execute("CALL llm_train_resume(%s)", (run,))
    mine = weights(conn, "tiny")
    with conn.transaction():
        conn.execute("SELECT llm_init_model('tiny', init_seed) FROM llm_model_config WHERE model = 'tiny'")
        conn.execute(f"SELECT llm_train('tiny', 6, {STEADY})")
    assert mine == weights(conn, "tiny")


@pytest.mark.parametrize("call", ["SELECT llm_train('tiny', 3)", "CALL llm_train_loop('tiny', 3, 1, 3)"])
def test_a_step_that_cannot_be_logged_is_an_error(conn: Connection, call: str) -> None:
    """Without its log a run could neither be resumed nor verified."""
    make_trainable(conn)
    before = weights(conn, "tiny")
    body = "IF new.step < 2 THEN RETURN new; END IF;"
    with (
        trigger(conn, body, "BEFORE INSERT ON llm_train_log", "llm_train_log"),
        pytest.raises(errors.InsufficientPrivilege, match=r"step 2 of run \d+ cannot be logged"),
    ):
        conn.execute(call.encode())
    assert weights(conn, "tiny") == before


def test_the_largest_id_of_a_row(conn: Connection) -> None:
    make_trainable(conn)
    largest = 2**63 - 1
    conn.execute("UPDATE llm_dataset SET id = %s WHERE id = (SELECT max(id) FROM llm_dataset)", (largest,))
    conn.execute(
        "UPDATE llm_dataset SET id = %s WHERE id = (SELECT min(id) FROM llm_dataset)", (-largest - 1,)
    )
    run = left(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("DELETE FROM llm_dataset WHERE id = %s", (largest,))
        with pytest.raises(errors.SerializationFailure, match=f"are gone: id {largest}\n"):
            conn.execute("SELECT llm_train_rows(r) FROM llm_train_run r WHERE run_id = %s", (run,))
    conn.execute("CALL llm_train_resume(%s)", (run,))


def test_a_dead_run_does_not_live_on_in_who_holds_the_model(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    conn.execute(
        "INSERT INTO llm_train_run (model, first_step, last_step, stored_step, hyperparameters)"
        " VALUES ('tiny', 1, 0, 0, '{\"n_steps\": 9}')"
    )
    status = "SELECT string_agg(status, ' ') FROM llm_train_status"
    other = connect(autocommit=False)
    other.execute("SELECT llm_lock_model('tiny', 'changed')")
    assert value(conn, status) == "interrupted"
    other.execute("SELECT llm_lock_model('tiny', 'trained')")
    assert value(conn, status) == "running"
    other.rollback()
    train(other, "tiny", 1)
    other.execute("SELECT pg_llm_progress('tiny', 4711, 1, 2, 0, 0, 0)")
    assert value(conn, status) == "interrupted"
    other.rollback()
