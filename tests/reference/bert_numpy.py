"""BERT in float64 NumPy, with its pooling: what the encoder of ours is held against.

Written from the equations (Devlin et al. 2018; Reimers & Gurevych 2019), one sequence at a time: no padding,
no batch, no dropout. Parameters are a mapping from our names to arrays; linear weights are [in, out].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import ops
from .gpt2_numpy import Array, Parameters, depth


def states(parameters: Parameters, tokens: Sequence[int], *, n_head: int, eps: float = 1e-12) -> list[Array]:
    """The states [T, D] of one sequence: after the embeddings, and after each block."""
    p = {name: np.asarray(value, dtype=np.float64) for name, value in parameters.items()}

    def affine(x: Array, name: str) -> Array:
        return ops.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(x: Array, name: str) -> Array:
        return ops.layernorm(x, p[f"{name}.weight"], p[f"{name}.bias"], eps)

    x = p["wte.weight"][list(tokens)] + p["wtt.weight"][0] + p["wpe.weight"][: len(tokens)]
    found = [norm(x, "ln_embd")]
    for layer in range(depth(parameters)):
        h, x = f"h.{layer}", found[-1]
        q, k, v = (_heads(affine(x, f"{h}.attn.{part}_proj"), n_head) for part in "qkv")
        weights = ops.softmax(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]))
        mixed = np.swapaxes(weights @ v, 0, 1).reshape(x.shape)
        x = norm(x + affine(mixed, f"{h}.attn.o_proj"), f"{h}.ln_1")
        inner = affine(ops.gelu_exact(affine(x, f"{h}.mlp.fc1")), f"{h}.mlp.fc2")
        found.append(norm(x + inner, f"{h}.ln_2"))
    return found


def embedding(
    parameters: Parameters,
    tokens: Sequence[int],
    *,
    n_head: int,
    pooling: str = "mean",
    normalize: bool = True,
) -> Array:
    """The embedding [D] of one sequence."""
    last = states(parameters, tokens, n_head=n_head)[-1]
    pooled = last.mean(0) if pooling == "mean" else last[0]
    return pooled / np.linalg.norm(pooled) if normalize else pooled


def shapes(
    n_layer: int, d_model: int, n_positions: int, vocab: int, d_ff: int | None = None, type_vocab: int = 2
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter."""
    d, ff = d_model, d_ff or 4 * d_model
    found: dict[str, tuple[int, ...]] = {
        "wte.weight": (vocab, d),
        "wpe.weight": (n_positions, d),
        "wtt.weight": (type_vocab, d),
        "ln_embd.weight": (d,),
        "ln_embd.bias": (d,),
    }
    block: dict[str, tuple[int, ...]] = {
        name: shape
        for part in "qkvo"
        for name, shape in ((f"attn.{part}_proj.weight", (d, d)), (f"attn.{part}_proj.bias", (d,)))
    }
    block |= {"ln_1.weight": (d,), "ln_1.bias": (d,), "mlp.fc1.weight": (d, ff), "mlp.fc1.bias": (ff,)}
    block |= {"mlp.fc2.weight": (ff, d), "mlp.fc2.bias": (d,), "ln_2.weight": (d,), "ln_2.bias": (d,)}
    for layer in range(n_layer):
        found |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
    return found


def _heads(x: Array, n_head: int) -> Array:
    """[T, D] -> [n_head, T, D / n_head]."""
    return np.swapaxes(x.reshape(len(x), n_head, -1), 0, 1)
