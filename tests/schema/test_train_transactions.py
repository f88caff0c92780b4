"""Training beside other sessions: locks, conflicts, rollbacks, readers, progress."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from ..amount import EXTENDED, grows
from ..support.small_models import add_rows, make_model, make_names, make_trainable, train, weights
from ..support.tensors import value
from ..support.waiting import wait_for, work_of

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


class Running(threading.Thread):
    """llm_train on a connection of its own; `error` is what it raised."""

    def __init__(
        self, conn: Connection, model: str = "tiny", n_steps: int = 1_000_000, **arguments: Any
    ) -> None:
        super().__init__(daemon=True)
        self.conn = conn
        self.arguments: dict[str, Any] = {"model": model, "n_steps": n_steps} | arguments
        self.error: psycopg.Error | None = None

    def run(self) -> None:
        try:
            train(self.conn, **self.arguments)
        except psycopg.Error as error:
            self.error = error


def progress(conn: Connection, model: str = "tiny") -> int | None:
    row = conn.execute("SELECT step FROM llm_train_progress WHERE model = %s", (model,)).fetchone()
    return None if row is None else int(row[0])


def start(observer: Connection, trainer: Connection, **arguments: Any) -> Running:
    running = Running(trainer, **arguments)
    running.start()
    wait_for(lambda: progress(observer, running.arguments["model"]))
    return running


def test_a_second_trainer_is_refused_at_once(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    first = connect(autocommit=False)
    train(first, n_steps=1)
    # Waiting would be for ever: nothing ends the first transaction meanwhile.
    for statement in (
        "SELECT llm_train('tiny', 1)",
        "SELECT llm_init_model('tiny', 1)",
        "SELECT llm_drop_model('tiny')",
        "SELECT llm_accumulate_grads('tiny')",
        "CALL llm_train_loop('tiny', 1)",
    ):
        with pytest.raises(errors.LockNotAvailable, match=f"by process {first.info.backend_pid}"):
            conn.execute(statement)
    make_trainable(conn, "other")
    train(conn, "other", 1)
    first.commit()
    train(conn, n_steps=1)


def test_two_models_at_once_one_rolled_back(conn: Connection, connect: Connect) -> None:
    for model in ("a", "b"):
        make_trainable(conn, model)
    before = weights(conn, "a")
    one, two = connect(autocommit=False), connect(autocommit=False)
    train(one, "a", 3)
    train(two, "b", 4)
    one.rollback()
    two.commit()
    assert weights(conn, "a") == before
    assert value(conn, "SELECT array_agg(DISTINCT model) FROM llm_train_run") == ["b"]
    assert value(conn, "SELECT array_agg(DISTINCT model) FROM llm_tape") == ["b"]
    make_trainable(conn, "c")
    train(conn, "c", 4)
    assert weights(conn, "b") == weights(conn, "c")
    train(one, "a", 4)
    one.commit()
    assert weights(conn, "a") == weights(conn, "c")


def test_an_update_by_hand_during_a_run(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    running = start(conn, connect(), n_steps=300, dropout_p=0.0)
    conn.execute("UPDATE llm_param SET data = data * 2.0 WHERE model = 'tiny' AND name = 'ln_f.weight'")
    changed = weights(conn)
    running.join(600)
    assert isinstance(running.error, errors.SerializationFailure)
    assert weights(conn) == changed
    assert value(conn, "SELECT count(*) FROM llm_train_log") == 0


def test_an_update_by_hand_that_waits(conn: Connection, connect: Connect) -> None:
    """Uncommitted when the run writes back: the run waits, then sees that it has lost."""
    make_trainable(conn)
    other = connect(autocommit=False)
    other.execute("UPDATE llm_param SET data = data * 2.0 WHERE model = 'tiny' AND name = 'ln_f.weight'")
    running = Running(connect(), n_steps=2)
    running.start()
    running.join(1)
    assert running.is_alive()
    other.commit()
    running.join(600)
    assert isinstance(running.error, errors.SerializationFailure)


def test_repeatable_read_meets_a_change(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    other = connect(autocommit=False)
    other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT count(*) FROM llm_param")
    conn.execute("UPDATE llm_param SET data = data * 2.0 WHERE name = 'ln_f.weight'")
    with pytest.raises(errors.SerializationFailure):
        train(other, n_steps=1)


@pytest.mark.parametrize("way", ["rollback", "savepoint", "error", "cancel"])
def test_what_ends_badly_leaves_the_model_as_it_was(conn: Connection, connect: Connect, way: str) -> None:
    make_trainable(conn)
    train(conn, n_steps=2)
    before = weights(conn)
    nll = value(conn, "SELECT nll FROM llm_evaluate('tiny', 'train')")
    trainer = connect(autocommit=False)
    if way == "rollback":
        train(trainer, n_steps=3)
        trainer.rollback()
    elif way == "savepoint":
        trainer.execute("SAVEPOINT before")
        train(trainer, n_steps=3)
        trainer.execute("ROLLBACK TO SAVEPOINT before")
        assert value(trainer, "SELECT nll FROM llm_evaluate('tiny', 'train')") == nll
        trainer.commit()
    elif way == "error":
        with pytest.raises(errors.NumericValueOutOfRange, match="not finite"):
            train(trainer, n_steps=500, lr_max=1e30, warmup=0)
        trainer.rollback()
    else:
        running = start(conn, trainer)
        trainer.cancel_safe()
        running.join(5)
        assert isinstance(running.error, errors.QueryCanceled)
        trainer.rollback()
    assert weights(conn) == before
    assert value(trainer, "SELECT nll FROM llm_evaluate('tiny', 'train')") == nll
    assert progress(conn) is None
    trainer.rollback()
    train(trainer, n_steps=1)
    trainer.commit()
    assert value(conn, "SELECT max(step) FROM llm_train_log WHERE NOT superseded") == 3


@grows
def test_a_cancel_lands_in_the_midst_of_a_step(conn: Connection, connect: Connect) -> None:
    make_model(conn, d_model=256, n_layer=4, n_head=4, n_positions=128)
    rows = 40 if EXTENDED else 20
    add_rows(conn, length=128, rows=rows)
    step = work_of(conn, lambda: train(conn, n_steps=1, batch_size=rows))
    for _ in range(5 if EXTENDED else 2):
        trainer = connect()
        running = start(conn, trainer, batch_size=rows)
        conn.execute("SELECT pg_cancel_backend(%s)", (trainer.info.backend_pid,))
        late = work_of(trainer, running.join)
        assert isinstance(running.error, errors.QueryCanceled)
        assert late < step / 2


def test_a_reader_keeps_its_version(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect(autocommit=False)
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    query = "SELECT nll FROM llm_evaluate('tiny', 'train')"
    before = value(reader, query)
    train(conn, n_steps=5, lr_max=0.05)
    assert value(reader, query) == before
    train(conn, n_steps=5, lr_max=0.05)
    assert value(reader, query) == before
    reader.commit()
    assert value(reader, query) != before
    assert value(reader, query) == value(conn, query)


def test_progress_is_seen_while_a_run_goes_on(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    trainer = connect()
    running = start(conn, trainer)
    seen = progress(conn)
    wait_for(lambda: (progress(conn) or 0) > (seen or 0))
    row = conn.execute(
        "SELECT pid, total, loss > 0, lr > 0 FROM llm_train_progress WHERE model = 'tiny'"
    ).fetchone()
    assert row == (trainer.info.backend_pid, 1_000_000, True, True)
    assert value(conn, "SELECT count(*) FROM llm_train_log") == 0
    trainer.cancel_safe()
    running.join(600)


@pytest.mark.parametrize("role", ["llm_nobody", "llm_reader"])
def test_privileges_with_a_warm_cache(conn: Connection, role: str) -> None:
    make_names(conn)
    conn.execute("SELECT llm_generate('a', 2, model => 'names')")
    if role == "llm_nobody":
        conn.execute("DROP ROLE IF EXISTS llm_nobody")
        conn.execute("CREATE ROLE llm_nobody")
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
            if role == "llm_reader":
                assert value(conn, "SELECT llm_generate('a', 2, model => 'names', seed => 1)") is not None
                assert value(conn, "SELECT nll FROM llm_evaluate('names')") > 0
            for statement in (
                "SELECT llm_train('names', 1)",
                "SELECT llm_init_model('names')",
                "SELECT llm_fill_dataset('names', 'SELECT ''emma''')",
            ) + (("SELECT llm_generate('a', 2, model => 'names')",) if role == "llm_nobody" else ()):
                with pytest.raises(errors.InsufficientPrivilege), conn.transaction():
                    conn.execute(statement)
    finally:
        if role == "llm_nobody":
            conn.execute("DROP ROLE llm_nobody")


def test_a_trainer_may_train(conn: Connection) -> None:
    make_names(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL ROLE llm_trainer")
        train(conn, "names", 2)
        conn.execute("SELECT llm_create_model('mine', 'microgpt')")
        conn.execute("SELECT llm_drop_model('mine')")
