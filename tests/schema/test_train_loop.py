"""llm_train_loop and llm_train_resume: commits on the way, interruptions, crashes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import make_trainable, train, weights
from ..support.tensors import value
from ..support.waiting import wait_for

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

SETTINGS: dict[str, Any] = {"lr_max": 0.01, "dropout_p": 0.2, "batch_size": 3, "warmup": 2}
CALL = (
    "CALL llm_train_loop(%(model)s, %(n)s, commit_every => %(every)s, write_back_every => %(every)s,"
    " lr_max => 0.01, dropout_p => 0.2, batch_size => 3, warmup => 2, log_every => 0)"
)


def agree(conn: Connection, model: str) -> int:
    """The last step, as log and run name it; the weights are those that the run says are stored."""
    assert value(conn, "SELECT max(step) FROM llm_param WHERE model = %s", (model,)) == value(
        conn, "SELECT max(stored_step) FROM llm_train_run WHERE model = %s", (model,)
    )
    step = value(conn, "SELECT max(last_step) FROM llm_train_run WHERE model = %s", (model,))
    assert step == value(
        conn, "SELECT max(step) FROM llm_train_log WHERE model = %s AND NOT superseded", (model,)
    )
    assert step == value(
        conn, "SELECT count(*) FROM llm_train_log WHERE model = %s AND NOT superseded", (model,)
    )
    assert isinstance(step, int)
    return step


@pytest.mark.parametrize("every", [1, 3, 100])
def test_the_bits_of_one_llm_train(conn: Connection, every: int) -> None:
    for model in ("whole", "loop"):
        make_trainable(conn, model)
    train(conn, "whole", 8, **SETTINGS)
    conn.execute(CALL, {"model": "loop", "n": 8, "every": every})
    assert weights(conn, "whole") == weights(conn, "loop")
    assert agree(conn, "loop") == 8
    assert value(conn, "SELECT status FROM llm_train_run WHERE model = 'loop'") == "done"
    logs = "SELECT array_agg((lr, loss, grad_norm)::text ORDER BY step) FROM llm_train_log WHERE model = %s"
    assert value(conn, logs, ("whole",)) == value(conn, logs, ("loop",))


def test_inside_a_transaction_it_fails_before_any_work(conn: Connection) -> None:
    make_trainable(conn)
    with (
        pytest.raises(errors.InvalidTransactionTermination, match="llm_train_loop") as refused,
        conn.transaction(),
    ):
        conn.execute(CALL, {"model": "tiny", "n": 8, "every": 2})
    assert "autocommit" in str(refused.value.diag.message_hint)
    assert value(conn, "SELECT count(*) FROM llm_train_run") == 0


def interrupted(
    conn: Connection, trainer: Connection, model: str, n: int, stop: Callable[[], object]
) -> None:
    """A loop that `stop` ends after some commits."""

    def run() -> None:
        try:
            trainer.execute(CALL, {"model": model, "n": n, "every": 2})
        except psycopg.Error:
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_for(lambda: value(conn, "SELECT count(*) > 3 FROM llm_train_log WHERE model = %s", (model,)))
    stop()
    thread.join(600)


def test_resuming_an_interrupted_run(conn: Connection, connect: Connect) -> None:
    for model in ("whole", "loop"):
        make_trainable(conn, model, d_model=64)
    trainer = connect()
    interrupted(conn, trainer, "loop", 400, trainer.cancel_safe)
    done = agree(conn, "loop")
    assert 0 < done < 400
    run = value(conn, "SELECT run_id FROM llm_train_run WHERE model = 'loop' AND status = 'running'")
    with pytest.raises(errors.InvalidTransactionTermination), conn.transaction():
        conn.execute("CALL llm_train_resume(%s)", (run,))
    conn.execute("CALL llm_train_resume(%s, 50)", (run,))
    assert agree(conn, "loop") == 400
    train(conn, "whole", 400, **SETTINGS)
    assert weights(conn, "whole") == weights(conn, "loop")
    assert value(conn, "SELECT status FROM llm_train_run WHERE run_id = %s", (run,)) == "done"
    with pytest.raises(errors.InvalidParameterValue, match="is complete"):
        conn.execute("CALL llm_train_resume(%s)", (run,))


def test_resuming_what_does_not_exist(conn: Connection) -> None:
    with pytest.raises(errors.UndefinedObject, match="run 4711 does not exist"):
        conn.execute("CALL llm_train_resume(4711)")


def test_resuming_when_the_weights_have_moved_on(conn: Connection, connect: Connect) -> None:
    make_trainable(conn, d_model=64)
    trainer = connect()
    interrupted(conn, trainer, "tiny", 10_000, trainer.cancel_safe)
    run = value(conn, "SELECT run_id FROM llm_train_run")
    train(conn, n_steps=1)
    assert value(conn, "SELECT status FROM llm_train_run WHERE run_id = %s", (run,)) == "interrupted"
    with pytest.raises(errors.SerializationFailure, match="no longer those of run"):
        conn.execute("CALL llm_train_resume(%s)", (run,))


def test_a_change_between_commits_ends_the_loop(conn: Connection, connect: Connect) -> None:
    make_trainable(conn, d_model=64)
    trainer = connect()

    def change() -> None:
        conn.execute("UPDATE llm_param SET data = data * 2.0 WHERE model = 'tiny' AND name = 'ln_f.weight'")

    interrupted(conn, trainer, "tiny", 100_000, change)
    norm = value(conn, "SELECT norm(data) FROM llm_param WHERE model = 'tiny' AND name = 'ln_f.weight'")
    assert norm > 1.5 * 64**0.5
    assert agree(conn, "tiny") < 100_000


STATUS = (
    "SELECT r.status, s.status FROM llm_train_run r JOIN llm_train_status s USING (run_id) WHERE run_id = %s"
)


def test_a_run_that_an_error_ends_has_failed(conn: Connection) -> None:
    """The error is the one that happened; the session is as good as new, and the run can be resumed."""
    for model in ("whole", "loop"):
        make_trainable(conn, model)
    conn.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'no step %', new.step
            USING ERRCODE = 'XX123', DETAIL = 'refused', HINT = CASE new.step WHEN 4 THEN 'try' ELSE '' END;
        END $$"""
    )
    conn.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE ON llm_param FOR EACH ROW WHEN (new.step > 2)"
        " EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(psycopg.Error, match="no step 4") as caught:
        conn.execute(CALL, {"model": "loop", "n": 6, "every": 2})
    assert caught.value.sqlstate == "XX123"
    assert (caught.value.diag.message_detail, caught.value.diag.message_hint) == ("refused", "try")
    # The write-back failed, not the steps.
    assert agree(conn, "loop") == 4
    assert value(conn, "SELECT stored_step FROM llm_train_run WHERE model = 'loop'") == 2
    run, end = conn.execute("SELECT run_id, finished_at FROM llm_train_run").fetchone()  # type: ignore[misc]
    assert end is not None
    assert conn.execute(STATUS, (run,)).fetchone() == ("failed", "failed")
    conn.execute("DROP TRIGGER refuse ON llm_param")
    conn.execute("CALL llm_train_resume(%s)", (run,))
    assert conn.execute(STATUS, (run,)).fetchone() == ("done", "done")
    train(conn, "whole", 6, **SETTINGS)
    assert weights(conn, "whole") == weights(conn, "loop")


