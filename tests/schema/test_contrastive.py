"""Contrastive training of encoders: the loss, its gradients, what is refused, and all that training does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import psycopg
import pytest

from ..support.encoder_pairs import add_pairs, make_bag
from ..support.small_models import train
from ..support.tensors import value
from ..support.training import losses_of_run

Connection = psycopg.Connection[Any]
Array = np.ndarray[Any, Any]


def embedded(conn: Connection, sequences: list[list[int]], model: str = "bag") -> Array:
    """Each alone."""
    return np.array(
        [
            value(conn, "SELECT llm_embed_sequences(%s, %s, %s)", (model, ids, [len(ids)]))[0]
            for ids in sequences
        ],
        np.float64,
    )


def expected_loss(anchors: Array, candidates: Array, temperature: float = 0.05) -> float:
    scores = anchors @ candidates.T / temperature
    scores -= scores.max(axis=1, keepdims=True)
    own = np.arange(len(anchors))
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[own, own]))


def loss(conn: Connection, tokens: Any, targets: Any, model: str = "bag") -> float:
    return float(value(conn, "SELECT llm_loss(%s, %s::int[], %s::int[])", (model, tokens, targets)))


def test_the_loss(conn: Connection) -> None:
    """Cross-entropy of an anchor's similarities to all positives and all negatives."""
    make_bag(conn)
    found = loss(conn, [[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]], [[0, 0, 1, -1, -1], [0, 1, 1, 2, 2]])
    anchors = embedded(conn, [[1, 2], [4]])
    candidates = embedded(conn, [[3], [5, 6], [7, 8]])
    assert found == pytest.approx(expected_loss(anchors, candidates), rel=1e-4)


def test_the_same_text_is_no_negative(conn: Connection) -> None:
    """Two pairs with one positive: neither contrasts with the other's."""
    make_bag(conn)
    found = loss(conn, [[1, 3], [2, 3], [4, 5]], [[0, 1] for _ in range(3)])
    scores = embedded(conn, [[1], [2], [4]]) @ embedded(conn, [[3], [3], [5]]).T / 0.05
    own = scores.diagonal()
    sums = np.exp(scores).sum(axis=1) - np.exp([scores[0, 1], scores[1, 0], -np.inf])
    by_hand = np.mean(np.log(sums) - own)
    assert found == pytest.approx(float(by_hand), rel=1e-4)
    # Only copies of one pair: nothing to tell apart.
    assert loss(conn, [[1, 3], [1, 3]], [[0, 1], [0, 1]]) == 0


def test_a_row_with_negatives_may_be_alone(conn: Connection) -> None:
    make_bag(conn)
    found = loss(conn, [1, 2, 3, 4], [0, 1, 2, 3])
    assert found == pytest.approx(
        expected_loss(embedded(conn, [[1]]), embedded(conn, [[2], [3], [4]])), rel=1e-4
    )


def test_gradients_against_differences(conn: Connection) -> None:
    """Central differences of the loss in every weight that a small batch touches."""
    make_bag(conn, vocab=8, d_model=3)
    conn.execute("UPDATE llm_param SET data = data * 0.3 WHERE model = 'bag'")
    tokens, targets = [[1, 2, 3, 0], [4, 5, 6, 7]], [[0, 0, 1, -1], [0, 1, 1, 2]]
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT llm_materialize_params('bag')")
        conn.execute("UPDATE llm_autograd_mode SET flag = true")
        loss(conn, tokens, targets)
        conn.execute("SELECT llm_backprop(NULL, 'bag')")
        conn.execute("SELECT llm_accumulate_grads('bag')")
        conn.execute("UPDATE llm_autograd_mode SET flag = false")
        grads = dict(conn.execute("SELECT name, grad FROM llm_param WHERE model = 'bag'").fetchall())
    step = 1e-2
    for name, grad in grads.items():
        differences = np.zeros(grad.size)
        data = value(conn, "SELECT data FROM llm_param WHERE model = 'bag' AND name = %s", (name,))
        for i in range(grad.size):
            losses = []
            for sign in (1, -1):
                moved = data.copy()
                moved.flat[i] += sign * step
                with conn.transaction(force_rollback=True):
                    conn.execute(
                        "UPDATE llm_param SET data = %s WHERE model = 'bag' AND name = %s", (moved, name)
                    )
                    losses.append(loss(conn, tokens, targets))
            differences[i] = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(grad.ravel(), differences, rtol=0.02, atol=0.02, err_msg=name)
        # The mean of a difference says nothing of a gradient that is zero by mistake.
        assert np.abs(grad).max() > 0.05, name


