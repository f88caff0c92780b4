"""Errors that are caught inside of a pass: training goes on as if nothing had happened, or says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from psycopg import errors

from ..support.small_models import Connection, add_rows, train, weights
from ..support.tensors import value

Connect = Callable[..., Connection]

# A forward pass of two matrices with a place for a block in the middle.
FORWARD = """
CREATE OR REPLACE FUNCTION caught_{name}_forward(model text, tokens int[], training boolean, targets int[],
    dropout_p double precision, last_only boolean) RETURNS tensor LANGUAGE plpgsql AS $$
DECLARE
    x tensor;
    y tensor;
BEGIN
    x := pg_llm_embedding(llm_weight(model, 'wte.weight'), tokens);
    x := pg_llm_dropout(x, 0.3, training);
    {block}
    x := pg_llm_dropout(x, 0.3, training);
    IF targets IS NOT NULL THEN
        RETURN pg_llm_lm_head_loss(x, llm_weight(model, 'lm_head.weight'), targets);
    END IF;
    RETURN pg_llm_lm_head(x, llm_weight(model, 'lm_head.weight'));
END $$"""
PARAMETERS = """
CREATE OR REPLACE FUNCTION caught_parameters(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision) LANGUAGE sql STABLE AS $$
    SELECT v.* FROM llm_config(model) c, LATERAL (VALUES
        ('wte.weight', ARRAY[c.vocab, c.d_model], 'normal', 0.1::float8),
        ('lm_head.weight', ARRAY[c.vocab, c.d_model], 'normal', 0.1::float8)) v $$"""
CATCH = "EXCEPTION WHEN division_by_zero THEN NULL; END;"
# Blocks that leave no trace: the bits are those of a pass without them.
HARMLESS = {
    "error alone": f"BEGIN PERFORM 1 / 0; {CATCH}",
    "ops": f"BEGIN PERFORM pg_llm_sum(pg_llm_gelu(x)); PERFORM 1 / 0; {CATCH}",
    "dropout": f"BEGIN PERFORM pg_llm_dropout(x, 0.5, true); PERFORM 1 / 0; {CATCH}",
    "weights": f"BEGIN PERFORM llm_weight(model, 'lm_head.weight'); PERFORM 1 / 0; {CATCH}",
    "a leaf that lives on": f"BEGIN y := llm_weight(model, 'lm_head.weight'); PERFORM 1 / 0; {CATCH}",
    "nested": f"BEGIN BEGIN y := pg_llm_gelu(x); PERFORM 1 / 0; {CATCH} PERFORM pg_llm_relu(x); "
    f"PERFORM 1 / 0; {CATCH}",
    "again and again": f"FOR i IN 1 .. 3 LOOP BEGIN PERFORM pg_llm_gelu(x); PERFORM 1 / 0; {CATCH} END LOOP;",
    "an op's own error": "BEGIN PERFORM pg_llm_add(x, '[1,2,3,4,5,6,7]'); "
    "EXCEPTION WHEN invalid_parameter_value THEN NULL; END;",
    "the key of the pass": f"BEGIN PERFORM pg_llm_pass_begin(7, 7, 7); PERFORM 1 / 0; {CATCH}",
    "recording": "BEGIN PERFORM pg_llm_set_recording(false, true); PERFORM pg_llm_gelu(x); "
    f"PERFORM 1 / 0; {CATCH}",
    "no error": f"BEGIN PERFORM pg_llm_sum('[1,2]'); {CATCH}",
}
# Blocks after which the gradient would be wrong: training says so.
HARMFUL = {
    "a value of the block": f"BEGIN y := pg_llm_gelu(x); PERFORM 1 / 0; {CATCH} x := x + y;",
    "the variable itself": f"BEGIN x := pg_llm_gelu(x); PERFORM 1 / 0; {CATCH}",
    "tape cleared in the block": f"BEGIN PERFORM pg_llm_tape_clear(); PERFORM 1 / 0; {CATCH}",
    "tape cleared": "PERFORM pg_llm_tape_clear();",
    "another loss": "PERFORM llm_loss('other', '{1,2}', '{2,3}');",
    "another loss in a block": "BEGIN PERFORM llm_loss('other', '{1,2}', '{2,3}'); "
    f"PERFORM 1 / 0; {CATCH}",
    "backward in a block": "BEGIN PERFORM pg_llm_sum(x); PERFORM pg_llm_backward_begin(NULL, 1); "
    f"PERFORM 1 / 0; {CATCH}",
}


def make(conn: Connection, name: str, block: str) -> str:
    conn.execute(FORWARD.format(name=name, block=block))
    conn.execute(PARAMETERS)
    conn.execute(
        "INSERT INTO llm_arch VALUES (%s, %s, 'caught_parameters')",
        (f"caught_{name}", f"caught_{name}_forward"),
    )
    conn.execute("SELECT llm_create_model(%s, %s, 1, 1, 8, 8, 13, 1)", (name, f"caught_{name}"))
    add_rows(conn, name)
    return name


ARGUMENTS: dict[str, Any] = {"lr_max": 0.1, "warmup": 0, "batch_size": 2, "grad_accum": 2, "dropout_p": 0.1}


@pytest.fixture
def rolled_back(conn: Connection) -> Any:
    with conn.transaction(force_rollback=True):
        yield conn


def test_a_pass_goes_on_after_a_caught_error(rolled_back: Connection) -> None:
    conn = rolled_back
    make(conn, "plain", "")
    before = weights(conn, "plain")
    train(conn, "plain", 3, **ARGUMENTS)
    expected = weights(conn, "plain")
    assert all(expected[key] != before[key] for key in before)
    for i, (what, block) in enumerate(HARMLESS.items()):
        name = make(conn, f"h{i}", block)
        train(conn, name, 3, **ARGUMENTS)
        assert weights(conn, name) == expected, what


def test_a_pass_that_lost_something_is_not_differentiated(rolled_back: Connection) -> None:
    conn = rolled_back
    make(conn, "other", "")
    for i, (what, block) in enumerate(HARMFUL.items()):
        name = make(conn, f"w{i}", block)
        before = weights(conn, name)
        with pytest.raises(errors.ObjectNotInPrerequisiteState) as raised, conn.transaction():
            train(conn, name, 3, **ARGUMENTS)
        assert raised.value.diag.message_hint, what
        assert weights(conn, name) == before, what
        assert value(conn, "SELECT count(*) FROM pg_llm_tape(false)") == 0, what


def test_what_is_differentiated_is_the_loss(rolled_back: Connection) -> None:
    """Whatever an architecture computes after it; one that is no longer recorded is refused."""
    conn = rolled_back
    make(conn, "plain", "")
    train(conn, "plain", 3, **ARGUMENTS)
    make(conn, "after", "")
    body = value(conn, "SELECT prosrc FROM pg_proc WHERE proname = 'caught_after_forward'")
    returned = "RETURN pg_llm_lm_head_loss(x, llm_weight(model, 'lm_head.weight'), targets);"
    for instead, refused in [
        (f"y := {returned[7:]} PERFORM pg_llm_mean(x); RETURN y;", False),
        (f"y := {returned[7:]} RETURN pg_llm_item(y)::tensor;", True),
    ]:
        conn.execute(
            "CREATE OR REPLACE FUNCTION caught_after_forward(model text, tokens int[], training boolean,"
            " targets int[], dropout_p double precision, last_only boolean) RETURNS tensor LANGUAGE plpgsql"
            f" AS $${body.replace(returned, instead)}$$"
        )
        if refused:
            with pytest.raises(
                errors.ObjectNotInPrerequisiteState, match="does not depend on any recorded op"
            ):
                train(conn, "after", 3, **ARGUMENTS)
        else:
            train(conn, "after", 3, **ARGUMENTS)
            assert weights(conn, "after") == weights(conn, "plain")


def test_generation_goes_on_where_no_part_of_it_was_undone(rolled_back: Connection) -> None:
    conn = rolled_back
    conn.execute("SELECT llm_create_model('g', 'gpt2', 1, 1, 8, 8, 13, 1)")
    conn.execute(
        """CREATE FUNCTION caught_pass(h int, block text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_llm_gen_use(ARRAY[h]);
            PERFORM pg_llm_causal_attention('[[1,2,3]]'::tensor, 1, 0, false, '');
            BEGIN
                EXECUTE block;
                PERFORM 1 / 0;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
            PERFORM pg_llm_gen_done();
            RETURN pg_llm_gen_length(h);
        END $$"""
    )
    conn.execute("SELECT llm_pin('g')")
    opened = "pg_llm_gen_open('g', '{1}', 8)"
    assert value(conn, f"SELECT caught_pass({opened}, 'SELECT 1')") == 1
    attention = "SELECT pg_llm_causal_attention(''[[1,2,3]]''::tensor, 1, 0, false, '''')"
    with pytest.raises(errors.ObjectNotInPrerequisiteState), conn.transaction():
        conn.execute(f"SELECT caught_pass({opened}, '{attention}')")


LOSS = "SELECT llm_loss(%s, tokens, target) FROM llm_dataset WHERE model = %s ORDER BY id LIMIT 1"
NORM = "SELECT sqrt(coalesce(sum(value::float ^ 2), 0)) FROM jsonb_each_text(pg_llm_arena_grad_norms(%s))"


def gradient_norm(conn: Connection, model: str) -> float:
    """Of what this session's backward passes have summed."""
    with conn.transaction():
        conn.execute("SELECT llm_pin(%s, true)", (model,))
        norm = value(conn, NORM, (model,))
        conn.execute("SELECT pg_llm_arena_close(%s)", (model,))
    assert isinstance(norm, float)
    return norm


def test_gradients_that_are_lost_are_asked_for_again(rolled_back: Connection) -> None:
    """Summed before a savepoint, added to inside of it: what is left is neither, and trains nothing."""
    conn = rolled_back
    make(conn, "m", "")
    conn.execute("SELECT llm_materialize_params('m')")
    conn.execute("SET LOCAL pg_llm.autograd = on")
    conn.execute(LOSS, ("m", "m"))
    conn.execute("SELECT llm_backprop()")
    norm = gradient_norm(conn, "m")
    assert norm > 0
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT 1")
    assert gradient_norm(conn, "m") == norm
    with conn.transaction(force_rollback=True):
        conn.execute(LOSS, ("m", "m"))
        conn.execute("SELECT llm_backprop()")
        assert gradient_norm(conn, "m") > norm
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="lost"), conn.transaction():
        gradient_norm(conn, "m")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="lost"), conn.transaction():
        conn.execute("SELECT llm_accumulate_grads('m')")
    conn.execute("SELECT llm_materialize_params('m')")
    conn.execute(LOSS, ("m", "m"))
    conn.execute("SELECT llm_backprop()")
    assert gradient_norm(conn, "m") == norm


def test_a_pass_outlives_a_savepoint_that_had_no_part_in_it(rolled_back: Connection) -> None:
    conn = rolled_back
    make(conn, "m", "")
    conn.execute("SET LOCAL pg_llm.autograd = on")
    conn.execute("SELECT llm_materialize_params('m')")
    conn.execute(LOSS, ("m", "m"))
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT pg_llm_sum('[1,2]')")
    assert value(conn, "SELECT llm_backprop(NULL, 'm')") > 0
    assert value(conn, "SELECT count(*) FROM llm_tensor_rt WHERE grad_norm > 0") > 0


def test_progress_is_shown_through_a_caught_error(conn: Connection, connect: Connect) -> None:
    other = connect()
    with conn.transaction():
        conn.execute("SELECT pg_llm_progress('m', 1, 1, 2, 0, 0, 0)")
        with conn.transaction(force_rollback=True):
            conn.execute("SELECT 1")
        assert value(other, "SELECT model FROM pg_llm_train_progress()") == "m"
        with conn.transaction(force_rollback=True):
            conn.execute("SELECT pg_llm_progress('n', 2, 1, 2, 0, 0, 0)")
        assert other.execute("SELECT model FROM pg_llm_train_progress()").fetchall() == []
