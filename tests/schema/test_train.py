"""llm_train: what a run computes, logs and leaves behind."""

from __future__ import annotations

import math
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import add_rows, make_model, make_trainable, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]


def test_loss_falls_and_every_step_is_logged(conn: Connection) -> None:
    make_trainable(conn)
    before = value(conn, "SELECT nll FROM llm_evaluate('tiny', 'train')")
    run = train(conn, n_steps=60, lr_max=0.01, batch_size=5, dropout_p=0.0)
    after = value(conn, "SELECT nll FROM llm_evaluate('tiny', 'train')")
    assert after < before / 3
    log = conn.execute(
        "SELECT step, model, lr, loss, grad_norm, tokens, seconds, superseded FROM llm_train_log"
        " WHERE run_id = %s ORDER BY step",
        (run,),
    ).fetchall()
    assert [row[0] for row in log] == list(range(1, 61))
    for _, model, lr, loss, grad_norm, tokens, seconds, superseded in log:
        assert model == "tiny"
        assert 0 < lr <= 0.01
        assert loss > 0
        assert grad_norm > 0
        assert tokens == 40
        assert seconds > 0
        assert not superseded
    assert log[0][3] == pytest.approx(math.log(13), rel=0.05)
    assert log[-1][3] < log[0][3] / 3
    row = conn.execute(
        "SELECT first_step, last_step, status, finished_at >= started_at, numerics_version FROM llm_train_run"
        " WHERE run_id = %s",
        (run,),
    ).fetchone()
    assert row is not None
    assert row[:4] == (1, 60, "done", True)
    assert row[4] >= 1
    assert value(conn, "SELECT array_agg(DISTINCT step) FROM llm_param WHERE model = 'tiny'") == [60]


def test_steps_are_numbered_over_the_models_life(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, n_steps=3)
    second = train(conn, n_steps=2)
    steps = conn.execute(
        "SELECT step FROM llm_train_log WHERE run_id = %s ORDER BY step", (second,)
    ).fetchall()
    assert steps == [(4,), (5,)]


def test_rates_warm_up_and_decay(conn: Connection) -> None:
    make_trainable(conn)
    run = train(conn, n_steps=10, lr_max=1.0e-3, warmup=4, min_lr=1.0e-4)
    rates = [
        row[0] for row in conn.execute("SELECT lr FROM llm_train_log WHERE run_id = %s ORDER BY step", (run,))
    ]
    assert rates[:4] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])
    expected = [1e-4 + 0.5 * (1 + math.cos(math.pi * k / 6)) * 9e-4 for k in range(6)]
    assert rates[4:] == pytest.approx(expected)


@pytest.mark.parametrize(("n_steps", "warmup"), [(9, 0), (20, 2), (2000, 200), (2001, 2000)])
def test_default_warmup(conn: Connection, n_steps: int, warmup: int) -> None:
    make_trainable(conn)
    run = value(
        conn,
        "SELECT llm_train_begin('tiny', hyperparameters || jsonb_build_object("
        "'n_steps', %s::int, 'warmup', NULL, 'total_steps', NULL, 'start_step', NULL))"
        " FROM llm_train_run WHERE run_id = %s",
        (n_steps, train(conn, n_steps=1)),
    )
    assert (
        value(conn, "SELECT (hyperparameters ->> 'warmup')::int FROM llm_train_run WHERE run_id = %s", (run,))
        == warmup
    )


def test_two_calls_of_one_schedule_do_what_one_call_does(conn: Connection) -> None:
    for model in ("whole", "halves"):
        make_trainable(conn, model)
    settings: dict[str, Any] = {"batch_size": 3, "dropout_p": 0.2, "lr_max": 0.01, "warmup": 2}
    train(conn, "whole", 8, **settings)
    for _ in range(2):
        train(conn, "halves", 4, start_step=1, total_steps=8, **settings)
    assert weights(conn, "whole") == weights(conn, "halves")
    rates = "SELECT array_agg(lr ORDER BY step) FROM llm_train_log WHERE model = %s"
    assert value(conn, rates, ("whole",)) == value(conn, rates, ("halves",))


