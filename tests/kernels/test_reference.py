"""The reference's analytic gradients against central differences, all in float64.

Together with the comparisons of engine and reference, this checks every gradient of the engine. GRADIENTS
names them all: an engine method ending in _backward without an entry here makes a test fail.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llm_sql.kernels import Engine

from . import reference

RNG = np.random.default_rng(5)
IDS = np.array([[3, 0, 3], [5, 1, 3]])
TARGETS = np.array([2, -1, 0, 4])
KEEP = (RNG.random((2, 2, 4, 4)) < 0.7) / 0.7


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


# name: (forward of its inputs, analytic backward of (dout, *inputs), inputs)
GRADIENTS: dict[str, tuple[Callable, Callable, tuple[np.ndarray, ...]]] = {
    "linear": (reference.linear, reference.linear_backward, (normal(2, 3, 4), normal(4, 5), normal(5))),
    "embedding": (lambda w: w[IDS], lambda d, w: reference.embedding_backward(d, IDS, 6), (normal(6, 3),)),
    "gelu": (reference.gelu, reference.gelu_backward, (3 * normal(40),)),
    "gelu_exact": (reference.gelu_exact, reference.gelu_exact_backward, (3 * normal(40),)),
    "relu": (reference.relu, reference.relu_backward, (normal(40),)),
    "layernorm": (
        lambda x, gamma, beta: reference.layernorm(x, gamma, beta, 1e-5),
        lambda d, x, gamma, beta: reference.layernorm_backward(d, x, gamma, 1e-5),
        (normal(2, 3, 7), normal(7), normal(7)),
    ),
    "rmsnorm": (
        lambda x: reference.rmsnorm(x, 1e-5),
        lambda d, x: reference.rmsnorm_backward(d, x, 1e-5),
        (normal(4, 7),),
    ),
    "softmax": (reference.softmax, reference.softmax_backward, (normal(4, 7),)),
    "attention": (
        lambda q, k, v: reference.attention(q, k, v, 2),
        lambda d, q, k, v: reference.attention_backward(d, q, k, v, 2),
        (normal(2, 5, 6), normal(2, 5, 6), normal(2, 5, 6)),
    ),
    "attention with dropout": (
        lambda q, k, v: reference.attention(q, k, v, 2, KEEP),
        lambda d, q, k, v: reference.attention_backward(d, q, k, v, 2, KEEP),
        (normal(2, 4, 6), normal(2, 4, 6), normal(2, 4, 6)),
    ),
    "cross_entropy": (
        lambda logits: reference.cross_entropy(logits, TARGETS)[0].sum(),
        lambda d, logits: d * reference.cross_entropy_backward(logits, TARGETS, 1.0),
        (normal(4, 6),),
    ),
    "lm_head_loss": (
        lambda x, w: reference.cross_entropy(x @ w.T, TARGETS)[0].sum(),
        lambda d, x, w: tuple(
            d * g
            for dlogits in [reference.cross_entropy_backward(x @ w.T, TARGETS, 1.0)]
            for g in (dlogits @ w, dlogits.T @ x)
        ),
        (normal(4, 3), normal(6, 3)),
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_against_central_differences(name: str) -> None:
    forward, backward, inputs = GRADIENTS[name]
    dout = RNG.standard_normal(np.shape(forward(*inputs)))
    gradients = backward(dout, *inputs)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert len(gradients) == len(inputs)
    step = 1e-5
    for which, gradient in enumerate(gradients):
        assert gradient.shape == inputs[which].shape
        for at in np.ndindex(gradient.shape):
            values = [x.copy() for x in inputs]
            values[which][at] += step
            above = (dout * forward(*values)).sum()
            values[which][at] -= 2 * step
            difference = (above - (dout * forward(*values)).sum()) / (2 * step)
            assert gradient[at] == pytest.approx(difference, rel=1e-6, abs=1e-8), (which, at)


def test_every_backward_of_the_engine_has_a_gradient_check() -> None:
    backwards = {name.removesuffix("_backward") for name in dir(Engine) if name.endswith("_backward")}
    assert backwards == set(GRADIENTS) - {"attention with dropout"}


def test_every_forward_has_its_backward() -> None:
    # packed weights are for reading: nothing is trained through them
    forwards = {name.removesuffix("_forward") for name in dir(Engine) if name.endswith("_forward")} - {
        "packed"
    }
    backwards = {name.removesuffix("_backward") for name in dir(Engine) if name.endswith("_backward")}
    assert forwards == backwards
