"""llm_train_loop inside of callers that nobody would expect, and beside what meddles with its tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg import errors

from ..support.small_models import Connection, make_trainable, weights
from ..support.tensors import value
from ..support.training import trigger

Connect = Callable[..., Connection]

SETTINGS = "lr_max => 0.01, dropout_p => 0.2, batch_size => 3, warmup => 2, log_every => 0"
LOOP = "CALL llm_train_loop('tiny', 6, commit_every => 1, write_back_every => 4, " + SETTINGS + ")"


def expected(conn: Connection, model: str = "whole") -> dict[tuple[str, int], object]:
    make_trainable(conn, model)
    conn.execute(f"SELECT llm_train('{model}', 6, {SETTINGS})")
    return weights(conn, model)


def nothing_is_held(conn: Connection) -> None:
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND mode = 'ExclusiveLock' AND database ="
    assert value(conn, held + " (SELECT oid FROM pg_database WHERE datname = current_database())") == 0
    assert value(conn, "SELECT count(*) FROM llm_train_progress") == 0


def test_a_loop_over_a_cursor(conn: Connection) -> None:
    """More models than one statement could hold locks of."""
    names = [f"m{i}" for i in range(6)]
    for name in names:
        make_trainable(conn, name)
    conn.execute(
        """DO $$
        DECLARE one record;
        BEGIN
            FOR one IN SELECT c.model FROM llm_model_config c WHERE c.model ~ '^m\\d' ORDER BY 1 LOOP
                CALL llm_train_loop(one.model, 2, commit_every => 1, log_every => 0);
            END LOOP;
        END $$"""
    )
    assert value(conn, "SELECT count(*) FROM llm_train_run WHERE status = 'done'") == len(names)
    assert len({frozenset(weights(conn, name).items()) for name in names}) == 1
    nothing_is_held(conn)


def test_procedures_in_procedures(fresh_conn: Connection) -> None:
    conn = fresh_conn
    make_trainable(conn)
    conn.execute(f"CREATE PROCEDURE inner_one() LANGUAGE plpgsql AS $$ BEGIN {LOOP}; END $$")
    conn.execute(
        "CREATE PROCEDURE outer_one(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN"
        " CALL inner_one(); COMMIT; n := n + 1; ROLLBACK; END $$"
    )
    assert value(conn, "CALL outer_one(1)") == 2
    assert weights(conn, "tiny") == expected(conn)
    nothing_is_held(conn)


@pytest.mark.parametrize(
    "caller",
    [
        "DO $$ BEGIN BEGIN {}; EXCEPTION WHEN no_data_found THEN NULL; END; END $$",
        "SELECT atomic_one()",
        "CALL with_setting()",
    ],
)
def test_where_nothing_can_be_committed_nothing_is_done(fresh_conn: Connection, caller: str) -> None:
    conn = fresh_conn
    make_trainable(conn)
    body = f"LANGUAGE plpgsql AS $$ BEGIN {LOOP}; END $$"
    conn.execute(f"CREATE FUNCTION atomic_one() RETURNS void {body}")
    conn.execute(f"CREATE PROCEDURE with_setting() SET work_mem = '1MB' {body}")
    with pytest.raises(errors.InvalidTransactionTermination):
        conn.execute(caller.format(LOOP).encode())
    assert value(conn, "SELECT count(*) FROM llm_train_run") == 0
    nothing_is_held(conn)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_other_isolation_levels(conn: Connection, connect: Connect, level: str) -> None:
    make_trainable(conn)
    trainer = connect()
    trainer.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}".encode())
    trainer.execute(LOOP.encode())
    assert weights(conn, "tiny") == expected(conn)


MEDDLERS = {
    "another model is trained": "PERFORM llm_train('other', 1, log_every => 0);",
    "the model is evaluated": "PERFORM llm_evaluate('tiny', 'train');",
    "its weights are read": "PERFORM llm_logits('{1,2,3}', 'tiny');",
    "memory is released": "PERFORM llm_release(shared => true);",
    "the run is replayed": "PERFORM llm_replay(new.run_id, 1, new.step - 1) WHERE new.step > 1;",
    "an error is caught": "BEGIN PERFORM llm_train('tiny', 1, batch_size => -1);"
    " EXCEPTION WHEN invalid_parameter_value THEN NULL; END;",
    "it is stopped too late": "PERFORM llm_train_stop(new.run_id) WHERE new.step = 6;",
    "it records": "UPDATE llm_autograd_mode SET flag = true;",
}


@pytest.mark.parametrize("what", MEDDLERS)
@pytest.mark.parametrize("when", ["AFTER INSERT", "AFTER INSERT DEFERRED"])
def test_triggers_on_the_log(conn: Connection, what: str, when: str) -> None:
    """The bits are those of an undisturbed run."""
    for model in ("tiny", "other"):
        make_trainable(conn, model)
    event = "AFTER INSERT ON llm_train_log"
    if "DEFERRED" in when:
        event += " DEFERRABLE INITIALLY DEFERRED"
    guard = f"IF new.model = 'tiny' THEN {MEDDLERS[what]} END IF;"
    with trigger(conn, guard, event, "llm_train_log"):
        conn.execute(LOOP.encode())
    conn.execute("UPDATE llm_autograd_mode SET flag = false")
    assert weights(conn, "tiny") == expected(conn)
    assert value(conn, "SELECT count(*) FROM llm_train_log WHERE model = 'tiny' AND NOT superseded") == 6
    nothing_is_held(conn)


@pytest.mark.parametrize("event", ["AFTER INSERT", "DEFERRED"])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_trigger_that_fails(conn: Connection, connect: Connect, event: str, step: int) -> None:
    """At the statement, or at the commit: what was committed before is gone on from."""
    make_trainable(conn)
    when = "AFTER INSERT ON llm_train_log" + (" DEFERRABLE INITIALLY DEFERRED" if event == "DEFERRED" else "")
    body = f"IF new.step = {step} THEN RAISE EXCEPTION 'no' USING ERRCODE = 'data_exception'; END IF;"
    with trigger(conn, body, when, "llm_train_log"), pytest.raises(errors.DataError):
        conn.execute(LOOP.encode())
    nothing_is_held(conn)
    run = value(conn, "SELECT run_id FROM llm_train_run")
    assert value(conn, "SELECT last_step FROM llm_train_run") == step - 1
    assert value(conn, "SELECT count(*) FROM llm_train_log") == step - 1
    for session in (conn, connect())[step % 2 :]:
        session.execute("CALL llm_train_resume(%s)", (run,))
        break
    assert weights(conn, "tiny") == expected(conn)


def test_tables_of_ones_own_with_these_names(fresh_conn: Connection) -> None:
    """Temporary ones, which come first in a search path that does not say otherwise."""
    conn = fresh_conn
    make_trainable(conn)
    for table in (
        "llm_param",
        "llm_dataset",
        "llm_train_run",
        "llm_train_log",
        "llm_model_config",
        "llm_clip",
    ):
        conn.execute(f"CREATE TEMP TABLE {table} (x int)".encode())
    conn.execute("CREATE FUNCTION pg_temp.llm_config(text) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    conn.execute(LOOP.encode())
    assert value(conn, "SELECT status FROM public.llm_train_run") == "done"
    assert value(conn, "SELECT count(*) FROM public.llm_train_log") == 6
    conn.execute("DISCARD TEMP")
    assert weights(conn, "tiny") == expected(conn)


def test_tables_that_are_not_logged(fresh_conn: Connection) -> None:
    conn = fresh_conn
    make_trainable(conn)
    for table in ("llm_clip", "llm_eval_log", "llm_train_log", "llm_param"):
        conn.execute(f"ALTER TABLE {table} SET UNLOGGED".encode())
    conn.execute(LOOP.encode())
    assert weights(conn, "tiny") == expected(conn)


@pytest.mark.parametrize("event", ["AFTER INSERT", "DEFERRED"])
def test_a_role_that_is_changed_within_a_run(conn: Connection, event: str) -> None:
    """Memory is one role's: between steps all is computed again, within one that is an error."""
    make_trainable(conn)
    when = "AFTER INSERT ON llm_train_log" + (" DEFERRABLE INITIALLY DEFERRED" if event == "DEFERRED" else "")
    body = "PERFORM set_config('role', CASE new.step % 2 WHEN 0 THEN 'llm_trainer' ELSE 'none' END, false);"
    conn.execute("SET ROLE llm_trainer")
    conn.execute("RESET ROLE")
    with trigger(conn, body, when, "llm_train_log"):
        try:
            conn.execute(LOOP.encode())
        except errors.ObjectNotInPrerequisiteState:
            assert event == "AFTER INSERT"
        else:
            assert event == "DEFERRED"
        conn.execute("RESET ROLE")
    nothing_is_held(conn)
    run, status = conn.execute("SELECT run_id, status FROM llm_train_run").fetchone()  # type: ignore[misc]
    if status != "done":
        conn.execute("CALL llm_train_resume(%s)", (run,))
    assert weights(conn, "tiny") == expected(conn)
