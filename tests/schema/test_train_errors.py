"""What training refuses, with SQLSTATE, the numbers and the row, and without a trace."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import add_rows, make_model, make_trainable, train
from ..support.tensors import value

Connection = psycopg.Connection[Any]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("n_layer => 3", 'n_layer 3, model "tiny" has 2'),
        ("n_head => 4", 'n_head 4, model "tiny" has 2'),
        ("D => 32", 'd_model 32, model "tiny" has 16'),
        ("vocab => 50257", 'vocab 50257, model "tiny" has 13'),
        ("warmup => 5", "warmup must be shorter than the run: 5 of 5 steps"),
        ("warmup => -1", "warmup"),
        ("dropout_p => 1", r"dropout_p must be in \[0, 1\), got 1"),
        ("dropout_p => 'NaN'", r"dropout_p must be in \[0, 1\), got NaN"),
        ("dropout_p => NULL", r"dropout_p must be in \[0, 1\), got NULL"),
        ("beta1 => 1", "beta1"),
        ("beta2 => -0.1", "beta2"),
        ("eps => 0", "eps must be positive and finite, got 0"),
        ("wd => -1", "wd"),
        ("lr_max => 0", "lr_max must be positive and finite, got 0"),
        ("lr_max => 'Infinity'", "lr_max must be positive and finite, got Infinity"),
        ("min_lr => 1", "min_lr must be between 0 and lr_max"),
        ("grad_clip => 0", "grad_clip"),
        ("grad_workers => -1", "grad_workers"),
        ("prune_workers => 100000", "prune_workers"),
        ("batch_size => 0", "batch_size must be at least 1, got 0"),
        ("grad_accum => 0", "grad_accum"),
        (
            "batch_size => 100000, grad_accum => 100000",
            "grad_accum must be at most 21474 for batches of 100000 rows",
        ),
        ("block_size => 9", "block_size must be between 1 and the context of 8, got 9"),
        ("schedule => 'step'", "schedule must be cosine, linear or constant, got step"),
        ("decay => 'none'", "decay must be all or matrices, got none"),
        ("seed => NULL", "seed must be a number, got NULL"),
        ("start_step => 2", "start_step must be between 1 and the next step 1, got 2"),
        ("total_steps => 4", "a schedule of 4 steps from step 1 ends before step 5"),
        ("log_every => -1", "log_every"),
    ],
)
@pytest.mark.parametrize("call", ["SELECT llm_train('tiny', 5, {})", "CALL llm_train_loop('tiny', 5, {})"])
def test_arguments(conn: Connection, call: str, arguments: str, message: str) -> None:
    make_trainable(conn)
    with pytest.raises(errors.InvalidParameterValue, match=message):
        conn.execute(call.format(arguments))
    assert value(conn, "SELECT count(*) FROM llm_train_run") == 0


@pytest.mark.parametrize("arguments", ["[]", "null", '"n_steps"'])
def test_a_run_begins_with_an_object(conn: Connection, arguments: str) -> None:
    make_trainable(conn)
    with pytest.raises(errors.InvalidParameterValue, match="must be a JSON object of llm_train's arguments"):
        conn.execute("SELECT llm_train_begin('tiny', %s)", (arguments,))


@pytest.mark.parametrize(
    "call", ["SELECT llm_train('tiny', 1)", "CALL llm_train_loop('tiny', 1)", "SELECT llm_drop_model('tiny')"]
)
def test_a_reader_is_told_who_trains(conn: Connection, call: str) -> None:
    make_trainable(conn)
    conn.execute("SET ROLE llm_reader")
    with pytest.raises(errors.InsufficientPrivilege) as refused:
        conn.execute(call)
    assert 'only trainers can change model "tiny"' in str(refused.value)
    assert "GRANT llm_trainer TO llm_reader" in (refused.value.diag.message_hint or "")


@pytest.mark.parametrize("n_steps", ["0", "-1", "NULL"])
def test_number_of_steps(conn: Connection, n_steps: str) -> None:
    make_trainable(conn)
    with pytest.raises(errors.InvalidParameterValue, match=f"n_steps must be at least 1, got {n_steps}"):
        conn.execute(f"SELECT llm_train('tiny', {n_steps})")


def test_unknown_model(conn: Connection) -> None:
    for call in (
        "SELECT llm_train('nobody', 1)",
        "CALL llm_train_loop('nobody', 1)",
        "SELECT llm_train_step('nobody', 1)",
        "SELECT llm_loss('nobody', '{1}', '{1}')",
        "SELECT llm_logits('{1}', 'nobody')",
        "SELECT llm_init_model('nobody')",
        "SELECT llm_drop_model('nobody')",
        "SELECT llm_fill_dataset('nobody', 'SELECT 1')",
        "SELECT llm_evaluate('nobody')",
        "SELECT llm_perplexity('nobody', 'a')",
        "SELECT llm_materialize_params('nobody')",
        "SELECT llm_backprop(NULL, 'nobody')",
    ):
        with pytest.raises(errors.UndefinedObject, match='"nobody" does not exist'):
            conn.execute(call)


def test_a_model_without_weights(conn: Connection) -> None:
    for call in (
        "SELECT llm_train('gpt2-small', 1)",
        "SELECT llm_loss('gpt2-small', '{1}', '{1}')",
        "SELECT llm_materialize_params('gpt2-small')",
    ):
        with pytest.raises(errors.NoDataFound):
            conn.execute(call)


def test_no_data(conn: Connection) -> None:
    make_model(conn)
    with pytest.raises(errors.NoDataFound, match='no rows for model "tiny" with split "train"') as caught:
        train(conn)
    assert "llm_fill_dataset" in (caught.value.diag.message_hint or "")
    add_rows(conn, "other")
    with pytest.raises(errors.NoDataFound):
        train(conn)
    conn.execute("UPDATE llm_dataset SET model = NULL")
    train(conn, n_steps=1)


@pytest.mark.parametrize(
    ("tokens", "target", "error", "message"),
    [
        ("{1,13}", "{1,2}", errors.NumericValueOutOfRange, "a token outside the vocabulary of 13"),
        ("{-1,1}", "{1,2}", errors.NumericValueOutOfRange, "a token outside the vocabulary of 13"),
        ("{1,2}", "{1,13}", errors.NumericValueOutOfRange, "a target outside the vocabulary of 13"),
        ("{}", "{}", errors.InvalidParameterValue, "has no tokens"),
        (
            "{1,1,1,1,1,1,1,1,1}",
            "{1,1,1,1,1,1,1,1,1}",
            errors.InvalidParameterValue,
            "has 9 tokens, the context holds 8",
        ),
    ],
)
def test_a_bad_row_is_named(
    conn: Connection, tokens: str, target: str, error: type[psycopg.Error], message: str
) -> None:
    make_trainable(conn)
    row = value(
        conn,
        "INSERT INTO llm_dataset (model, tokens, target) VALUES ('tiny', %s, %s) RETURNING id",
        (tokens, target),
    )
    with pytest.raises(error, match=f"row {row} of llm_dataset .*{message}"):
        train(conn)
    with pytest.raises(error, match=f"row {row} of llm_dataset .*{message}"):
        conn.execute("SELECT llm_train_step('tiny', %s)", (row,))
    with pytest.raises(error, match=f"row {row} of llm_dataset .*{message}"):
        conn.execute("SELECT llm_evaluate('tiny', 'train')")


def test_ignored_targets_are_fine(conn: Connection) -> None:
    make_model(conn)
    conn.execute("INSERT INTO llm_dataset (model, tokens, target) VALUES ('tiny', '{1,2,3}', '{-100,-1,4}')")
    run = train(conn, n_steps=1)
    assert value(conn, "SELECT tokens FROM llm_train_log WHERE run_id = %s", (run,)) == 1


@pytest.mark.parametrize(
    ("tokens", "targets", "error", "message"),
    [
        ("{1,2,3}", "{1,2}", errors.InvalidParameterValue, r"tokens have shape \[3\], targets \[2\]"),
        (
            "{{1,2},{3,4}}",
            "{1,2,3,4}",
            errors.InvalidParameterValue,
            r"tokens have shape \[2,2\], targets \[4\]",
        ),
        ("{}", "{}", errors.InvalidParameterValue, r"got shape \[0\]"),
        ("{{{1}}}", "{{{1}}}", errors.InvalidParameterValue, r"got shape \[1,1,1\]"),
        (
            "{1,1,1,1,1,1,1,1,1}",
            "{1,1,1,1,1,1,1,1,1}",
            errors.InvalidParameterValue,
            "9 tokens exceeds the context of 8",
        ),
        ("{13}", "{1}", errors.NumericValueOutOfRange, "13"),
        ("{1}", "{13}", errors.NumericValueOutOfRange, "13"),
        ("{-1}", "{1}", errors.NumericValueOutOfRange, "-1"),
    ],
)
def test_loss_refuses(
    conn: Connection, tokens: str, targets: str, error: type[psycopg.Error], message: str
) -> None:
    make_model(conn)
    with pytest.raises(error, match=message):
        conn.execute("SELECT llm_loss('tiny', %s, %s)", (tokens, targets))
    with pytest.raises(error, match=message):
        conn.execute("SELECT llm_loss('tiny', %s, %s, 2, 2, 16, 13, 0.1, true)", (tokens, targets))


def test_null_gives_null(conn: Connection) -> None:
    make_model(conn)
    assert value(conn, "SELECT llm_loss('tiny', NULL, '{1}')") is None
    assert value(conn, "SELECT llm_loss('tiny', '{1}', NULL, 2, 2, 16, 13)") is None
    assert value(conn, "SELECT llm_logits(NULL, 'tiny')") is None


def test_weights_that_do_not_fit(conn: Connection) -> None:
    make_trainable(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("DELETE FROM llm_param WHERE name = 'h.1.mlp.c_fc.bias'")
        with (
            pytest.raises(errors.NoDataFound, match=r'lacks parameter "h\.1\.mlp\.c_fc\.bias"'),
            conn.transaction(),
        ):
            conn.execute("SELECT llm_loss('tiny', '{1}', '{1}')")
        with pytest.raises(errors.NoDataFound), conn.transaction():
            train(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("UPDATE llm_param SET data = '[1,2,3]' WHERE name = 'ln_f.weight'")
        with pytest.raises(
            errors.InvalidParameterValue, match=r"has shape \[3\], but its configuration requires \[16\]"
        ):
            train(conn)
    conn.execute("UPDATE llm_param SET data = data * 'NaN'::float8 WHERE name = 'ln_f.weight'")
    with pytest.raises(errors.NumericValueOutOfRange, match="not finite"):
        train(conn)


def test_numbers_that_grow_beyond_bounds(conn: Connection) -> None:
    make_trainable(conn)
    with pytest.raises(errors.NumericValueOutOfRange, match=r"not finite at step \d+"):
        train(conn, n_steps=200, lr_max=1e30, warmup=0)
    assert value(conn, "SELECT max(step) FROM llm_param WHERE model = 'tiny'") == 0
