"""GPT-2 in the database against PyTorch and transformers: logits, loss, gradients, fifty steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from ..support.training import gradients, losses_of_run, put_model, put_rows, relative_error, scalar
from . import torch_gpt2
from .torch_gpt2 import Optimizer, Shape

SHAPES = [
    Shape(n_layer=2, n_head=3, d_model=48, n_positions=33, vocab=97),
    Shape(n_layer=2, n_head=1, d_model=20, n_positions=130, vocab=300),
    Shape(n_layer=3, n_head=4, d_model=128, n_positions=64, vocab=65),
]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> Shape:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def model(conn: psycopg.Connection[Any], shape: Shape) -> Any:
    model = torch_gpt2.make(shape, seed=7)
    sizes = (shape.n_layer, shape.n_head, shape.d_model, shape.n_positions, shape.vocab)
    put_model(conn, "parity", sizes, torch_gpt2.parameters(model))
    return model


def test_logits(conn: psycopg.Connection[Any], model: Any, shape: Shape) -> None:
    tokens, _ = torch_gpt2.batch(shape, rows=2, length=shape.n_positions, seed=3)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens).long()).logits.numpy()
    value = scalar(conn, "SELECT llm_logits(%s, 'parity')", (tokens.tolist(),))
    assert relative_error(value, expected) < 2e-6


def test_loss_and_gradients(conn: psycopg.Connection[Any], model: Any, shape: Shape) -> None:
    tokens, targets = torch_gpt2.batch(shape, rows=3, length=shape.n_positions, seed=4)
    expected_loss, expected = torch_gpt2.gradients(model, tokens, targets)
    loss, grads = gradients(conn, "parity", tokens, targets)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert set(grads) == set(expected)
    errors = {name: relative_error(grads[name], expected[name]) for name in expected}
    assert max(errors.values()) < 1e-5, errors


def test_fifty_steps(conn: psycopg.Connection[Any], model: Any, shape: Shape) -> None:
    """From the same weights and batches, AdamW with clipping follows PyTorch's losses."""
    tokens, targets = torch_gpt2.batch(shape, rows=3, length=16, seed=5)
    put_rows(conn, "parity", tokens, targets)
    o = Optimizer(lr_max=2e-3)
    run = scalar(
        conn,
        "SELECT llm_train('parity', %s, lr_max => %s, warmup => %s, beta1 => %s, beta2 => %s, eps => %s,"
        " wd => %s, grad_clip => %s, dropout_p => 0, batch_size => 3, log_every => 0)",
        (o.n_steps, o.lr_max, o.warmup, o.beta1, o.beta2, o.eps, o.wd, o.grad_clip),
    )
    expected = torch_gpt2.train(model, tokens, targets, o)
    np.testing.assert_allclose(losses_of_run(conn, run), expected, rtol=1e-4)
    assert expected[-1] < 0.9 * expected[0]


def test_greedy_text_is_the_argmax_of_logits(conn: psycopg.Connection[Any], model: Any, shape: Shape) -> None:
    """Token by token with a key/value cache there, the whole sequence anew here: the same tokens."""
    tokens = [1, 2, 3]
    expected = list(tokens)
    with torch.no_grad():
        for _ in range(12):
            expected.append(int(model(torch.tensor([expected])).logits[0, -1].argmax()))
    for _ in range(12):
        tokens.append(scalar(conn, "SELECT pg_llm_sample(llm_logits(%s, 'parity'), 0)", (tokens,)))
    assert tokens == expected