def test_same_seed_same_bits_other_seed_others(conn: Connection) -> None:
    for model, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_trainable(conn, model)
        train(conn, model, 4, seed=seed, batch_size=2)
    assert weights(conn, "a") == weights(conn, "b")
    assert weights(conn, "a") != weights(conn, "c")


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(conn: Connection, threads: int) -> None:
    for model, count in (("one", 1), ("more", threads)):
        make_trainable(conn, model, d_model=64)
        conn.execute("SET pg_llm.max_threads = 64")
        conn.execute("SELECT set_config('pg_llm.threads', %s, false)", (str(count),))
        train(conn, model, 3, batch_size=5, grad_workers=count, prune_workers=0)
    assert weights(conn, "one") == weights(conn, "more")
    assert value(conn, "SHOW pg_llm.threads") == str(threads)


def test_an_epoch_takes_every_row_once(conn: Connection) -> None:
    ids = list(range(101, 108))
    taken = [value(conn, "SELECT pg_llm_batch(7, 5, %s, 1)", (position,))[0] for position in range(21)]
    assert {ids[t - 1] for t in taken[:7]} == {ids[t - 1] for t in taken[7:14]} == set(ids)
    assert taken[:7] != taken[7:14]


def test_rows_of_different_length_are_padded_and_masked(conn: Connection) -> None:
    make_model(conn)
    conn.execute(
        "INSERT INTO llm_dataset (model, tokens, target) VALUES"
        " ('tiny', '{1,2,3}', '{2,3,4}'), ('tiny', '{5,6,7,8,9}', '{6,7,8,-1,10}')"
    )
    sums = [
        value(
            conn,
            "SELECT llm_loss('tiny', tokens, target) * count FROM llm_dataset,"
            " LATERAL (SELECT count(*) FILTER (WHERE t >= 0) FROM unnest(target) t) c ORDER BY id OFFSET %s",
            (i,),
        )
        for i in range(2)
    ]
    run = train(conn, n_steps=1, batch_size=2, dropout_p=0.0)
    loss, tokens = (
        conn.execute("SELECT loss, tokens FROM llm_train_log WHERE run_id = %s", (run,)).fetchone() or ()
    )
    assert tokens == 7
    assert loss == pytest.approx(sum(sums) / 7, rel=1e-6)


def test_block_size_cuts_rows(conn: Connection) -> None:
    make_trainable(conn)
    run = train(conn, n_steps=1, block_size=3, batch_size=2)
    assert value(conn, "SELECT tokens FROM llm_train_log WHERE run_id = %s", (run,)) == 6
    add_rows(conn, rows=1, length=20)
    with pytest.raises(
        errors.InvalidParameterValue, match=r"row \d+ of .* has 20 tokens, the context holds 8"
    ):
        train(conn, n_steps=1)
    train(conn, n_steps=1, block_size=8)


def test_accumulated_micro_batches_are_one_batch(conn: Connection) -> None:
    for model, settings in (
        ("batch", {"batch_size": 4}),
        ("accumulated", {"batch_size": 2, "grad_accum": 2}),
    ):
        make_trainable(conn, model)
        train(conn, model, 1, dropout_p=0.0, keep_grad=True, **settings)
    difference = (
        "SELECT max(norm(a.grad - b.grad) / norm(a.grad)) FROM llm_param a JOIN llm_param b USING (name)"
        " WHERE a.model = 'batch' AND b.model = 'accumulated'"
    )
    assert value(conn, difference) < 1e-5
    losses = conn.execute("SELECT model, loss, tokens FROM llm_train_log ORDER BY model").fetchall()
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-6)
    assert losses[0][2] == losses[1][2] == 32


def test_keep_grad(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, n_steps=2, keep_grad=True)
    norm = value(conn, "SELECT sqrt(sum(norm(grad) ^ 2)) FROM llm_param WHERE model = 'tiny'")
    assert norm == pytest.approx(value(conn, "SELECT grad_norm FROM llm_train_log WHERE step = 2"), rel=1e-6)
    train(conn, n_steps=1)
    assert value(conn, "SELECT count(grad) FROM llm_param") == 0


