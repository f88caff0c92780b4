"""Rounding: against float64, the database's float32 errs no more than PyTorch's own float32 does."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from ..support.training import gradients, put_model, relative_error, scalar
from . import torch_gpt2
from .torch_gpt2 import Shape

Array = NDArray[Any]

GPT2 = Shape(n_layer=12, n_head=12, d_model=768, n_positions=1024, vocab=50257)
SMALL = Shape(n_layer=4, n_head=4, d_model=256, n_positions=128, vocab=1000)
extended = pytest.mark.skipif(not os.environ.get("LLM_SQL_EXTENDED"), reason="takes minutes")


def everything(model: Any, tokens: Array, targets: Array) -> dict[str, Array]:
    """Logits, loss and every gradient in the model's precision."""
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens).long()).logits.numpy()
    model.zero_grad()
    loss = torch_gpt2.loss_of(model, tokens, targets)
    loss.backward()
    grads = {n.removeprefix("transformer."): p.grad.numpy().copy() for n, p in model.named_parameters()}
    return {"logits": logits, "loss": loss.detach().numpy(), **grads}


@pytest.mark.parametrize(
    ("shape", "rows", "length"),
    [
        pytest.param(SMALL, 2, 128, id="small"),
        pytest.param(GPT2, 1, 64, id="124M T=64", marks=extended),
        pytest.param(GPT2, 2, 128, id="124M B=2 T=128", marks=extended),
    ],
)
def test_errors_are_no_larger_than_pytorchs(
    conn: psycopg.Connection[Any], shape: Shape, rows: int, length: int
) -> None:
    model = torch_gpt2.make_initial(shape, seed=3)
    tokens, targets = torch_gpt2.batch(shape, rows=rows, length=length, seed=9)
    sizes = (shape.n_layer, shape.n_head, shape.d_model, shape.n_positions, shape.vocab)
    put_model(conn, "accuracy", sizes, torch_gpt2.parameters(model))
    logits = scalar(conn, "SELECT llm_logits(%s, 'accuracy')", (tokens.tolist(),))
    loss, grads = gradients(conn, "accuracy", tokens, targets)
    ours = {"logits": logits, "loss": np.float64(loss), **grads}

    theirs = everything(model, tokens, targets)
    truth = everything(model.double(), tokens, targets)
    assert set(ours) == set(theirs) == set(truth)
    worse = {}
    for name, exact in truth.items():
        a, b = relative_error(ours[name], exact), relative_error(theirs[name], exact)
        if not a <= b:
            worse[name] = (a, b)
    for name, (a, b) in worse.items():
        print(f"{name}: {a:.3e}, PyTorch's {b:.3e}")
    assert not worse
