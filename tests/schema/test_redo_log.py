"""The training log as a redo log: logged steps are computed again, verified, and gone on from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import make_trainable, train, weights
from ..support.tensors import value
from ..support.training import refusing_write_backs, run_of, trigger
from ..support.waiting import wait_for

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

ARGUMENTS = "lr_max => 0.01, dropout_p => 0.2, batch_size => 3, warmup => 2, log_every => 0"
SETTINGS: dict[str, Any] = {"lr_max": 0.01, "dropout_p": 0.2, "batch_size": 3, "warmup": 2}


def loop(conn: Connection, n: int, commit: str = "2", write: str = "100000", model: str = "tiny") -> None:
    intervals = f"commit_every => {commit}, write_back_every => {write}"
    conn.execute(f"CALL llm_train_loop('{model}', {n}, {intervals}, {ARGUMENTS})")


def steps(conn: Connection, run: int) -> tuple[int, int, str]:
    """Stored and logged step, and how the run stands."""
    row = conn.execute(
        "SELECT stored_step, last_step, status FROM llm_train_run WHERE run_id = %s", (run,)
    ).fetchone()
    assert row is not None
    return row  # type: ignore[return-value]


def unstored(
    conn: Connection, connect: Connect, n: int = 60, model: str = "tiny", write: str = "100000"
) -> int:
    """A run of n steps that was cancelled with steps logged and not stored."""
    make_trainable(conn, model, d_model=64)
    trainer = connect()

    def work() -> None:
        with pytest.raises(errors.QueryCanceled):
            loop(trainer, 100_000, write=write, model=model)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_for(lambda: value(conn, "SELECT count(*) > 6 FROM llm_train_log WHERE model = %s", (model,)))
    trainer.cancel_safe()
    thread.join(600)
    run = run_of(conn, model)
    stored, logged, _ = steps(conn, run)
    assert stored < logged
    conn.execute(
        "UPDATE llm_train_run SET hyperparameters = hyperparameters || jsonb_build_object('n_steps', %s::int,"
        " 'total_steps', %s::int) WHERE run_id = %s",
        (logged + n, 100_000, run),
    )
    return run


def whole(conn: Connection, n: int, model: str = "whole") -> dict[tuple[str, int], Any]:
    """The weights after n steps of the same schedule in one transaction."""
    make_trainable(conn, model, d_model=64)
    train(conn, model, n, total_steps=100_000, **SETTINGS)
    return weights(conn, model)


def test_the_self_test_passes(conn: Connection) -> None:
    for isa in ("scalar", "auto"):
        conn.execute(f"SET pg_llm.isa = '{isa}'")
        assert value(conn, "SELECT pg_llm_self_test()") is True


def test_others_see_the_log_before_the_weights(conn: Connection, connect: Connect) -> None:
    run = unstored(conn, connect, 10)
    assert value(conn, "SELECT max(step) FROM llm_param") == 0
    stored, logged, status = steps(conn, run)
    assert (stored, status) == (0, "running")
    notices: list[str] = []
    other = connect()
    other.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    other.execute("CALL llm_train_resume(%s)", (run,))
    assert f"steps 1 to {logged} of run {run} are logged and not stored: they are computed again" in notices
    assert steps(conn, run) == (logged + 10, logged + 10, "done")
    assert value(conn, "SELECT count(*) FROM llm_train_log") == logged + 10
    assert weights(conn) == whole(conn, logged + 10)


def test_defaults(conn: Connection) -> None:
    """commit_every and write_back_every NULL."""
    for model in ("tiny", "whole"):
        make_trainable(conn, model)
    conn.execute(f"CALL llm_train_loop('tiny', 300, {ARGUMENTS})")
    train(conn, "whole", 300, **SETTINGS)
    assert weights(conn) == weights(conn, "whole")
    assert steps(conn, run_of(conn, "tiny")) == (300, 300, "done")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE llm_train_log SET loss = loss + 1e-12 WHERE run_id = %s AND step = 3", r"step 3 of run .* cannot be repeated: it comes out differently"),  # noqa: E501
        ("UPDATE llm_train_log SET grad_norm = grad_norm + 1e-12 WHERE run_id = %s AND step = 2", r"step 2 of run"),  # noqa: E501
        ("UPDATE llm_train_log SET batch_hash = batch_hash + 1 WHERE run_id = %s AND step = 4", r"step 4 of run .*: its batch is another one"),  # noqa: E501
        ("DELETE FROM llm_train_log WHERE run_id = %s AND step = 5", r"step 5 of run .*: its log is gone"),
        ("UPDATE llm_dataset SET tokens[2] = (tokens[2] + 1) %% 13 WHERE id = (SELECT max(id) - 1 FROM llm_dataset) AND %s > 0", r"have changed: id \d+"),  # noqa: E501
        ("UPDATE llm_dataset SET tokens[2] = (tokens[2] + 1) %% 13 WHERE %s > 0", "have changed: more than one"),  # noqa: E501
        ("DELETE FROM llm_dataset WHERE id = (SELECT min(id) FROM llm_dataset) AND %s > 0", r"are gone: id \d+"),  # noqa: E501
        ("UPDATE llm_param SET data = data + 1e-30::double precision WHERE name = 'ln_f.bias' AND %s > 0", "no longer those of run"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_mismatch_is_named_and_rewound(
    conn: Connection, connect: Connect, change: str, problem: str
) -> None:
    run = unstored(conn, connect, 10)
    _, logged, _ = steps(conn, run)
    conn.execute(change, (run,))
    before = value(conn, "SELECT array_agg(data::bytea ORDER BY name) FROM llm_param")
    with pytest.raises(errors.SerializationFailure, match=problem) as refused:
        connect().execute("CALL llm_train_resume(%s)", (run,))
    assert refused.value.diag.message_hint
    assert before == value(conn, "SELECT array_agg(data::bytea ORDER BY name) FROM llm_param")
    assert steps(conn, run)[:2] == (0, logged)
    connect().execute("CALL llm_train_resume(%s, on_mismatch => 'rewind')", (run,))
    assert steps(conn, run) == (logged + 10, logged + 10, "done")
    current = "SELECT count(*), count(DISTINCT step) FROM llm_train_log WHERE run_id = %s AND NOT superseded"
    assert conn.execute(current, (run,)).fetchone() == (logged + 10, logged + 10)


def test_a_stop_writes_back(conn: Connection, connect: Connect) -> None:
    make_trainable(conn, d_model=64)
    trainer = connect()
    # The moments go at the run's end, not at a stop: resuming needs them.
    write = "100000, optimizer => 'drop'"
    thread = threading.Thread(target=loop, args=(trainer, 100_000, "2", write), daemon=True)
    thread.start()
    wait_for(lambda: value(conn, "SELECT count(*) > 3 FROM llm_train_log"))
    run = run_of(conn)
    assert value(conn, "SELECT llm_train_stop(%s)", (run,)) is True
    thread.join(60)
    assert not thread.is_alive()
    stored, logged, status = steps(conn, run)
    assert (stored, status) == (logged, "stopped")
    assert value(conn, "SELECT status FROM llm_train_status WHERE run_id = %s", (run,)) == "stopped"
    assert value(conn, "SELECT max(step) FROM llm_param") == stored
    assert value(conn, "SELECT count(m) = count(*) FROM llm_param")
    assert value(conn, "SELECT llm_train_stop(%s)", (run,)) is False
    with pytest.raises(errors.UndefinedObject, match="run 4711 does not exist"):
        conn.execute("SELECT llm_train_stop(4711)")
    # A wish of before does not end what is taken up again.
    conn.execute(
        "UPDATE llm_train_run"
        " SET hyperparameters = hyperparameters || jsonb_build_object('n_steps', %s::int)",
        (stored + 7,),
    )
    trainer.execute("CALL llm_train_resume(%s)", (run,))
    assert steps(conn, run) == (stored + 7, stored + 7, "done")
    assert value(conn, "SELECT count(m) FROM llm_param") == 0


def test_who_may_stop(conn: Connection, connect: Connect) -> None:
    make_trainable(conn, d_model=64)
    trainer = connect()
    thread = threading.Thread(target=loop, args=(trainer, 100_000), daemon=True)
    thread.start()
    wait_for(lambda: value(conn, "SELECT count(*) > 3 FROM llm_train_log"))
    run = run_of(conn)
    other = connect()
    other.execute("SET ROLE llm_reader")
    with pytest.raises(errors.InsufficientPrivilege, match="permission denied to stop run"):
        other.execute("SELECT llm_train_stop(%s)", (run,))
    other.execute("SET ROLE llm_trainer")
    assert value(other, "SELECT llm_train_stop(%s)", (run,)) is True
    thread.join(60)
    assert steps(conn, run)[2] == "stopped"


def test_a_failed_write_back_is_tried_again_from_memory(conn: Connection) -> None:
    """The log stands, and the session that has the weights need not compute them again."""
    for model in ("tiny", "whole"):
        make_trainable(conn, model)
    with refusing_write_backs(conn, "'disk_full'"), pytest.raises(errors.DiskFull):
        loop(conn, 9, write="9")
    run = run_of(conn, "tiny")
    assert steps(conn, run) == (0, 9, "failed")
    # A step that was computed again would find this.
    conn.execute("UPDATE llm_train_log SET loss = loss + 1e-12 WHERE step = 5")
    conn.execute("CALL llm_train_resume(%s)", (run,))
    assert steps(conn, run) == (9, 9, "done")
    train(conn, "whole", 9, **SETTINGS)
    assert weights(conn) == weights(conn, "whole")


def test_replay(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    train(conn, n_steps=6, **SETTINGS)
    run = run_of(conn)
    before = weights(conn)
    query = "SELECT step, loss, replayed_loss, same FROM llm_replay(%s, %s, %s)"
    rows = connect().execute(query, (run, None, None)).fetchall()
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row[1] == row[2] and row[3] for row in rows)
    conn.execute("UPDATE llm_train_log SET loss = loss + 1e-15 WHERE step = 4")
    with connect(autocommit=False) as reader:
        reader.execute("SET TRANSACTION READ ONLY")
        rows = reader.execute(query, (run, 3, 5)).fetchall()
        assert [(row[0], row[3]) for row in rows] == [(3, True), (4, False), (5, True)]
        # Those that the session reads now are the table's.
        assert value(reader, "SELECT nll FROM llm_evaluate('tiny', 'train')") == value(
            conn, "SELECT nll FROM llm_evaluate('tiny', 'train')"
        )
    assert weights(conn) == before
    train(conn, n_steps=3, **SETTINGS)
    second = run_of(conn)
    assert second > run
    rows = conn.execute(query, (second, 8, 9)).fetchall()
    assert [(row[0], row[3]) for row in rows] == [(8, True), (9, True)]


def test_replay_needs_a_beginning(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute("UPDATE llm_param SET data = data * 1.5")
    conn.execute("UPDATE llm_model_config SET init_seed = NULL")
    train(conn, n_steps=2, lr_max=0.01)
    with pytest.raises(errors.NoDataFound, match=r"step 1 of run .* cannot be replayed"):
        conn.execute("SELECT llm_replay(%s)", (run_of(conn),))
    conn.execute("SELECT llm_checkpoint_save('tiny')")
    train(conn, n_steps=3, **SETTINGS)
    run = run_of(conn)
    assert [row[0] for row in conn.execute("SELECT same FROM llm_replay(%s)", (run,))] == [True] * 3
    first = run - 1
    with pytest.raises(errors.NoDataFound):
        conn.execute("SELECT llm_replay(%s)", (first,))
    with pytest.raises(errors.InvalidParameterValue, match="logged steps 3 to 5"):
        conn.execute("SELECT llm_replay(%s, 1, 2)", (run,))
    conn.execute("UPDATE llm_dataset SET target[1] = 12 WHERE id = (SELECT max(id) FROM llm_dataset)")
    with pytest.raises(errors.SerializationFailure, match=r"have changed: id \d+"):
        conn.execute("SELECT llm_replay(%s)", (run,))


def test_wal_between_write_backs(conn: Connection) -> None:
    """A step's log is small, and with each step's commit still is."""
    make_trainable(conn, n_layer=12)
    with refusing_write_backs(conn, "'XX123'"):
        for clip, most in (("NULL", 4096), ("1e-3", 12288)):
            before = value(conn, "SELECT pg_current_wal_insert_lsn()")
            with pytest.raises(psycopg.Error, match="no write-back"):
                conn.execute(f"CALL llm_train_loop('tiny', 200, 1, 200, grad_clip => {clip}, log_every => 0)")
            wal = value(conn, "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", (before,))
            assert value(conn, "SELECT count(*) FROM llm_train_log WHERE NOT superseded") == 200
            assert wal / 200 < most
            assert value(conn, "SELECT llm_train_give_up(%s)", (run_of(conn),)) == 200


def test_the_lock_is_held_through_commits_and_no_longer(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    trainer = connect()
    holder = "SELECT pg_llm_lock_holder('llm_train_run', 'tiny')"
    # What a trigger calls in the midst of it does not give the lock away.
    body = "PERFORM pg_advisory_unlock_all(); PERFORM llm_release();"
    with trigger(conn, body, "AFTER INSERT ON llm_train_log", "llm_train_log"):
        thread = threading.Thread(target=loop, args=(trainer, 100_000, "1"), daemon=True)
        thread.start()
        wait_for(lambda: value(conn, "SELECT count(*) > 3 FROM llm_train_log"))
        for _ in range(200):
            assert value(conn, holder) == trainer.info.backend_pid
        with pytest.raises(errors.LockNotAvailable, match=f"trained by process {trainer.info.backend_pid}"):
            conn.execute("CALL llm_train_loop('tiny', 1)")
        assert value(conn, "SELECT llm_train_stop(%s)", (run_of(conn),)) is True
        thread.join(60)
    assert value(conn, holder) is None
    # Taken by itself it ends with its statement, and with an error.
    assert value(trainer, "SELECT pg_llm_hold_lock('llm_train_run', 'tiny')") is True
    assert value(conn, holder) is None
    with pytest.raises(errors.DivisionByZero):
        trainer.execute("SELECT pg_llm_hold_lock('llm_train_run', 'tiny'), 1 / 0")
    assert value(conn, holder) is None
    with trainer.transaction():
        value(trainer, "SELECT pg_llm_hold_lock('llm_train_run', 'tiny')")
        assert value(conn, holder) is None


def test_rows_move_while_memory_is_ahead(conn: Connection, connect: Connect) -> None:
    run = unstored(conn, connect, 30)
    logged = steps(conn, run)[1]
    trainer = connect()
    thread = threading.Thread(target=trainer.execute, args=("CALL llm_train_resume(%s, 1, 1000000)", (run,)))
    thread.start()
    wait_for(lambda: value(conn, "SELECT last_step > %s FROM llm_train_run WHERE run_id = %s", (logged, run)))
    conn.execute("VACUUM FULL llm_param")
    conn.execute("VACUUM FULL llm_dataset")
    thread.join(600)
    assert steps(conn, run) == (logged + 30, logged + 30, "done")
    assert weights(conn) == whole(conn, logged + 30)


def test_readers_of_the_trainers_session_see_the_table(conn: Connection) -> None:
    """Between two commits, when a deferred trigger runs, memory that is ahead is no reader's."""
    for model in ("tiny", "whole"):
        make_trainable(conn, model)
    nll = value(conn, "SELECT nll FROM llm_evaluate('tiny', 'train')")
    body = (
        "PERFORM set_config('test.nll', concat_ws(' ', current_setting('test.nll', true), e.nll), false)"
        " FROM llm_evaluate('tiny', 'train') e WHERE new.step < 9;"
    )
    event = "AFTER INSERT ON llm_train_log DEFERRABLE INITIALLY DEFERRED"
    with trigger(conn, body, event, "llm_train_log"):
        loop(conn, 9, "3", "9")
    seen = value(conn, "SELECT current_setting('test.nll')").split()
    assert [float(text) for text in seen[:6]] == [nll] * 6
    train(conn, "whole", 9, **SETTINGS)
    assert weights(conn) == weights(conn, "whole")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("commit_every => 0", "commit_every must be at least 1, got 0"),
        ("write_back_every => -3", "write_back_every must be at least 1, got -3"),
        ("on_mismatch => 'again'", "on_mismatch must be error or rewind, got again"),
        ("on_mismatch => NULL", "on_mismatch must be error or rewind, got NULL"),
    ],
)
def test_absurd_arguments(conn: Connection, connect: Connect, arguments: str, problem: str) -> None:
    run = unstored(conn, connect)
    with pytest.raises(errors.InvalidParameterValue, match=problem):
        conn.execute(f"CALL llm_train_resume({run}, {arguments})")
    if "on_mismatch" not in arguments:
        with pytest.raises(errors.InvalidParameterValue, match=problem):
            conn.execute(f"CALL llm_train_loop('tiny', 5, {arguments})")


def test_another_library(conn: Connection, connect: Connect) -> None:
    run = unstored(conn, connect, 5)
    logged = steps(conn, run)[1]
    conn.execute("UPDATE llm_train_run SET library = 'elsewhere'")
    conn.execute("UPDATE llm_train_run SET numerics_version = 1 WHERE run_id = %s", (run,))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="version 1 of the numerical rules"):
        conn.execute("CALL llm_train_resume(%s)", (run,))
    conn.execute("UPDATE llm_train_run SET numerics_version = pg_llm_numerics_version()")
    # Another build of the same rules passes its self-test.
    conn.execute("CALL llm_train_resume(%s)", (run,))
    assert steps(conn, run) == (logged + 5, logged + 5, "done")
    assert value(conn, "SELECT library = pg_llm_library() FROM llm_train_run WHERE run_id = %s", (run,))
