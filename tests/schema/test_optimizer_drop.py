"""optimizer => 'drop': the last write-back stores weights alone, and memory goes on as a reload would."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import errors

from ..conftest import Connect
from ..support.small_models import Connection, make_names, make_trainable, names_query, train, weights
from ..support.tensors import value

MOMENTS = "SELECT count(*), count(m), count(v), min(step), max(step) FROM llm_param WHERE model = %s"


def data_of(conn: Connection, model: str) -> dict[tuple[str, int], Any]:
    return {key: row[0] for key, row in weights(conn, model).items()}


def moments(conn: Connection, model: str) -> tuple[int, int, int]:
    """Of the rows' moments how many there are, and the step of all rows."""
    rows, m, v, first, last = conn.execute(MOMENTS, (model,)).fetchall()[0]
    assert rows > 0
    assert first == last
    return m, v, last


def pair(conn: Connection, **sizes: Any) -> None:
    for model in ("kept", "dropped"):
        make_trainable(conn, model, **sizes)


def test_weights_and_step_are_those_of_a_run_that_keeps_them(conn: Connection) -> None:
    pair(conn)
    arguments = {"lr_max": 0.01, "warmup": 0, "dropout_p": 0.1, "seed": 4}
    train(conn, "kept", 5, **arguments)
    train(conn, "dropped", 5, optimizer="drop", **arguments)
    assert data_of(conn, "dropped") == data_of(conn, "kept")
    assert moments(conn, "kept")[2] == 5
    assert moments(conn, "dropped") == (0, 0, 5)
    run = conn.execute(
        "SELECT status, last_step, hyperparameters ->> 'optimizer' FROM llm_train_run WHERE model = 'dropped'"
    ).fetchall()
    assert run == [("done", 5, "drop")]


@pytest.mark.parametrize("same_session", [True, False])
def test_training_again_begins_with_zero_moments(
    conn: Connection, connect: Connect, same_session: bool
) -> None:
    """As after m and v have been set to NULL by hand, whatever memory held."""
    pair(conn)
    train(conn, "dropped", 3, optimizer="drop", lr_max=0.01, warmup=0)
    train(conn, "kept", 3, lr_max=0.01, warmup=0)
    conn.execute("UPDATE llm_param SET m = NULL, v = NULL WHERE model = 'kept'")
    other = conn if same_session else connect()
    train(other, "dropped", 2, lr_max=0.01, warmup=0)
    train(connect(), "kept", 2, lr_max=0.01, warmup=0)
    assert weights(conn, "dropped") == weights(conn, "kept")
    assert moments(conn, "dropped")[2] == 5


def test_a_loop_drops_them_at_its_end_alone(conn: Connection, connect: Connect) -> None:
    pair(conn)
    arguments = "lr_max => 0.01, warmup => 1, log_every => 0"
    conn.execute(f"CALL llm_train_loop('kept', 7, 3, {arguments})")
    stored = f"write_back_every => 3, {arguments}"
    stop = "CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'stopped'; END$$"
    conn.execute(stop)
    try:
        conn.execute(
            "CREATE TRIGGER stop BEFORE INSERT ON llm_train_log FOR EACH ROW WHEN (NEW.step = 5)"
            " EXECUTE FUNCTION public.stop()"
        )
        with pytest.raises(errors.RaiseException, match="stopped"):
            conn.execute(f"CALL llm_train_loop('dropped', 7, 3, optimizer => 'drop', {stored})")
        assert moments(conn, "dropped") == (len(weights(conn, "dropped")),) * 2 + (3,)
    finally:
        conn.execute("DROP FUNCTION public.stop() CASCADE")
    run = value(conn, "SELECT run_id FROM llm_train_run WHERE model = 'dropped'")
    connect().execute(f"CALL llm_train_resume({run})")
    assert data_of(conn, "dropped") == data_of(conn, "kept")
    assert moments(conn, "dropped") == (0, 0, 7)


def test_gradients_can_be_kept_all_the_same(conn: Connection) -> None:
    pair(conn)
    train(conn, "kept", 2, keep_grad=True)
    train(conn, "dropped", 2, keep_grad=True, optimizer="drop")
    grads = "SELECT name, grad::bytea FROM llm_param WHERE model = %s ORDER BY name"
    assert conn.execute(grads, ("dropped",)).fetchall() == conn.execute(grads, ("kept",)).fetchall()
    assert moments(conn, "dropped")[:2] == (0, 0)


@pytest.mark.parametrize("optimizer", ["keep", "drop"])
def test_memory_holds_what_the_table_holds(conn: Connection, optimizer: str) -> None:
    """The session keeps the weights, for readers, and moments only where they were stored."""
    make_trainable(conn)
    train(conn, "tiny", 1, optimizer=optimizer)
    held = "SELECT pg_llm_arena_open('tiny', llm_fingerprint('tiny'), %s)"
    for training, expected in ((False, True), (True, optimizer == "keep")):
        with conn.transaction(force_rollback=True):
            assert value(conn, held, (training,)) is expected


