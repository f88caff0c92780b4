"""The reference's analytic gradients against central differences, all in float64.

Together with the comparisons of engine and reference, this checks every gradient of the engine: a method
that ends in _backward without an entry in GRADIENTS makes a test fail.
"""

from __future__ import annotations

import numpy as np
import pytest

from llm_sql.kernels import Engine

from ..reference.ops import GRADIENTS

RNG = np.random.default_rng(6)


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
    assert backwards == {name.partition(" ")[0] for name in GRADIENTS}


def test_every_forward_has_its_backward() -> None:
    # packed weights are for reading: nothing is trained through them
    forwards = {name.removesuffix("_forward") for name in dir(Engine) if name.endswith("_forward")} - {
        "packed"
    }
    backwards = {name.removesuffix("_backward") for name in dir(Engine) if name.endswith("_backward")}
    assert forwards == backwards