def test_the_log_counts_pairs(conn: Connection) -> None:
    make_bag(conn)
    add_pairs(conn, rows=5, negatives=1)
    run = train(conn, "bag", 2, batch_size=3, grad_accum=2)
    assert conn.execute("SELECT tokens FROM llm_train_log WHERE run_id = %s", (run,)).fetchall() == [
        (6,),
        (6,),
    ]


def test_micro_batches_weigh_the_same(conn: Connection) -> None:
    """Each is the mean over its own pairs, however long their texts are."""
    make_bag(conn)
    rows = [([1], [2, 3, 4]), ([5], [6]), ([7, 8, 9], [10, 11, 12]), ([13], [14])]
    for anchor, positive in rows:
        conn.execute(
            "INSERT INTO llm_dataset (model, tokens, target) VALUES ('bag', %s, %s)",
            (anchor + positive, [0] * len(anchor) + [1] * len(positive)),
        )
    halves = [
        loss(conn, [[1, 2, 3, 4], [5, 6, 0, 0]], [[0, 1, 1, 1], [0, 1, -1, -1]]),
        loss(
            conn, [[7, 8, 9, 10, 11, 12], [13, 14, 0, 0, 0, 0]], [[0, 0, 0, 1, 1, 1], [0, 1, -1, -1, -1, -1]]
        ),
    ]
    run = train(conn, "bag", 1, batch_size=2, grad_accum=2, dropout_p=0, data_order="by_id")
    assert losses_of_run(conn, run)[0] == pytest.approx(sum(halves) / 2, rel=1e-12)


def test_dropout_differs_between_sequences_and_steps(conn: Connection) -> None:
    make_bag(conn)
    conn.execute(
        "INSERT INTO llm_dataset (model, tokens, target)"
        " VALUES ('bag', '{1,2,3}', '{0,1,2}'), ('bag', '{4,2,3}', '{0,1,2}')"
    )
    run = train(conn, "bag", 2, batch_size=2, lr_max=1e-12, dropout_p=0.5, data_order="by_id")
    first, second = losses_of_run(conn, run)
    assert first != pytest.approx(second, rel=1e-6)


def test_one_step(conn: Connection) -> None:
    make_bag(conn)
    add_pairs(conn, rows=1, negatives=2)
    row = value(conn, "SELECT id FROM llm_dataset WHERE model = 'bag'")
    tokens, targets = conn.execute("SELECT tokens, target FROM llm_dataset").fetchone() or ((), ())
    expected = loss(conn, tokens, targets)
    assert value(conn, "SELECT llm_train_step('bag', %s, dropout_p => 0)", (row,)) == expected


def add_row(conn: Connection, tokens: str, target: str) -> int:
    return int(
        value(
            conn,
            "INSERT INTO llm_dataset (model, tokens, target) VALUES ('bag', %s, %s) RETURNING id",
            (tokens, target),
        )
    )


