"""Models with LoRA adapters in float64 NumPy: GPT-2's forward pass and Llama's with y = x w + s (x a) b."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import ops
from .gpt2_numpy import depth, gpt2_logits

Array = NDArray[np.float64]
Parameters = Mapping[str, NDArray[Any]]


def merged(base: Parameters, adapter: Parameters, scale: float) -> dict[str, Array]:
    """The base with scale * a b added to each matrix that the adapter has factors for."""
    whole = {name: np.asarray(x, np.float64) for name, x in base.items()}
    for name, a in adapter.items():
        matrix, dot, factor = name.rpartition(".lora_")
        if dot and factor == "a":
            b = np.asarray(adapter[f"{matrix}.lora_b"], np.float64)
            whole[matrix] = whole[matrix] + scale * np.asarray(a, np.float64) @ b
    return whole


def llama_logits(
    p: Parameters, tokens: ArrayLike, *, n_head: int, n_kv_head: int, theta: float, eps: float = 1e-5
) -> Array:
    """Logits [T, V] of a Llama without biases, with its own head or the embedding's."""
    ids = np.asarray(tokens)
    at = np.arange(ids.shape[-1])
    x = p["wte.weight"][ids]
    for layer in range(depth(p)):
        w = {name: p[f"h.{layer}.{name}.weight"] for name in LLAMA}
        y = ops.rmsnorm_gain(x, w["ln_1"], eps)
        q, k, v = (y @ w[f"attn.{letter}_proj"] for letter in "qkv")
        q = ops.rotary(q, n_head, theta, 0, at)
        k = ops.rotary(k, n_kv_head, theta, 0, at)
        x = x + ops.shared_attention(q, k, v, n_head, n_kv_head=n_kv_head) @ w["attn.o_proj"]
        y = ops.rmsnorm_gain(x, w["ln_2"], eps)
        x = x + ops.swiglu(y @ w["mlp.gate_proj"], y @ w["mlp.up_proj"]) @ w["mlp.down_proj"]
    return np.asarray(
        ops.lm_head(ops.rmsnorm_gain(x, p["ln_f.weight"], eps), p.get("lm_head.weight", p["wte.weight"]))
    )


LLAMA = (
    "ln_1",
    *(f"attn.{part}_proj" for part in "qkvo"),
    "ln_2",
    *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
)


def logits(arch: str, base: Parameters, adapter: Parameters, scale: float, tokens: ArrayLike) -> Array:
    """Of the models of tests/schema/test_adapter.py."""
    whole = merged(base, adapter, scale)
    if arch == "gpt2":
        return gpt2_logits(whole, tokens, n_head=2)
    return llama_logits(whole, tokens, n_head=4, n_kv_head=2, theta=500)
