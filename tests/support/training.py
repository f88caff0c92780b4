"""Putting weights and batches into a database, and taking gradients and losses out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

Array = NDArray[Any]


def put_model(
    conn: psycopg.Connection[Any], model: str, sizes: tuple[int, ...], weights: Mapping[str, Array]
) -> None:
    """A model by hand: one row of llm_model_config, one of llm_param for each tensor.

    sizes: n_layer, n_head, d_model, n_positions, vocab.
    """
    conn.execute(
        "INSERT INTO llm_model_config (model, n_layer, n_head, d_model, n_positions, vocab)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (model, *sizes),
    )
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO llm_param (model, name, data) VALUES (%s, %s, %s)",
            [(model, name, value) for name, value in weights.items()],
        )


def put_rows(conn: psycopg.Connection[Any], model: str, tokens: Array, targets: Array) -> None:
    """Rows of llm_dataset from tokens and targets [rows, length]."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO llm_dataset (model, tokens, target) VALUES (%s, %s, %s)",
            [(model, t.tolist(), y.tolist()) for t, y in zip(tokens, targets, strict=True)],
        )


def scalar(conn: psycopg.Connection[Any], query: str, parameters: Any = ()) -> Any:
    row = conn.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def gradients(
    conn: psycopg.Connection[Any], model: str, tokens: Array, targets: Array
) -> tuple[float, dict[str, Array]]:
    """Loss and the gradient of every parameter, by the calls of training by hand; rows stay as they were."""
    with conn.transaction(force_rollback=True):
        scalar(conn, "SELECT llm_materialize_params(%s)", (model,))
        conn.execute("UPDATE llm_autograd_mode SET flag = true")
        loss = scalar(conn, "SELECT llm_loss(%s, %s, %s)", (model, tokens.tolist(), targets.tolist()))
        scalar(conn, "SELECT llm_backprop(NULL, %s)", (model,))
        scalar(conn, "SELECT llm_accumulate_grads(%s)", (model,))
        grads = dict(conn.execute("SELECT name, grad FROM llm_param WHERE model = %s", (model,)).fetchall())
    return loss, grads


def relative_error(value: Array, reference: Array) -> float:
    """Relative L2 distance."""
    reference = np.asarray(reference, dtype=np.float64)
    return float(np.linalg.norm(value - reference) / max(np.linalg.norm(reference), 1e-30))


def losses_of_run(conn: psycopg.Connection[Any], run_id: int) -> list[float]:
    return [
        loss
        for (loss,) in conn.execute(
            "SELECT loss FROM llm_train_log WHERE run_id = %s ORDER BY step", (run_id,)
        )
    ]


def run_of(conn: psycopg.Connection[Any], model: str = "tiny") -> int:
    """The model's last run."""
    return int(scalar(conn, "SELECT max(run_id) FROM llm_train_run WHERE model = %s", (model,)))


@contextlib.contextmanager
def trigger(conn: psycopg.Connection[Any], body: str, event: str, table: str) -> Iterator[None]:
    """A trigger for each row, for as long as this takes."""
    conn.execute(
        f"CREATE FUNCTION at_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
    )
    kind = "CONSTRAINT TRIGGER" if "DEFERRED" in event else "TRIGGER"
    conn.execute(f"CREATE {kind} at_row {event} FOR EACH ROW EXECUTE FUNCTION at_row()")
    try:
        yield
    finally:
        conn.execute(f"DROP TRIGGER at_row ON {table}")
        conn.execute("DROP FUNCTION at_row()")


@contextlib.contextmanager
def refusing_write_backs(conn: psycopg.Connection[Any], code: str = "'disk_full'") -> Iterator[None]:
    body = f"RAISE EXCEPTION 'no write-back' USING ERRCODE = {code};"
    with trigger(conn, body, "BEFORE UPDATE ON llm_param", "llm_param"):
        yield