@pytest.mark.parametrize(
    ("tokens", "target", "problem"),
    [
        ("{1,2}", "{0,0}", "has no positive"),
        ("{1,2}", "{1,1}", "begins with target 1"),
        ("{1,2}", "{-1,-1}", "has no anchor"),
        ("{1,2,3}", "{0,2,2}", "has target 2 after 0"),
        ("{1,2,3}", "{0,-1,1}", "after padding"),
        ("{1,1,1,1,1,1,1,2}", "{0,0,0,0,0,0,0,1}", "has more than 6 tokens in its sequence 0"),
        ("{1,40}", "{0,1}", "vocabulary of 40"),
        ("{1,-1}", "{0,1}", "vocabulary of 40"),
    ],
)
def test_rows_that_are_no_pairs(conn: Connection, tokens: str, target: str, problem: str) -> None:
    make_bag(conn)
    add_pairs(conn, rows=4)
    bad = add_row(conn, tokens, target)
    with pytest.raises(psycopg.DataError, match=rf"row {bad} of llm_dataset .*{problem}") as refused:
        train(conn, "bag", 1, batch_size=2)
    assert refused.value.sqlstate == ("22003" if "vocabulary" in problem else "22023")
    with pytest.raises(psycopg.DataError, match=rf"row {bad} of llm_dataset"):
        conn.execute("SELECT llm_recall('bag', 'train', 1)")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"batch_size": 1}, "in a batch of one pair"),
        ({"batch_size": 2, "block_size": 3}, "block_size"),
    ],
)
def test_trainings_that_cannot_be(conn: Connection, arguments: dict[str, int], problem: str) -> None:
    make_bag(conn)
    add_pairs(conn, rows=4)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=problem) as refused:
        train(conn, "bag", 1, **arguments)
    assert refused.value.diag.message_hint


def test_a_single_pair(conn: Connection) -> None:
    make_bag(conn)
    add_pairs(conn, rows=1)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="a data set of one pair"):
        train(conn, "bag", 1, batch_size=4)
    row = value(conn, "SELECT id FROM llm_dataset")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="in a batch of one pair"):
        conn.execute("SELECT llm_train_step('bag', %s)", (row,))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="nothing to contrast"):
        loss(conn, [1, 2], [0, 1])


def test_without_rows(conn: Connection) -> None:
    make_bag(conn)
    for call in ("llm_train('bag', 1, batch_size => 2)", "llm_recall('bag')", "llm_recall('bag', NULL)"):
        with pytest.raises(psycopg.errors.NoDataFound) as refused:
            conn.execute(f"SELECT {call}".encode())
        assert "llm_fill_pairs" in str(refused.value.diag.message_hint)


def test_a_batch_of_more_rows_than_there_are(conn: Connection) -> None:
    """Rows that come twice are told apart from negatives."""
    make_bag(conn)
    add_pairs(conn, rows=3)
    run = train(conn, "bag", 2, batch_size=7, dropout_p=0, lr_max=1e-3)
    assert all(0 < found < math.inf for found in losses_of_run(conn, run))


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        ("llm_evaluate('bag')", "llm_recall"),
        ("llm_log_evaluation('bag')", "llm_recall"),
        ("llm_finetune('bag', 'SELECT 1', 1)", "llm_fill_pairs"),
        ("llm_fill_dataset('bag', 'SELECT 1')", "llm_fill_pairs"),
    ],
)
def test_what_is_for_decoders(conn: Connection, call: str, hint: str) -> None:
    make_bag(conn)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match='"bag"') as refused:
        conn.execute(f"SELECT {call}".encode())
    assert hint in str(refused.value.diag.message_hint)


@pytest.mark.parametrize(
    ("call", "hint"),
    [("llm_recall('tiny')", "llm_evaluate"), ("llm_fill_pairs('tiny', 'SELECT 1, 2')", "llm_fill_dataset")],
)
def test_what_is_for_encoders(conn: Connection, call: str, hint: str) -> None:
    conn.execute("SELECT llm_create_model('tiny', 'gpt2', 1, 1, 4, 4, 8)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="needs an encoder") as refused:
        conn.execute(f"SELECT {call}".encode())
    assert hint in str(refused.value.diag.message_hint)
