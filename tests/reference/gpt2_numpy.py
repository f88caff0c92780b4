"""GPT-2 and microgpt in float64 NumPy: what every forward pass of ours is held against.

Written from the equations (Radford et al. 2019; Vaswani et al. 2017) with the ops of ops.py, for clarity: no
dropout, no cache, no batching tricks. Parameters are a mapping from Hugging Face's names to arrays; linear
weights are [in, out]. Token arrays are [T] or [B, T].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import ops

Array = NDArray[np.float64]
Parameters = Mapping[str, NDArray[Any]]


def gpt2_logits(
    parameters: Parameters,
    tokens: ArrayLike,
    *,
    n_head: int,
    eps: float = 1e-5,
    activation: Callable[[Array], Array] = ops.gelu,
    bands: Sequence[int] | None = None,
) -> Array:
    """Logits [..., T, V]. The depth is that of the parameters; without lm_head.weight the head is tied.

    `bands` has the number of tokens that each layer sees, 0 for all.
    """
    p = {name: np.asarray(value, dtype=np.float64) for name, value in parameters.items()}
    ids = np.asarray(tokens)

    def affine(x: Array, name: str) -> Array:
        return ops.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(x: Array, name: str) -> Array:
        return ops.layernorm(x, p[f"{name}.weight"], p[f"{name}.bias"], eps)

    x = p["wte.weight"][ids] + p["wpe.weight"][: ids.shape[-1]]
    for layer in range(depth(parameters)):
        h = f"h.{layer}"
        qkv = affine(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn")
        x = x + affine(
            ops.fused_attention(qkv, n_head, window=(bands or [0] * (layer + 1))[layer]), f"{h}.attn.c_proj"
        )
        x = x + affine(activation(affine(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")), f"{h}.mlp.c_proj")
    return norm(x, "ln_f") @ p.get("lm_head.weight", p["wte.weight"]).T


def microgpt_logits(parameters: Parameters, tokens: ArrayLike, *, n_head: int, eps: float = 1e-5) -> Array:
    """Logits [..., T, V] of Karpathy's microgpt: RMSNorm without gains, ReLU, no biases, its own head."""
    p = {name: np.asarray(value, dtype=np.float64) for name, value in parameters.items()}
    ids = np.asarray(tokens)
    x = ops.rmsnorm(p["wte.weight"][ids] + p["wpe.weight"][: ids.shape[-1]], eps)
    for layer in range(depth(parameters)):
        h = f"h.{layer}"
        normed = ops.rmsnorm(x, eps)
        q, k, v = (normed @ p[f"{h}.attn.{part}_proj.weight"] for part in "qkv")
        x = x + ops.attention(q, k, v, n_head) @ p[f"{h}.attn.o_proj.weight"]
        x = x + ops.relu(ops.rmsnorm(x, eps) @ p[f"{h}.mlp.fc1.weight"]) @ p[f"{h}.mlp.fc2.weight"]
    return x @ p["lm_head.weight"].T


def depth(parameters: Parameters) -> int:
    """The number of blocks h.0 .. h.N-1 that the names speak of."""
    return 1 + max((int(name.split(".")[1]) for name in parameters if name.startswith("h.")), default=-1)


def random_parameters(
    shapes: Mapping[str, Sequence[int]], *, seed: int = 0, scale: float = 0.2
) -> dict[str, NDArray[np.float32]]:
    """float32 values that no symmetry hides a mistake behind: every tensor random, gains around 1."""
    generator = np.random.default_rng(seed)
    drawn = {}
    for name, shape in shapes.items():
        centre = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        drawn[name] = (centre + scale * generator.standard_normal(tuple(shape))).astype(np.float32)
    return drawn


def gpt2_shapes(
    n_layer: int, d_model: int, n_positions: int, vocab: int, *, tied: bool = True
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a GPT-2."""
    d = d_model
    block = {
        "ln_1.weight": (d,),
        "ln_1.bias": (d,),
        "attn.c_attn.weight": (d, 3 * d),
        "attn.c_attn.bias": (3 * d,),
        "attn.c_proj.weight": (d, d),
        "attn.c_proj.bias": (d,),
        "ln_2.weight": (d,),
        "ln_2.bias": (d,),
        "mlp.c_fc.weight": (d, 4 * d),
        "mlp.c_fc.bias": (4 * d,),
        "mlp.c_proj.weight": (4 * d, d),
        "mlp.c_proj.bias": (d,),
    }
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (vocab, d), "wpe.weight": (n_positions, d)}
    for layer in range(n_layer):
        shapes |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
    shapes |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
    return shapes if tied else shapes | {"lm_head.weight": (vocab, d)}


def microgpt_shapes(n_layer: int, d_model: int, n_positions: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a microgpt."""
    d = d_model
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("wte.weight", "lm_head.weight"), (vocab, d))
    shapes["wpe.weight"] = (n_positions, d)
    for layer in range(n_layer):
        for part in "qkvo":
            shapes[f"h.{layer}.attn.{part}_proj.weight"] = (d, d)
        shapes[f"h.{layer}.mlp.fc1.weight"] = (d, 4 * d)
        shapes[f"h.{layer}.mlp.fc2.weight"] = (4 * d, d)
    return shapes