def test_a_run_that_nobody_runs_is_not_running(conn: Connection, connect: Connect) -> None:
    """Cancelled, it could not say how it ended."""
    make_trainable(conn, d_model=64)
    trainer = connect()
    seen: list[Any] = []

    def cancel() -> None:
        seen.extend(conn.execute("SELECT status FROM llm_train_status"))
        trainer.cancel_safe()

    interrupted(conn, trainer, "tiny", 3_000, cancel)
    assert seen == [("running",)]
    run = value(conn, "SELECT run_id FROM llm_train_run")
    assert conn.execute(STATUS, (run,)).fetchone() == ("running", "interrupted")
    with connect(autocommit=False) as other:
        other.execute("SELECT llm_lock_model('tiny')")
        with pytest.raises(errors.LockNotAvailable):
            conn.execute("CALL llm_train_resume(%s)", (run,))
        assert value(conn, "SELECT status FROM llm_train_run WHERE run_id = %s", (run,)) == "running"


def test_after_kill_9_the_last_commit_stands(fresh_conn: Connection, connect: Connect, server: Any) -> None:
    make_trainable(fresh_conn, "loop", d_model=64)
    database = fresh_conn.info.dbname
    interrupted(fresh_conn, connect(), "loop", 100_000, server.kill9)
    server.restart()
    with psycopg.connect(server.url(database), autocommit=True) as after:
        assert agree(after, "loop") >= 4
        status, run = after.execute("SELECT status, run_id FROM llm_train_run").fetchone() or ("", 0)
        assert status == "running"
        done = agree(after, "loop")
        after.execute(
            "UPDATE llm_train_run"
            " SET hyperparameters = hyperparameters || jsonb_build_object('n_steps', %s::int)",
            (done + 5,),
        )
        after.execute("CALL llm_train_resume(%s, 2)", (run,))
        assert agree(after, "loop") == done + 5
