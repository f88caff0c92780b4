"""What every op should compute, in plain float64 NumPy: forward, analytic gradient, Philox, sampling.

No speed, no blocking, no code shared with the product. GRADIENTS names every gradient with inputs to try it
on: tests/kernels/test_reference.py holds each against differences. An activation is a function, its gradient
and an entry of ACTIVATIONS, a table that the tests of the kernels, of SQL and of the graph walk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

# -- linear algebra


def linear(x: Array, w: Array, b: Array | float = 0.0) -> Array:
    return x @ w + b


def linear_backward(dout: Array, x: Array, w: Array, b: Array | float = 0.0) -> tuple[Array, Array, Array]:
    rows, douts = x.reshape(-1, x.shape[-1]), dout.reshape(-1, dout.shape[-1])
    return dout @ w.T, rows.T @ douts, douts.sum(0)


def embedding(w: Array, ids: ArrayLike) -> Array:
    return w[np.asarray(ids)]


def embedding_backward(dout: Array, ids: Array, rows: int) -> Array:
    dw = np.zeros((rows, dout.shape[-1]))
    np.add.at(dw, ids.reshape(-1), dout.reshape(-1, dout.shape[-1]))
    return dw


def lm_head(x: Array, w: Array) -> Array:
    return x @ w.T


# -- activations


def gelu(x: Array) -> Array:
    """The tanh form (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_backward(dout: Array, x: Array) -> Array:
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    inner = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    return dout * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner)


def normal_cdf(x: Array) -> Array:
    """Phi by erfc, which keeps the left tail's relative accuracy."""
    return 0.5 * np.array([math.erfc(-v / math.sqrt(2)) for v in x.reshape(-1)]).reshape(x.shape)


def gelu_exact(x: Array) -> Array:
    """x Phi(x)."""
    return x * normal_cdf(x)


