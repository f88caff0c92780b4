"""What recorded passes leave in llm_tape, llm_tensor_rt and llm_tensor_map."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ..support.small_models import make_trainable, train
from ..support.tensors import value

Connection = psycopg.Connection[Any]

LOSS = "SELECT llm_loss('tiny', tokens, target) FROM llm_dataset ORDER BY id LIMIT 1"


def counts(conn: Connection) -> tuple[int, int, int]:
    return (
        value(conn, "SELECT count(*) FROM llm_tape"),
        value(conn, "SELECT count(*) FROM llm_tensor_rt"),
        value(conn, "SELECT count(DISTINCT step) FROM llm_tape"),
    )


@pytest.mark.parametrize("arch", ["gpt2", "microgpt"])
def test_the_tape_of_a_step_is_whole(conn: Connection, arch: str) -> None:
    make_trainable(conn, arch=arch)
    run = train(conn, n_steps=2, batch_size=2)
    rows = conn.execute(
        "SELECT id, run, model, step, position, name, inputs, output, extra FROM llm_tape ORDER BY position"
    ).fetchall()
    assert {row[1:4] for row in rows} == {(run, "tiny", 2)}
    assert [row[4] for row in rows] == list(range(1, len(rows) + 1))
    leaves = {row[0] for row in conn.execute("SELECT tensor_id FROM llm_tensor_map WHERE model = 'tiny'")}
    seen: set[int] = set()
    for _, _, _, _, _, _, inputs, output, extra in rows:
        assert all(i in seen or i in leaves for i in inputs)
        assert output not in seen
        assert "shape" in extra
        seen.add(output)
    assert leaves <= {i for row in rows for i in row[6]}
    assert len(leaves) == value(conn, "SELECT count(*) FROM llm_param WHERE model = 'tiny'")
    tensors = conn.execute("SELECT id, requires_grad, norm, grad_norm, data FROM llm_tensor_rt").fetchall()
    assert {t[0] for t in tensors} == seen | leaves
    assert all(wants and norm is not None and grad is not None for _, wants, norm, grad, _ in tensors)
    assert all(data is None for *_, data in tensors)


def test_parameter_gradient_norms_are_the_steps(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, n_steps=1)
    square = value(
        conn, "SELECT sum(grad_norm ^ 2) FROM llm_tensor_rt t JOIN llm_tensor_map m ON m.tensor_id = t.id"
    )
    assert square**0.5 == pytest.approx(value(conn, "SELECT grad_norm FROM llm_train_log"), rel=1e-5)


@pytest.mark.parametrize(("keep", "steps"), [("none", 0), ("last", 1), ("all", 3)])
def test_tape_keep(conn: Connection, keep: str, steps: int) -> None:
    make_trainable(conn)
    conn.execute("SELECT set_config('pg_llm.tape_keep', %s, false)", (keep,))
    train(conn, n_steps=3)
    assert counts(conn)[2] == steps


def test_the_next_call_replaces_the_last_pass(conn: Connection) -> None:
    make_trainable(conn)
    make_trainable(conn, "other")
    train(conn, n_steps=1)
    train(conn, "other", 1)
    ops, tensors, _ = counts(conn)
    train(conn, n_steps=2)
    assert counts(conn)[:2] == (ops, tensors)
    assert conn.execute("SELECT model, max(step) FROM llm_tape GROUP BY model ORDER BY model").fetchall() == [
        ("other", 1),
        ("tiny", 3),
    ]


def test_record_off_leaves_nothing(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute("SET pg_llm.record = off")
    train(conn, n_steps=2)
    assert counts(conn)[:2] == (0, 0)


def test_record_full_keeps_the_numbers(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute("SET pg_llm.record = full")
    train(conn, n_steps=1, keep_grad=True)
    assert value(conn, "SELECT bool_and(data IS NOT NULL AND shape(data) = shape) FROM llm_tensor_rt")
    assert value(
        conn,
        "SELECT bool_and(t.grad = p.grad) FROM llm_tensor_rt t JOIN llm_tensor_map m ON m.tensor_id = t.id"
        " JOIN llm_param p USING (model, name, token_id)",
    )


def test_llm_loss_records_while_the_mode_is_on(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(LOSS)
    assert counts(conn)[:2] == (0, 0)
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    conn.execute(LOSS)
    ops = counts(conn)[0]
    assert ops > 20
    assert value(conn, "SELECT count(grad_norm) FROM llm_tensor_rt") == 0
    conn.execute("SELECT llm_backprop()")
    assert counts(conn)[0] == ops
    assert value(conn, "SELECT count(*) = count(grad_norm) FROM llm_tensor_rt WHERE requires_grad")
    conn.execute("DELETE FROM llm_autograd_mode")
    assert value(conn, "SELECT flag FROM llm_autograd_mode") is False


def test_training_leaves_the_mode_as_it_was(conn: Connection) -> None:
    make_trainable(conn)
    for flag in (True, False):
        conn.execute("UPDATE llm_autograd_mode SET flag = %s", (flag,))
        train(conn, n_steps=1)
        assert value(conn, "SELECT flag FROM llm_autograd_mode") is flag


def test_a_read_only_transaction_records_in_memory_only(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute(LOSS)
        assert value(conn, "SELECT llm_backprop()") > 20
    assert counts(conn)[:2] == (0, 0)


def test_a_reader_records_in_memory_only(conn: Connection) -> None:
    make_trainable(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL ROLE llm_reader")
        conn.execute("SET LOCAL pg_llm.autograd = on")
        conn.execute(LOSS)
        assert value(conn, "SELECT llm_backprop()") > 20
        assert counts(conn)[:2] == (0, 0)


def test_a_pass_is_of_the_step_to_come(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, n_steps=2)
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    conn.execute(LOSS)
    conn.execute("SELECT llm_backprop()")
    assert conn.execute("SELECT DISTINCT model, step, run FROM llm_tape").fetchall() == [("tiny", 3, None)]
    conn.execute("SELECT pg_llm_tape_clear()")
    conn.execute("SELECT pg_llm_sum(pg_llm_gelu(pg_llm_autograd_track_tensor('[1,2]')))")
    conn.execute("SELECT llm_backprop()")
    assert conn.execute(
        "SELECT name, step FROM llm_tape WHERE model IS NULL ORDER BY position"
    ).fetchall() == [
        ("gelu", None),
        ("sum", None),
    ]


def test_steps_by_their_view(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, n_steps=2)
    rows = conn.execute("SELECT step, loss, grad_norm, activations FROM llm_step ORDER BY step").fetchall()
    assert [row[0] for row in rows] == [1, 2]
    assert rows[1][3]
