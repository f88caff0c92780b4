"""A two-layer GPT-2 against what PyTorch computed once (tests/parity/make_golden.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from ..support.training import gradients, losses_of_run, put_model, put_rows, relative_error, scalar

GOLDEN = Path(__file__).parent.parent / "golden" / "gpt2_tiny.npz"


@pytest.fixture
def golden(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    with np.load(GOLDEN) as file:
        data = dict(file)
    weights = {name[2:]: value for name, value in data.items() if name.startswith("w.")}
    put_model(conn, "golden", tuple(int(n) for n in data["shape"]), weights)
    return data


def test_loss_and_gradients(conn: psycopg.Connection[Any], golden: dict[str, Any]) -> None:
    loss, grads = gradients(conn, "golden", golden["tokens"], golden["targets"])
    assert loss == pytest.approx(float(golden["loss"]), rel=1e-6)
    expected = {name[2:]: value for name, value in golden.items() if name.startswith("g.")}
    assert set(grads) == set(expected)
    errors = {name: relative_error(grads[name], expected[name]) for name in expected}
    assert max(errors.values()) < 1e-5, errors


def test_fifty_steps_of_adamw(conn: psycopg.Connection[Any], golden: dict[str, Any]) -> None:
    put_rows(conn, "golden", golden["tokens"], golden["targets"])
    run = scalar(
        conn,
        "SELECT llm_train('golden', 50, lr_max => 1e-2, warmup => 5, beta2 => 0.95, wd => 0.1,"
        " grad_clip => 1.0, dropout_p => 0, batch_size => 5, log_every => 0)",
    )
    np.testing.assert_allclose(losses_of_run(conn, run), golden["losses"], rtol=1e-4)
    assert golden["losses"][-1] < 0.9 * golden["losses"][0]
