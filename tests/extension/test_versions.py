"""What a session's memory holds after a rollback, beside a cursor, behind a caught error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg import errors

from ..support.small_models import Connection, make_names, make_trainable, train
from ..support.tensors import value

Connect = Callable[..., Connection]

LOSS = "SELECT llm_loss('tiny', '{1,2}', '{2,3}')"
BACKPROP = "SELECT llm_backprop(NULL, 'tiny')"
NORM = """SELECT sqrt(coalesce(sum(value::float ^ 2), 0))
    FROM jsonb_each_text(pg_llm_arena_grad_norms('tiny'))"""
POSITIONS = "SELECT pg_llm_item(pg_llm_sum(llm_weight('tiny', 'wpe.weight')))"
ADD_ONE = (
    "UPDATE llm_param SET data = data + 1.0::double precision WHERE model = 'tiny' AND name = 'wpe.weight'"
)


def summed_norm(conn: Connection) -> float:
    """The global norm of the gradients that this session has summed."""
    with conn.transaction():
        conn.execute("SELECT llm_pin('tiny', true)")
        norm = value(conn, NORM)
    assert isinstance(norm, float)
    return norm


def pass_and_back(conn: Connection) -> None:
    conn.execute(LOSS)
    conn.execute(BACKPROP)


@pytest.mark.parametrize("way", ["rollback", "savepoint", "caught"])
def test_a_pass_that_was_rolled_back_leaves_no_gradient(conn: Connection, way: str) -> None:
    make_trainable(conn)
    conn.execute("SELECT llm_materialize_params('tiny')")
    conn.execute("SET pg_llm.autograd = on")
    pass_and_back(conn)
    once = summed_norm(conn)
    assert once > 0
    conn.execute("SELECT llm_materialize_params('tiny')")
    if way == "rollback":
        with conn.transaction(force_rollback=True):
            pass_and_back(conn)
    elif way == "savepoint":
        with conn.transaction():
            with conn.transaction(force_rollback=True):
                pass_and_back(conn)
            pass_and_back(conn)
        assert summed_norm(conn) == once
        conn.execute("SELECT llm_materialize_params('tiny')")
    else:
        conn.execute(
            """DO $$ BEGIN
                PERFORM llm_loss('tiny', '{1,2}', '{2,3}');
                PERFORM llm_backprop(NULL, 'tiny');
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END $$"""
        )
    pass_and_back(conn)
    assert summed_norm(conn) == once


def test_gradients_of_an_earlier_transaction_outlive_an_unrelated_rollback(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute("SELECT llm_materialize_params('tiny')")
    conn.execute("SET pg_llm.autograd = on")
    pass_and_back(conn)
    once = summed_norm(conn)
    with pytest.raises(errors.DivisionByZero):
        conn.execute("SELECT 1 / 0")
    assert summed_norm(conn) == once


def test_a_gradient_that_was_asked_for_does_not_grow(conn: Connection) -> None:
    """A variable keeps its value when a later pass adds to the sum it was taken from."""
    make_trainable(conn)
    conn.execute("SET pg_llm.autograd = on")
    pass_and_back(conn)
    conn.execute(
        """CREATE FUNCTION pg_temp.kept() RETURNS double precision[] LANGUAGE plpgsql AS $$
        DECLARE g tensor; before double precision;
        BEGIN
            PERFORM llm_pin('tiny', true);
            PERFORM pg_llm_item(llm_forward('tiny', '{1,2}', false, '{2,3}')), llm_tape_backward(NULL, 1.0);
            g := pg_llm_arena_grad('tiny', 'ln_f.bias', 0);
            before := norm(g);
            PERFORM pg_llm_tape_clear();
            PERFORM pg_llm_item(llm_forward('tiny', '{5,6}', false, '{7,8}')), llm_tape_backward(NULL, 1.0);
            RETURN ARRAY[before, norm(g), norm(pg_llm_arena_grad('tiny', 'ln_f.bias', 0))];
        END $$"""
    )
    before, after, summed = value(conn, "SELECT pg_temp.kept()")
    assert 0 < before == after != summed


def test_weights_that_the_optimizer_changed_are_gone_with_its_savepoint(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute("SET pg_llm.autograd = on")
    conn.execute("SELECT llm_materialize_params('tiny')")
    pass_and_back(conn)
    with conn.transaction():
        conn.execute("SELECT llm_pin('tiny', true)")
        with conn.transaction(force_rollback=True):
            conn.execute("SELECT pg_llm_arena_adamw('tiny', 0.1, 0.9, 0.999, 1e-8, 0, 1, NULL, false)")
        with pytest.raises(errors.ObjectNotInPrerequisiteState), conn.transaction():
            conn.execute("SELECT pg_llm_param('tiny', 'wpe.weight')")


def test_two_numbers_of_one_tape_are_differentiated_one_after_the_other(conn: Connection) -> None:
    gradients = conn.execute(
        """CREATE FUNCTION pg_temp.two() RETURNS text[] LANGUAGE plpgsql AS $$
        DECLARE x tensor; a bigint; b bigint; result text[];
        BEGIN
            PERFORM pg_llm_set_recording(true, true);
            x := pg_llm_autograd_track_tensor('[1,2]');
            a := pg_llm_tensor_id(pg_llm_sum(x * 2.0::double precision));
            b := pg_llm_tensor_id(pg_llm_sum(x * x));
            PERFORM pg_llm_set_recording(false, true);
            PERFORM llm_tape_backward(a, 1.0);
            result := ARRAY[pg_llm_grad(x)::text];
            PERFORM llm_tape_backward(b, 1.0);
            RETURN result || pg_llm_grad(x)::text;
        END $$;
        SELECT pg_temp.two()"""
    )
    gradients.nextset()
    assert gradients.fetchone() == (["[2,2]", "[4,6]"],)


def test_a_cursor_keeps_its_statements_version(conn: Connection, connect: Connect) -> None:
    """Whatever others commit and whatever the session looks at between two of its rows."""
    make_trainable(conn)
    old = value(conn, POSITIONS)
    with conn.transaction():
        conn.execute(
            "DECLARE c CURSOR FOR SELECT pg_llm_item(pg_llm_sum(llm_weight('tiny', 'wpe.weight'))), i "
            "FROM generate_series(1, 3) i"
        )
        assert value(conn, "FETCH c") == old
        connect().execute(ADD_ONE)
        new = value(conn, POSITIONS)
        assert new != old
        assert value(conn, "FETCH c") == old
        assert value(conn, "FETCH c") == old


def test_own_writes_end_a_statements_version(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(
        f"""CREATE FUNCTION pg_temp.change() RETURNS double precision[] LANGUAGE plpgsql AS $$
        DECLARE before double precision := ({POSITIONS});
        BEGIN
            {ADD_ONE};
            RETURN ARRAY[before, ({POSITIONS})];
        END $$"""
    )
    before, after = value(conn, "SELECT pg_temp.change()")
    assert after == pytest.approx(before + 8 * 16, rel=1e-5)


def test_repeatable_read_sees_one_version(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    old = value(conn, POSITIONS)
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert value(conn, POSITIONS) == old
    connect().execute(ADD_ONE)
    conn.execute("SELECT pg_llm_release()")
    assert value(conn, POSITIONS) == old
    conn.execute("COMMIT")
    assert value(conn, POSITIONS) != old


def test_weights_that_a_trigger_changed_are_read_again(conn: Connection, connect: Connect) -> None:
    """What training stored is not what memory holds, so memory goes."""
    make_trainable(conn)
    conn.execute(
        """CREATE FUNCTION halve() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.data := NEW.data * 0.5::double precision;
            RETURN NEW;
        END $$;
        CREATE TRIGGER halve BEFORE UPDATE ON llm_param FOR EACH ROW EXECUTE FUNCTION halve()"""
    )
    try:
        train(conn, n_steps=2)
        assert value(conn, POSITIONS) == value(connect(), POSITIONS)
        assert value(conn, LOSS) == value(connect(), LOSS)
    finally:
        conn.execute("DROP TRIGGER halve ON llm_param; DROP FUNCTION halve()")


def test_a_trainer_shares_its_version_with_no_generation(conn: Connection) -> None:
    """A generation that begins beside an open training pin still sees one version throughout."""
    make_names(conn)
    with conn.transaction():
        conn.execute("SET LOCAL pg_llm.autograd = on")
        conn.execute("SELECT llm_loss('names', '{1,2}', '{2,3}'), llm_backprop(NULL, 'names')")
        conn.execute("SET LOCAL pg_llm.autograd = off")
        whole = value(conn, "SELECT llm_generate('e', 6, 0, model => 'names')")
        conn.execute("SELECT llm_pin('names', true)")
        conn.execute(
            "DECLARE c CURSOR FOR SELECT token FROM llm_generate_stream('e', 6, 0, model => 'names')"
        )
        pieces = [row[0] for row in conn.execute("FETCH 1 FROM c")]
        conn.execute("SELECT pg_llm_arena_adamw('names', 0.5, 0.9, 0.999, 1e-8, 0, 1, NULL, false)")
        pieces += [row[0] for row in conn.execute("FETCH ALL FROM c")]
    assert "".join(pieces) == whole


def test_an_error_caught_inside_a_forward_pass_ends_it(conn: Connection) -> None:
    """Going on without the cache would be a wrong text."""
    make_names(conn)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="forward pass"):
        conn.execute(
            """DO $$ DECLARE handle int;
            BEGIN
                PERFORM llm_pin('names');
                handle := pg_llm_gen_open('names', '{1,2}', 16);
                PERFORM pg_llm_gen_use(ARRAY[handle]);
                BEGIN
                    PERFORM llm_forward('names', '{1,2}');
                    PERFORM 1 / 0;
                EXCEPTION WHEN division_by_zero THEN NULL;
                END;
                PERFORM pg_llm_gen_done();
            END $$"""
        )


def test_a_finished_generation_lets_its_version_go(conn: Connection) -> None:
    make_names(conn)
    with conn.transaction():
        conn.execute("SELECT llm_generate('e', 3, 0, model => 'names')")
        for handle in range(1, 4):
            with pytest.raises(errors.UndefinedObject), conn.transaction():
                conn.execute("SELECT pg_llm_gen_length(%s)", (handle,))


def test_a_failed_training_call_leaves_recording_whole(conn: Connection) -> None:
    """Training takes no norms of passes that leave no rows; the next pass by hand has them."""
    make_trainable(conn)
    conn.execute("SET pg_llm.tape_keep = 'none'")
    with pytest.raises(errors.NumericValueOutOfRange):
        train(conn, n_steps=50, lr_max=1e30, warmup=0)
    conn.execute("SET pg_llm.tape_keep = 'last'")
    conn.execute("SET pg_llm.autograd = on")
    conn.execute(LOSS)
    assert value(conn, "SELECT count(*) FILTER (WHERE norm IS NULL) FROM pg_llm_tape_tensors()") == 0


def test_a_tensor_passed_through_keeps_its_owner(conn: Connection) -> None:
    """Not recorded, a tracked tensor is the caller's own: two variables must not share one object."""
    conn.execute(
        """CREATE FUNCTION pg_temp.shared() RETURNS text LANGUAGE plpgsql AS $$
        DECLARE x tensor := '[1,2]'::tensor + '[1,1]'; y tensor; z tensor;
        BEGIN
            y := pg_llm_autograd_track_tensor(x);
            x := NULL;
            z := '[7,7]'::tensor + '[0,0]';
            RETURN y::text || z::text;
        END $$"""
    )
    assert value(conn, "SELECT pg_temp.shared()") == "[2,3][7,7]"


@pytest.mark.parametrize(
    "call",
    [
        "pg_llm_slice(pg_llm_full('{32767,32767,0}', 0), 2, 0, 0)",
        "pg_llm_concat(pg_llm_full('{32767,32767,0}', 0), pg_llm_full('{32767,32767,0}', 0), 2)",
        "pg_llm_full('{32767,32767,0,1}', 0) @ pg_llm_full('{1,1,1,1}', 0)",
    ],
)
def test_walks_over_nothing_can_be_cancelled(conn: Connection, call: str) -> None:
    conn.execute("SET statement_timeout = '100ms'")
    with pytest.raises(errors.QueryCanceled):
        conn.execute(f"SELECT shape({call})")


def test_an_empty_tensor_is_bounded_like_any(conn: Connection) -> None:
    with pytest.raises(errors.ProgramLimitExceeded):
        conn.execute("SELECT shape(pg_llm_full('{2147483647,2147483647,0}', 0))")
    assert value(conn, "SELECT shape(pg_llm_full('{1000000000,0}', 0))") is not None
