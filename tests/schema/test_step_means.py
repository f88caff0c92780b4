"""Loss and gradient of a step are means over its target tokens; the rows of a run are those it began with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from psycopg import errors

from ..reference.gpt2_numpy import gpt2_logits
from ..reference.ops import mean_cross_entropy
from ..support.small_models import Connection, make_model, make_trainable, train, weights
from ..support.tensors import value
from ..support.training import relative_error

Connect = Callable[..., Connection]

# Rows of unequal length, one whose targets are partly ignored, one without any.
ROWS = [
    ([1, 2], [2, 3]),
    ([3, 4, 5, 6, 7, 8, 9, 10], [4, 5, 6, 7, 8, 9, 10, 11]),
    ([5, 6, 7, 8], [-1, 7, -1, 9]),
    ([2, 4, 6], [-1, -1, -1]),
]


def fill(conn: Connection, model: str, rows: list[tuple[list[int], list[int]]] = ROWS) -> list[int]:
    return [
        value(
            conn,
            "INSERT INTO llm_dataset (model, tokens, target) VALUES (%s, %s, %s) RETURNING id",
            (model, *row),
        )
        for row in rows
    ]


def stepped(
    conn: Connection, rows: list[tuple[list[int], list[int]]], **arguments: Any
) -> tuple[float, int, dict[str, Any]]:
    """Loss, tokens and gradients of one step over the rows in their order, on a new model."""
    make_model(conn, "one")
    fill(conn, "one", rows)
    train(conn, "one", 1, dropout_p=0, keep_grad=True, data_order="by_id", **arguments)
    loss, tokens = conn.execute("SELECT loss, tokens FROM llm_train_log").fetchone() or (0, 0)
    grads = dict(conn.execute("SELECT name, grad FROM llm_param WHERE model = 'one'").fetchall())
    conn.execute("SELECT llm_drop_model('one')")
    return loss, tokens, grads


def reference_loss(parameters: dict[str, Any], rows: list[tuple[list[int], list[int]]]) -> float:
    """The mean over all targets of all rows, in float64."""
    logits = np.concatenate([gpt2_logits(parameters, tokens, n_head=2) for tokens, _ in rows])
    return float(mean_cross_entropy(logits, [target for _, targets in rows for target in targets]))


CUTS = [(1, 4), (2, 2), (4, 1)]


@pytest.mark.parametrize(("grad_accum", "batch_size"), CUTS)
def test_the_mean_is_over_all_tokens_of_a_step(conn: Connection, grad_accum: int, batch_size: int) -> None:
    make_model(conn, "ref")
    parameters = {
        name: np.asarray(data, dtype=np.float64)
        for name, data in conn.execute("SELECT name, data FROM llm_param WHERE model = 'ref'")
    }
    loss, tokens, grads = stepped(conn, ROWS, grad_accum=grad_accum, batch_size=batch_size)
    assert tokens == 12
    assert loss == pytest.approx(reference_loss(parameters, ROWS), rel=1e-6)
    # The gradient in the direction of one parameter, by central differences in float64.
    direction = np.random.default_rng(0).standard_normal(parameters["h.0.mlp.c_fc.weight"].shape)
    slopes = []
    for sign in (1, -1):
        moved = dict(parameters)
        moved["h.0.mlp.c_fc.weight"] = parameters["h.0.mlp.c_fc.weight"] + sign * 1e-5 * direction
        slopes.append(reference_loss(moved, ROWS))
    slope = float((grads["h.0.mlp.c_fc.weight"] * direction).sum())
    assert slope == pytest.approx((slopes[0] - slopes[1]) / 2e-5, rel=1e-4, abs=1e-7)


def test_the_cut_changes_rounding_only(conn: Connection) -> None:
    losses, gradients = zip(
        *((step[0], step[2]) for step in (stepped(conn, ROWS, grad_accum=a, batch_size=b) for a, b in CUTS)),
        strict=True,
    )
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    for other in gradients[1:]:
        for name, grad in gradients[0].items():
            assert np.allclose(other[name], grad, rtol=1e-4, atol=1e-7), name


def test_micro_batches_are_summed_in_their_order_from_gradients_of_their_own(conn: Connection) -> None:
    """Whoever computes the micro-batches' gradients separately gets the step's bits by adding them in order."""  # noqa: E501
    rows = ROWS[:3]
    counts = [sum(t >= 0 for t in target) for _, target in rows]
    _, _, whole = stepped(conn, rows, grad_accum=3)
    make_model(conn, "one")
    parts = []
    for (tokens, targets), count in zip(rows, counts, strict=True):
        with conn.transaction(force_rollback=True):
            conn.execute("SELECT llm_pin('one', true), pg_llm_arena_zero_grad('one')")
            conn.execute("SET LOCAL pg_llm.autograd = on")
            conn.execute("SELECT llm_forward('one', %s, true, %s, 0)", (tokens, targets))
            conn.execute("SET LOCAL pg_llm.autograd = off")
            conn.execute("SELECT llm_tape_backward(NULL, %s)", (count / sum(counts),))
            parts.append(
                dict(
                    conn.execute(
                        "SELECT name, pg_llm_arena_grad(model, name, token_id) FROM llm_param WHERE model = 'one'"  # noqa: E501
                    ).fetchall()
                )
            )
    for name, grad in whole.items():
        assert np.array_equal((parts[0][name] + parts[1][name]) + parts[2][name], grad), name


@pytest.mark.parametrize(("grad_accum", "batch_size"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_rows_without_targets(conn: Connection, grad_accum: int, batch_size: int) -> None:
    """They weigh nothing beside others; a step of nothing else is an error and changes nothing."""
    empty = ([2, 4, 6], [-1, -1, -1])
    if grad_accum * batch_size > 1:
        loss, tokens, grads = stepped(
            conn, [ROWS[0], empty][: grad_accum * batch_size], grad_accum=grad_accum, batch_size=batch_size
        )
        alone = stepped(conn, ROWS[:1])
        assert tokens in (2, 4)
        assert loss == pytest.approx(alone[0], rel=1e-6)
        assert (
            max(relative_error(grads[name], alone[2][name]) for name in grads if np.any(alone[2][name]))
            < 1e-4
        )
    make_model(conn, "none")
    fill(conn, "none", [empty])
    before = weights(conn, "none")
    with pytest.raises(errors.NoDataFound, match='step 1 of model "none" has nothing to learn'):
        train(conn, "none", 1, grad_accum=grad_accum, batch_size=batch_size)
    assert weights(conn, "none") == before
    assert value(conn, "SELECT count(*) FROM llm_train_run WHERE model = 'none'") == 0


def test_losses_elsewhere_are_means_over_tokens_too(conn: Connection) -> None:
    make_model(conn, "ref")
    parameters = {
        name: np.asarray(data, dtype=np.float64)
        for name, data in conn.execute("SELECT name, data FROM llm_param WHERE model = 'ref'")
    }
    expected = reference_loss(parameters, ROWS)
    fill(conn, "ref")
    conn.execute("UPDATE llm_dataset SET split = 'validation'")
    tokens, nll = conn.execute("SELECT tokens, nll FROM llm_evaluate('ref')").fetchone() or (0, 0)
    assert (tokens, nll) == (12, pytest.approx(expected, rel=1e-6))
    width = max(len(row) for row, _ in ROWS)
    batch = (
        [row + [0] * (width - len(row)) for row, _ in ROWS],
        [target + [-1] * (width - len(target)) for _, target in ROWS],
    )
    assert value(conn, "SELECT llm_loss('ref', %s, %s)", batch) == pytest.approx(expected, rel=1e-6)


# ---- the order of data ----


def orders(conn: Connection, model: str, n_steps: int, **arguments: Any) -> list[float]:
    run = train(conn, model, n_steps, **arguments)
    return [
        row[0]
        for row in conn.execute("SELECT tokens FROM llm_train_log WHERE run_id = %s ORDER BY step", (run,))
    ]


def by_length(conn: Connection, model: str = "tiny") -> None:
    """Rows of 1, 2, ... 5 targets: a step's number of tokens names its row."""
    make_model(conn, model)
    fill(conn, model, [(list(range(n)), list(range(n))) for n in range(1, 6)])