def test_readers_in_the_session_see_the_trained_weights(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    train(conn, "tiny", 3, lr_max=0.05, warmup=0, optimizer="drop")
    loss = "SELECT llm_loss('tiny', '{1,2,3}', '{2,3,4}')"
    assert value(conn, loss) == value(connect(), loss)
    # Not pinned for training: nothing may step on it.
    with pytest.raises(errors.ObjectNotInPrerequisiteState), conn.transaction():
        conn.execute("SELECT llm_pin('tiny'), pg_llm_arena_drop_moments('tiny')")


def test_a_rollback_keeps_them(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, "tiny", 2)
    before = weights(conn)
    for _ in range(2):
        with conn.transaction(force_rollback=True):
            train(conn, "tiny", 2, optimizer="drop")
            assert moments(conn, "tiny") == (0, 0, 4)
        assert weights(conn) == before
    train(conn, "tiny", 1)
    assert moments(conn, "tiny")[0] == len(before)


def test_steps_after_the_moments_are_gone_are_refused(conn: Connection) -> None:
    """By hand, in any order: an error, no crash."""
    make_trainable(conn)
    step = "SELECT pg_llm_arena_adamw('tiny', 0.1, 0.9, 0.99, 1e-8, 0, 1, NULL, false)"
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT llm_pin('tiny', true)")
        conn.execute("SELECT pg_llm_arena_drop_moments('tiny')")
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="not loaded for training"):
            conn.execute(step)
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT llm_pin('tiny', true)")
        conn.execute("SELECT pg_llm_arena_drop_moments('tiny')")
        assert value(conn, "SELECT pg_llm_arena_m('tiny', 'wte.weight', 0) IS NULL")
        assert value(conn, "SELECT pg_llm_arena_data('tiny', 'wte.weight', 0) IS NOT NULL")
        with pytest.raises(errors.ObjectNotInPrerequisiteState), conn.transaction():
            conn.execute("SELECT pg_llm_arena_drop_moments('tiny')")


def test_checkpoints_and_finetuning(conn: Connection) -> None:
    make_names(conn, "base")
    train(conn, "base", 2, optimizer="drop")
    checkpoint = value(conn, "SELECT llm_checkpoint_save('base')")
    size = value(conn, "SELECT bytes FROM llm_checkpoint WHERE id = %s", (checkpoint,))
    before = weights(conn, "base")
    train(conn, "base", 1)
    full = value(conn, "SELECT llm_checkpoint_save('base')")
    assert value(conn, "SELECT bytes FROM llm_checkpoint WHERE id = %s", (full,)) > 2 * size
    conn.execute("SELECT llm_checkpoint_load('base', %s)", (checkpoint,))
    assert weights(conn, "base") == before
    for optimizer, stored in (("drop", 0), ("keep", len(before))):
        name = value(
            conn,
            "SELECT name FROM llm_finetune('base', %s, 2, block_size => 8, log_every => 0, optimizer => %s)",
            (names_query(), optimizer),
        )
        assert moments(conn, name) == (stored, stored, 2)


@pytest.mark.parametrize(
    "call", ["llm_train('tiny', 1, optimizer => {})", "llm_train_loop('tiny', 1, 1, optimizer => {})"]
)
@pytest.mark.parametrize("given", ["'lose'", "''", "NULL", "'KEEP'"])
def test_other_values(conn: Connection, call: str, given: str) -> None:
    make_trainable(conn)
    word = "CALL" if "loop" in call else "SELECT"
    with pytest.raises(errors.InvalidParameterValue, match="optimizer must be keep or drop, got"):
        conn.execute(f"{word} {call.format(given)}")


def test_a_run_that_is_stopped_keeps_them(conn: Connection) -> None:
    """It may go on; its end alone drops them."""
    pair(conn)
    arguments = "lr_max => 0.01, warmup => 1, log_every => 0"
    conn.execute(f"CALL llm_train_loop('kept', 6, 2, {arguments})")
    conn.execute(
        "CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM llm_train_stop(NEW.run_id); RETURN NEW; END$$"
    )
    try:
        conn.execute(
            "CREATE TRIGGER stop BEFORE INSERT ON llm_train_log FOR EACH ROW WHEN (NEW.step = 3)"
            " EXECUTE FUNCTION public.stop()"
        )
        conn.execute(f"CALL llm_train_loop('dropped', 6, 2, optimizer => 'drop', {arguments})")
    finally:
        conn.execute("DROP FUNCTION public.stop() CASCADE")
    m, v, step = moments(conn, "dropped")
    assert m == v == len(weights(conn, "dropped"))
    assert step < 6
    run = value(conn, "SELECT run_id FROM llm_train_run WHERE model = 'dropped'")
    conn.execute(f"CALL llm_train_resume({run})")
    assert data_of(conn, "dropped") == data_of(conn, "kept")
    assert moments(conn, "dropped") == (0, 0, 6)


def test_a_run_goes_on_from_memory_after_it_wrote_back(fresh_conn: Connection) -> None:
    """What it wrote has the same name once it is committed: memory is not read from the table again."""
    conn = fresh_conn
    make_trainable(conn)
    conn.execute("CREATE SEQUENCE public.loads")
    load = value(conn, "SELECT pg_get_functiondef('llm_train_load'::regproc)")
    conn.execute(load.replace("BEGIN\n", "BEGIN\nPERFORM nextval('public.loads');\n", 1))
    conn.execute("CALL llm_train_loop('tiny', 4, 1, log_every => 0, write_back_every => 1)")
    assert value(conn, "SELECT last_value FROM public.loads") == 1
    assert moments(conn, "tiny")[2] == 4