def test_clipping_leaves_a_row_only_when_it_acts(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, n_steps=2, grad_clip=1e6)
    assert value(conn, "SELECT count(*) FROM llm_clip") == 0
    run = train(conn, n_steps=2, grad_clip=0.01)
    rows = conn.execute(
        "SELECT l.run_id, c.clip_threshold, c.applied_norm = l.grad_norm, c.gradient_slice"
        " FROM llm_clip c JOIN llm_train_log l USING (tape_id) ORDER BY l.step"
    ).fetchall()
    assert [row[:3] for row in rows] == [(run, 0.01, True)] * 2
    names = value(conn, "SELECT array_agg(name) FROM llm_param WHERE model = 'tiny'")
    assert set(rows[0][3]) == set(names)


def test_decay_of_matrices_only(conn: Connection) -> None:
    for model, decay in (("all", "all"), ("matrices", "matrices")):
        make_trainable(conn, model)
        train(conn, model, 1, wd=0.5, lr_max=0.1, decay=decay, dropout_p=0.0)
    same = dict(
        conn.execute(
            "SELECT a.name, a.data = b.data FROM llm_param a JOIN llm_param b USING (name)"
            " WHERE a.model = 'all' AND b.model = 'matrices'"
        ).fetchall()
    )
    assert same["h.0.attn.c_attn.weight"]
    assert same["wte.weight"]
    assert not same["h.0.ln_1.weight"]


def test_notices(conn: Connection) -> None:
    make_trainable(conn)
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    train(conn, n_steps=7, log_every=3)
    assert [line.split(":")[0] for line in said] == ["step 3 of 7", "step 6 of 7", "step 7 of 7"]
    assert "loss" in said[0]
    assert "rate" in said[0]


def test_every_parameter_by_name(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(
        """SELECT llm_train(model => 'tiny', n_steps => 1, n_layer => 2, n_head => 2, D => 16, vocab => 13,
            dropout_p => 0.1::float8, beta1 => 0.9::float8, beta2 => 0.999::float8, eps => 1e-8::float8,
            wd => 0.01::float8, lr_max => 2.5e-4::float8, warmup => 0, grad_clip => 1.0::float8,
            grad_workers => 1, prune_workers => 1, batch_size => 1, grad_accum => 1, block_size => 8,
            schedule => 'linear', min_lr => 0::float8, decay => 'all', seed => 0, start_step => 1,
            total_steps => 1, log_every => 0, keep_grad => false, optimizer => 'keep')"""
    )
    step = value(
        conn,
        """SELECT llm_train_step(model => 'tiny', batch_id => (SELECT min(id) FROM llm_dataset), n_layer => 2,
            n_head => 2, D => 16, vocab => 13, dropout_p => 0.1, beta1 => 0.9, beta2 => 0.999, eps => 1e-8,
            wd => 0.01, lr_max => 2.5e-4, warmup => 1, total_steps => 10, grad_clip => 1, grad_workers => 1,
            prune_workers => 1)""",
    )
    assert isinstance(step, float)


def test_reinitialising_supersedes_the_log(conn: Connection) -> None:
    make_trainable(conn)
    first = train(conn, n_steps=3)
    conn.execute("SELECT llm_init_model('tiny', 9)")
    assert value(conn, "SELECT max(step) FROM llm_param WHERE model = 'tiny'") == 0
    second = train(conn, n_steps=2)
    rows = conn.execute("SELECT run_id, step, superseded FROM llm_train_log ORDER BY run_id, step").fetchall()
    assert rows == [(first, s, True) for s in (1, 2, 3)] + [(second, s, False) for s in (1, 2)]


def test_a_models_steps_set_back_by_hand(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, n_steps=4)
    conn.execute("UPDATE llm_param SET step = 2 WHERE model = 'tiny'")
    train(conn, n_steps=1)
    live = conn.execute("SELECT step FROM llm_train_log WHERE NOT superseded ORDER BY step").fetchall()
    assert live == [(1,), (2,), (3,)]


@pytest.mark.parametrize("arch", ["gpt2", "gpt3", "microgpt"])
def test_every_architecture_learns(conn: Connection, arch: str) -> None:
    make_trainable(conn, arch=arch)
    run = train(conn, n_steps=40, lr_max=0.01, batch_size=5, dropout_p=0.0)
    first, last = conn.execute(
        "SELECT max(loss) FILTER (WHERE step = 1), max(loss) FILTER (WHERE step = 40) FROM llm_train_log"
        " WHERE run_id = %s",
        (run,),
    ).fetchone() or (0, 0)
    assert last < first / 2