def test_rows_by_id_epoch_after_epoch(conn: Connection) -> None:
    by_length(conn)
    assert orders(conn, "tiny", 12, data_order="by_id") == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
    assert orders(conn, "tiny", 3, data_order="by_id", batch_size=2, grad_accum=2) == [
        10,
        5 + 1 + 2 + 3,
        4 + 5 + 1 + 2,
    ]
    shuffled = orders(conn, "tiny", 10)
    assert sorted(shuffled[:5]) == sorted(shuffled[5:]) == [1, 2, 3, 4, 5]
    assert [row[0] for row in conn.execute("SELECT hyperparameters ->> 'data_order' FROM llm_train_run ORDER BY run_id")] == [  # noqa: E501
        "by_id", "by_id", "shuffled",
    ]  # fmt: skip
    with pytest.raises(
        errors.InvalidParameterValue, match="data_order must be shuffled or by_id, got random"
    ):
        train(conn, "tiny", 1, data_order="random")


def test_a_loop_and_its_resumption_keep_the_order(conn: Connection) -> None:
    for model in ("whole", "loop"):
        by_length(conn, model)
    train(conn, "whole", 7, data_order="by_id", lr_max=0.01)
    conn.execute("CALL llm_train_loop('loop', 7, 2, data_order => 'by_id', lr_max => 0.01, log_every => 0)")
    assert weights(conn, "whole") == weights(conn, "loop")
    run = value(
        conn,
        "SELECT llm_train_begin('loop', hyperparameters || '{\"start_step\": 8, \"n_steps\": 6}') FROM llm_train_run WHERE model = 'loop'",  # noqa: E501
    )
    value(conn, "SELECT llm_train_chunk(%s, 2, NULL)", (run,))
    conn.execute("CALL llm_train_resume(%s)", (run,))
    assert [
        row[0]
        for row in conn.execute("SELECT tokens FROM llm_train_log WHERE run_id = %s ORDER BY step", (run,))
    ] == [1, 2, 3, 4, 5, 1]


