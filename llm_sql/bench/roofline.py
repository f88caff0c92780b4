"""The least time that a training step can take on a machine: arithmetic at its FMA peak plus memory traffic
at its bandwidth, one after the other.

Counted strictly, so that no implementation gets below it by being clever:
- arithmetic: the matrix products alone (Kaplan et al. 2020, section 2.1, with attention's causal half);
- traffic: parameters, gradients and optimizer state, and the activations that the backward pass needs, each
  moved as often as it must be when it does not fit a cache. What a kernel reads from a cache is free here.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_sql.bench.shapes import Layer, Shape

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Work:
    """What a computation costs at least."""

    flops: float
    bytes: float

    def seconds(self, peak_flops: float, bandwidth: float) -> float:
        return self.flops / peak_flops + self.bytes / bandwidth


def linear_flops(rows: int, inputs: int, outputs: int) -> float:
    """Forward, gradient of the input, gradient of the weight: three products."""
    return 3 * 2.0 * rows * inputs * outputs


def attention_flops(batch: int, length: int, d_model: int) -> float:
    """Causal: t(t+1)/2 pairs of tokens. Two products forward (scores, weighted sum), four backward (dV, dP,
    dQ, dK); computing the scores a second time, which saves storing them, is not counted.
    """
    return 6 * 2.0 * batch * d_model * length * (length + 1) / 2


def block_flops(batch: int, length: int, d_model: int) -> float:
    """qkv, projection and the two layers of the MLP are 12 d^2 weights together."""
    return linear_flops(batch * length, d_model, 12 * d_model) + attention_flops(batch, length, d_model)


def block_activations(tokens: int, d_model: int) -> float:
    """Bytes saved for the backward pass: both norms' inputs and outputs, q, k, v, attention's output, the
    MLP's hidden layer before and after its non-linearity: (2 + 2 + 3 + 1 + 4 + 4) d a token.
    """
    return 16.0 * tokens * d_model * FLOAT


def training_step(shape: Shape) -> Work:
    """Forward, backward, clipping by the global norm, AdamW.

    Of a weight: read forward, read backward, its gradient written; the gradient read for the norm; by AdamW
    gradient, weight and both moments read, weight and both moments written: 3 + 1 + 7 times. Of a saved
    activation: written once, read once. Of the embedding only the head's use counts.
    """
    rows = shape.batch_size * shape.tokens
    blocks = shape.n_layer * block_flops(shape.batch_size, shape.tokens, shape.d_model)
    head = linear_flops(rows, shape.d_model, shape.vocab)
    weights = 11.0 * shape.n_parameters * FLOAT
    activations = 2.0 * shape.n_layer * block_activations(rows, shape.d_model)
    return Work(blocks + head, weights + activations)


def layer_pass(layer: Layer) -> Work:
    """Forward and backward through one layer: weights read twice, their gradients written."""
    flops = block_flops(1, layer.tokens, layer.d_model)
    activations = 2.0 * block_activations(layer.tokens, layer.d_model)
    return Work(flops, 3.0 * layer.n_parameters * FLOAT + activations)