def gelu_exact_backward(dout: Array, x: Array) -> Array:
    return dout * (normal_cdf(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def relu_backward(dout: Array, x: Array) -> Array:
    return dout * (x > 0)


def silu(x: Array) -> Array:
    """x sigmoid(x), by exp(-|x|), which cannot overflow."""
    t = np.exp(-np.abs(x))
    return x * np.where(x < 0, t, 1) / (1 + t)


def silu_backward(dout: Array, x: Array) -> Array:
    t = np.exp(-np.abs(x))
    sigmoid = np.where(x < 0, t, 1) / (1 + t)
    return dout * (sigmoid + x * t / (1 + t) ** 2)


def swiglu(gate: Array, up: Array) -> Array:
    """silu(gate) * up (Shazeer 2020)."""
    return silu(gate) * up


def swiglu_backward(dout: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    return silu_backward(dout * up, gate), dout * silu(gate)


@dataclass(frozen=True)
class Activation:
    """Formula, gradient, and how near a float32 kernel comes: so many roundings of a number of that size."""

    forward: Callable[[Array], Array]
    backward: Callable[[Array, Array], Array]
    size: Callable[[Array], Array]
    """Of x: what the forward's error is relative to."""
    roundings: float
    slope: Callable[[Array], Array]
    """Of x: what the backward's error is relative to, beside |dout|."""
    slope_roundings: float
    names: tuple[str, ...] = ()
    """What Hugging Face's configurations call it."""


# Each is llm_<name>_forward and _backward in C, pg_llm_<name> in SQL, <name> in the graph.
ACTIVATIONS = {
    "gelu": Activation(
        gelu,
        gelu_backward,
        np.abs,
        6,
        lambda x: 1 + np.abs(x),
        12,
        ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    ),
    "gelu_exact": Activation(
        gelu_exact,
        gelu_exact_backward,
        lambda x: np.abs(gelu_exact(x)),
        8,
        np.ones_like,
        6,
        ("gelu", "gelu_python"),
    ),
    "relu": Activation(relu, relu_backward, np.abs, 0, np.ones_like, 0, ("relu",)),
    "silu": Activation(
        silu, silu_backward, lambda x: np.abs(silu(x)), 6, lambda x: 1 + np.abs(x), 8, ("silu", "swish")
    ),
}

# -- positions


def rotary_angles(
    positions: ArrayLike, dims: int, theta: float, scaling: Mapping[str, Any] | None = None
) -> Array:
    """position * theta**(-2i/dims), (n, dims/2), rounded to float32 where Hugging Face's are; linear and
    llama3 scaling as in transformers' modeling_rope_utils.
    """
    f = np.float32(1) / np.power(theta, np.arange(0, dims, 2, dtype=np.float32) / np.float32(dims)).astype(
        np.float32
    )
    kind = (scaling or {}).get("rope_type", "default")
    if kind != "default":
        assert scaling is not None
        slow = f / np.float32(scaling["factor"])
        if kind == "linear":
            f = slow
        else:
            low, high = np.float32(scaling["low_freq_factor"]), np.float32(scaling["high_freq_factor"])
            context = np.float32(scaling["original_max_position_embeddings"])
            wave = np.float32(2 * np.pi) / f
            smooth = (context / wave - low) / (high - low)
            between = (1 - smooth) * f / np.float32(scaling["factor"]) + smooth * f
            f = np.where(wave > context / low, slow, np.where(wave < context / high, f, between))
    return (np.asarray(positions, np.float32).reshape(-1, 1) * f.astype(np.float32)).astype(np.float64)


def rotate(x: Array, angles: Array, n_head: int) -> Array:
    """Of each head of x [..., D] the first numbers turned in pairs (i, i + half), row by row."""
    n, half = angles.shape
    heads = x.reshape(-1, n, n_head, x.shape[-1] // n_head)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = heads[..., :half], heads[..., half : 2 * half]
    turned = np.concatenate([a * cosine - b * sine, b * cosine + a * sine, heads[..., 2 * half :]], -1)
    return turned.reshape(x.shape)


def rotary(
    x: Array,
    n_head: int,
    theta: float,
    dims: int,
    positions: ArrayLike,
    scaling: Mapping[str, Any] | None = None,
) -> Array:
    """Rotary position embedding (Su et al. 2021), Hugging Face's half-split form; dims 0: the whole head."""
    return rotate(x, rotary_angles(positions, dims or x.shape[-1] // n_head, theta, scaling), n_head)


def rotary_backward(
    dout: Array,
    n_head: int,
    theta: float,
    dims: int,
    positions: ArrayLike,
    scaling: Mapping[str, Any] | None = None,
) -> Array:
    """The turns taken back."""
    return rotate(dout, -rotary_angles(positions, dims or dout.shape[-1] // n_head, theta, scaling), n_head)


# -- rows


def layernorm_parts(x: Array, eps: float) -> tuple[Array, Array]:
    """Mean and 1 / standard deviation of each row."""
    mean = x.mean(-1)
    return mean, 1 / np.sqrt(((x - mean[..., None]) ** 2).mean(-1) + eps)


def layernorm(x: Array, gamma: Array | float, beta: Array | float, eps: float = 1e-5) -> Array:
    mean, rstd = layernorm_parts(x, eps)
    return (x - mean[..., None]) * rstd[..., None] * gamma + beta


def layernorm_backward(dout: Array, x: Array, gamma: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    mean, rstd = layernorm_parts(x, eps)
    hat = (x - mean[..., None]) * rstd[..., None]
    dhat = dout * gamma
    dx = dhat - dhat.mean(-1, keepdims=True) - hat * (dhat * hat).mean(-1, keepdims=True)
    axes = tuple(range(x.ndim - 1))
    return dx * rstd[..., None], (dout * hat).sum(axes), dout.sum(axes)


def rmsnorm(x: Array, eps: float = 1e-5) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def rmsnorm_backward(dout: Array, x: Array, eps: float = 1e-5) -> Array:
    rstd = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return rstd * (dout - x * rstd**2 * (dout * x).mean(-1, keepdims=True))


def rmsnorm_gain(x: Array, gain: Array, eps: float = 1e-5) -> Array:
    """Each gain.size numbers of a row normalised by themselves, then times the gain."""
    groups = x.reshape(*x.shape[:-1], -1, gain.size)
    return (rmsnorm(groups, eps) * gain).reshape(x.shape)


def rmsnorm_gain_backward(dout: Array, x: Array, gain: Array, eps: float = 1e-5) -> tuple[Array, Array]:
    groups, douts = (a.reshape(-1, gain.size) for a in (x, dout))
    dx = rmsnorm_backward(douts * gain, groups, eps)
    return dx.reshape(x.shape), (douts * rmsnorm(groups, eps)).sum(0)


def l2_normalize(x: Array, enabled: bool = True) -> Array:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) if enabled else x


def l2_normalize_backward(dout: Array, x: Array) -> Array:
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    along = (dout * x).sum(-1, keepdims=True) / np.maximum(norm, 1e-12) ** 2
    return (dout - np.where(norm > 1e-12, x * along, 0)) / np.maximum(norm, 1e-12)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_backward(dout: Array, x: Array) -> Array:
    p = softmax(x)
    return p * (dout - (dout * p).sum(-1, keepdims=True))


# -- attention


def _heads(x: Array, n_head: int) -> Array:
    """[..., T, D] -> [..., n_head, T, D / n_head]."""
    *batch, T, D = x.shape
    return x.reshape(*batch, T, n_head, D // n_head).swapaxes(-2, -3)


def _tokens(x: Array) -> Array:
    """[..., n_head, T, d_head] -> [..., T, n_head * d_head]."""
    *batch, H, T, dh = x.shape
    return x.swapaxes(-2, -3).reshape(*batch, T, H * dh)


def attention_weights(q: Array, k: Array, n_head: int, causal: bool = True, window: int = 0) -> Array:
    """softmax(q k^T / sqrt(d_head)) over positions up to one's own, the last `window` of them, or over all.

    [..., n_head, T, T] of [..., T, D].
    """
    qh, kh = _heads(q, n_head), _heads(k, n_head)
    scores = qh @ kh.swapaxes(-1, -2) / np.sqrt(qh.shape[-1])
    seen = np.tri(q.shape[-2], dtype=bool)
    if window:
        seen &= ~np.tri(q.shape[-2], k=-window, dtype=bool)
    return softmax(np.where(seen, scores, -np.inf) if causal else scores)


def attention(
    q: Array,
    k: Array,
    v: Array,
    n_head: int,
    keep: Array | float = 1.0,
    causal: bool = True,
    window: int = 0,
) -> Array:
    """keep [..., n_head, T, T] multiplies the weights: 0 where dropout acts, else 1 / (1 - p)."""
    return _tokens((attention_weights(q, k, n_head, causal, window) * keep) @ _heads(v, n_head))


def attention_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    n_head: int,
    keep: Array | float = 1.0,
    causal: bool = True,
    window: int = 0,
) -> tuple[Array, Array, Array]:
    p = attention_weights(q, k, n_head, causal, window)
    qh, kh, vh, dh = (_heads(x, n_head) for x in (q, k, v, dout))
    dp = (dh @ vh.swapaxes(-1, -2)) * keep
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(qh.shape[-1])
    return _tokens(ds @ kh), _tokens(ds.swapaxes(-1, -2) @ qh), _tokens((p * keep).swapaxes(-1, -2) @ dh)


def repeat_heads(x: Array, n_head: int, n_kv_head: int) -> Array:
    """k or v with a head for each of q's: [..., n_kv_head * d_head] -> [..., n_head * d_head]."""
    heads = x.reshape(*x.shape[:-1], n_kv_head, -1)
    return heads.repeat(n_head // n_kv_head, -2).reshape(*x.shape[:-1], -1)


def shared_attention(
    q: Array,
    k: Array,
    v: Array,
    n_head: int,
    dropout_p: float = 0.0,
    training: bool = False,
    site: str = "",
    n_kv_head: int | None = None,
    window: int = 0,
) -> Array:
    """Attention whose query heads share n_kv_head heads of keys and values, with or without a window."""
    k, v = (repeat_heads(x, n_head, n_kv_head or n_head) for x in (k, v))
    return attention(q, k, v, n_head, window=window)


def shared_attention_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    n_head: int,
    n_kv_head: int,
    window: int = 0,
    keep: Array | float = 1.0,
) -> tuple[Array, Array, Array]:
    own = (repeat_heads(x, n_head, n_kv_head) for x in (k, v))
    dq, *dkv = attention_backward(dout, q, *own, n_head, keep, window=window)
    dk, dv = (
        x.reshape(*x.shape[:-1], n_kv_head, n_head // n_kv_head, -1).sum(-2).reshape(k.shape) for x in dkv
    )
    return dq, dk, dv


def parts(x: Array, lengths: ArrayLike) -> list[Array]:
    """The sequences that lie end to end in x [N, D]."""
    return np.split(x, np.cumsum(lengths)[:-1])


def bidirectional_attention(
    q: Array,
    k: Array,
    v: Array,
    n_head: int,
    dropout_p: float = 0.0,
    training: bool = False,
    site: str = "",
    lengths: ArrayLike | None = None,
) -> Array:
    """Of every token to all of its sequence: [..., T, D], or [N, D] of sequences end to end."""
    if lengths is None:
        return attention(q, k, v, n_head, causal=False)
    sequences = zip(*(parts(x, lengths) for x in (q, k, v)), strict=True)
    return np.concatenate([attention(*sequence, n_head, causal=False) for sequence in sequences])


def bidirectional_attention_backward(
    dout: Array, q: Array, k: Array, v: Array, n_head: int, lengths: ArrayLike
) -> tuple[Array, ...]:
    sequences = zip(*(parts(x, lengths) for x in (dout, q, k, v)), strict=True)
    gradients = [attention_backward(*sequence, n_head, causal=False) for sequence in sequences]
    return tuple(np.concatenate(of) for of in zip(*gradients, strict=True))


def mean_pool(x: Array, lengths: ArrayLike | None = None) -> Array:
    """[..., D] of x [..., T, D], or a row for each of the sequences end to end in x [N, D]."""
    return x.mean(-2) if lengths is None else np.stack([part.mean(0) for part in parts(x, lengths)])


def mean_pool_backward(dout: Array, lengths: ArrayLike) -> Array:
    sizes = np.asarray(lengths)
    return np.repeat(dout / sizes[:, None], sizes, 0)


def cls_pool(x: Array, lengths: ArrayLike | None = None) -> Array:
    return x[..., 0, :] if lengths is None else np.stack([part[0] for part in parts(x, lengths)])


def cls_pool_backward(dout: Array, lengths: ArrayLike) -> Array:
    sizes = np.asarray(lengths)
    dx = np.zeros((sizes.sum(), dout.shape[-1]))
    dx[np.cumsum(sizes) - sizes] = dout
    return dx


def pool(x: Array, lengths: ArrayLike | None, pooling: str) -> Array:
    return {"mean": mean_pool, "cls": cls_pool}[pooling](x, lengths)


def fused_attention(
    qkv: Array, n_head: int, dropout_p: float = 0.0, training: bool = False, site: str = "", window: int = 0
) -> Array:
    """Of [q | k | v] per token, [..., T, 3 D]."""
    return attention(*np.split(qkv, 3, axis=-1), n_head, window=window)


def attention_layer(x: Array, w_qkv: Array, b_qkv: Array, w_o: Array, b_o: Array, n_head: int) -> Array:
    """Attention between its projections, as GPT-2 has it."""
    return linear(fused_attention(linear(x, w_qkv, b_qkv), n_head), w_o, b_o)


# -- loss and optimizer


def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Losses (0 where the target is negative) and log-sum-exp of each row."""
    top = logits.max(-1)
    log_sum = np.log(np.exp(logits - top[..., None]).sum(-1)) + top
    picked = np.take_along_axis(logits, np.maximum(targets, 0)[..., None], -1)[..., 0]
    return np.where(targets < 0, 0, log_sum - picked), log_sum


def cross_entropy_backward(logits: Array, targets: Array, scale: float) -> Array:
    onehot = np.arange(logits.shape[-1]) == targets[..., None]
    return np.where(targets[..., None] < 0, 0, scale * (softmax(logits) - onehot))


def mean_cross_entropy(logits: Array, targets: ArrayLike) -> Array:
    """The mean loss over targets that are not negative, [...] for logits [..., V]."""
    rows, wanted = logits.reshape(-1, logits.shape[-1]), np.asarray(targets).reshape(-1)
    return np.asarray(cross_entropy(rows, wanted)[0].sum() / (wanted >= 0).sum())


def lm_head_loss(x: Array, w: Array, targets: ArrayLike) -> Array:
    return mean_cross_entropy(lm_head(x, w), targets)


def adamw(
    w: Array,
    m: Array,
    v: Array,
    grad: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> tuple[Array, Array, Array]:
    """Loshchilov & Hutter 2019, algorithm 2, with PyTorch's decay: before the step, times lr."""
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return w * (1 - lr * weight_decay) - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


# -- randomness


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 (Salmon et al. 2011) in Python's integers."""
    c, k, mask = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(high >> 32) ^ c[1] ^ k[0], high & mask, (low >> 32) ^ c[3] ^ k[1], low & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


# -- sampling


def kept_tokens(logits: Array, temperature: float, top_k: int, top_p: float) -> tuple[Array, Array]:
    """Token ids that may be drawn, most probable first (ties: lowest id), and their probabilities."""
    scaled = logits.astype(np.float64) / temperature
    order = np.lexsort((np.arange(scaled.size), -scaled))
    if top_k:
        order = order[:top_k]
    p = softmax(scaled[order])
    if top_p < 1:
        order = order[: int(np.searchsorted(np.cumsum(p), top_p)) + 1]
        p = p[: order.size]
    return order, p / p.sum()


# -- gradients

_RNG = np.random.default_rng(5)
_IDS = np.array([[3, 0, 3], [5, 1, 3]])
_TARGETS = np.array([2, -1, 0, 4])
_KEEP = (_RNG.random((2, 2, 4, 4)) < 0.7) / 0.7


def _normal(*shape: int) -> Array:
    return _RNG.standard_normal(shape)


# name: (forward of its inputs, analytic backward of (dout, *inputs), inputs)
GRADIENTS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Array, ...]]] = {
    **{name: (a.forward, a.backward, (3 * _normal(40),)) for name, a in ACTIVATIONS.items()},
    "linear": (linear, linear_backward, (_normal(2, 3, 4), _normal(4, 5), _normal(5))),
    "embedding": (
        lambda w: embedding(w, _IDS),
        lambda d, w: embedding_backward(d, _IDS, 6),
        (_normal(6, 3),),
    ),
    "layernorm": (
        layernorm,
        lambda d, x, gamma, beta: layernorm_backward(d, x, gamma),
        (_normal(2, 3, 7), _normal(7), _normal(7)),
    ),
    "rmsnorm": (rmsnorm, rmsnorm_backward, (_normal(4, 7),)),
    "rmsnorm of groups": (rmsnorm_gain, rmsnorm_gain_backward, (_normal(3, 8), _normal(4))),
    "swiglu": (swiglu, swiglu_backward, (3 * _normal(2, 9), _normal(2, 9))),
    "attention with shared heads and a window": (
        lambda q, k, v: shared_attention(q, k, v, 4, n_kv_head=2, window=3),
        lambda d, q, k, v: shared_attention_backward(d, q, k, v, 4, 2, 3),
        (_normal(2, 6, 12), _normal(2, 6, 6), _normal(2, 6, 6)),
    ),
    "rotary": (
        lambda x: rotary(x, 2, 100.0, 4, [0, 1, 5]),
        lambda d, x: rotary_backward(d, 2, 100.0, 4, [0, 1, 5]),
        (_normal(2, 3, 12),),
    ),
    "softmax": (softmax, softmax_backward, (_normal(4, 7),)),
    "l2_normalize": (l2_normalize, l2_normalize_backward, (_normal(4, 7),)),
    "mean_pool": (
        lambda x: mean_pool(x, [1, 4, 2]),
        lambda d, x: mean_pool_backward(d, [1, 4, 2]),
        (_normal(7, 3),),
    ),
    "cls_pool": (
        lambda x: cls_pool(x, [1, 4, 2]),
        lambda d, x: cls_pool_backward(d, [1, 4, 2]),
        (_normal(7, 3),),
    ),
    "attention of sequences": (
        lambda q, k, v: bidirectional_attention(q, k, v, 2, lengths=[1, 4, 2]),
        lambda d, q, k, v: bidirectional_attention_backward(d, q, k, v, 2, [1, 4, 2]),
        (_normal(7, 6), _normal(7, 6), _normal(7, 6)),
    ),
    "attention both ways with dropout": (
        lambda q, k, v: attention(q, k, v, 2, _KEEP, causal=False),
        lambda d, q, k, v: attention_backward(d, q, k, v, 2, _KEEP, causal=False),
        (_normal(2, 4, 6), _normal(2, 4, 6), _normal(2, 4, 6)),
    ),
    "attention": (
        lambda q, k, v: attention(q, k, v, 2),
        lambda d, q, k, v: attention_backward(d, q, k, v, 2),
        (_normal(2, 5, 6), _normal(2, 5, 6), _normal(2, 5, 6)),
    ),
    "attention with dropout": (
        lambda q, k, v: attention(q, k, v, 2, _KEEP),
        lambda d, q, k, v: attention_backward(d, q, k, v, 2, _KEEP),
        (_normal(2, 4, 6), _normal(2, 4, 6), _normal(2, 4, 6)),
    ),
    "cross_entropy": (
        lambda logits: cross_entropy(logits, _TARGETS)[0].sum(),
        lambda d, logits: d * cross_entropy_backward(logits, _TARGETS, 1.0),
        (_normal(4, 6),),
    ),
    "lm_head_loss": (
        lambda x, w: cross_entropy(lm_head(x, w), _TARGETS)[0].sum(),
        lambda d, x, w: tuple(
            d * g
            for dlogits in [cross_entropy_backward(lm_head(x, w), _TARGETS, 1.0)]
            for g in (dlogits @ w, dlogits.T @ x)
        ),
        (_normal(4, 3), _normal(6, 3)),
    ),
}