def test_microgpt_follows_its_reference(conn: Connection) -> None:
    """microgpt's loop reads docs[step % len(docs)]: document, loss, rate."""
    conn.execute("SELECT llm_build_char_tokenizer('micro', $$SELECT unnest('{emma,olivia,ava}'::text[])$$)")
    conn.execute("SELECT llm_create_model('micro', 'microgpt')")
    docs = ["emma", "olivia", "ava"]
    for doc in docs:
        ids = value(conn, "SELECT llm_encode(%s, 'micro')", (doc,))
        bos = value(conn, "SELECT llm_end_token('micro')")
        fill(conn, "micro", [([bos, *ids], [*ids, bos])])
    assert orders(conn, "micro", 5, data_order="by_id") == [len(docs[i % 3]) + 1 for i in range(5)]


# ---- data that does not stand still ----

CHUNK = "SELECT llm_train_chunk(%s, 2, %s)"


def begin(conn: Connection, connect: Connect) -> tuple[int, Connection, Any]:
    make_trainable(conn)
    train(conn, "tiny", 1)
    run = value(
        conn,
        "SELECT llm_train_begin('tiny', hyperparameters - '{start_step,total_steps}'::text[]"
        ' || \'{"n_steps": 20, "batch_size": 4}\') FROM llm_train_run',
    )
    return run, connect(), value(conn, CHUNK, (run, None))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("DELETE FROM llm_dataset WHERE id IN (SELECT id FROM llm_dataset ORDER BY id LIMIT 2)", r"are gone: id \d+ to \d+"),  # noqa: E501
        ("DELETE FROM llm_dataset", r"are gone: id \d+ to \d+"),
        ("UPDATE llm_dataset SET split = 'validation' WHERE id = (SELECT max(id) FROM llm_dataset)", r"are gone: id \d+"),  # noqa: E501
        ("UPDATE llm_dataset SET tokens = tokens[:3], target = target[:3]", "trains on have changed"),
        ("UPDATE llm_dataset SET target[1] = 12 WHERE id = (SELECT max(id) FROM llm_dataset)", "have changed"),  # noqa: E501
        ("UPDATE llm_dataset SET id = -id", r"are gone: id \d+ to \d+"),
    ],
)  # fmt: skip
def test_rows_that_go_or_change_end_a_run(
    conn: Connection, connect: Connect, change: str, problem: str
) -> None:
    run, other, fingerprint = begin(conn, connect)
    other.execute(change)
    with pytest.raises(errors.SerializationFailure, match=problem):
        conn.execute(CHUNK, (run, fingerprint))
    assert value(conn, "SELECT last_step FROM llm_train_run WHERE run_id = %s", (run,)) == 3


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO llm_dataset (model, tokens, target) VALUES ('tiny', '{1}', '{2}'), (NULL, '{1}', '{2}')",
        "INSERT INTO llm_dataset (id, model, tokens, target) OVERRIDING SYSTEM VALUE VALUES (-5, 'tiny', '{1}', '{2}')",  # noqa: E501
        "VACUUM FULL llm_dataset",
        "UPDATE llm_dataset SET tokens = tokens",
    ],
)
def test_other_rows_do_not_join_a_run(conn: Connection, connect: Connect, change: str) -> None:
    run, other, fingerprint = begin(conn, connect)
    before = value(conn, "SELECT (llm_train_rows(r)).row_ids FROM llm_train_run r WHERE run_id = %s", (run,))
    other.execute(change)
    value(conn, CHUNK, (run, fingerprint))
    assert (
        value(conn, "SELECT (llm_train_rows(r)).row_ids FROM llm_train_run r WHERE run_id = %s", (run,))
        == before
    )
    assert (
        value(other, "SELECT (llm_train_rows(r)).row_ids FROM llm_train_run r WHERE run_id = %s", (run,))
        == before
    )


@pytest.mark.parametrize(
    "change", ["DELETE FROM llm_dataset", "UPDATE llm_dataset SET tokens = tokens[:2], target = target[:2]"]
)
def test_rows_that_change_between_two_steps_of_a_transaction(conn: Connection, change: str) -> None:
    """An architecture whose forward pass changes the data stands in for another session."""
    make_trainable(conn)
    before = weights(conn)
    conn.execute(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF new.step = 2 THEN {change}; END IF; RETURN NULL; END $$"
    )
    conn.execute("CREATE TRIGGER x AFTER INSERT ON llm_train_log FOR EACH ROW EXECUTE FUNCTION meddle()")
    try:
        with pytest.raises(
            errors.SerializationFailure, match=r"are gone: id|changed during the run|have changed"
        ):
            train(conn, "tiny", 3, batch_size=2)
        assert weights(conn) == before
    finally:
        conn.execute("DROP FUNCTION meddle CASCADE")
