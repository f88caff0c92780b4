"""What every op should compute, in plain float64 NumPy: forward, analytic gradient, Philox, sampling.

No speed, no blocking, no code shared with the engine. test_reference.py holds gradients against differences.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

# -- linear algebra


def linear(x: Array, w: Array, b: Array) -> Array:
    return x @ w + b


def linear_backward(dout: Array, x: Array, w: Array, b: Array) -> tuple[Array, Array, Array]:
    rows, douts = x.reshape(-1, x.shape[-1]), dout.reshape(-1, dout.shape[-1])
    return dout @ w.T, rows.T @ douts, douts.sum(0)


def embedding_backward(dout: Array, ids: Array, rows: int) -> Array:
    dw = np.zeros((rows, dout.shape[-1]))
    np.add.at(dw, ids.reshape(-1), dout.reshape(-1, dout.shape[-1]))
    return dw


# -- elementwise


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_backward(dout: Array, x: Array) -> Array:
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    inner = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    return dout * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner)


def normal_cdf(x: Array) -> Array:
    """Phi by erfc, which keeps the left tail's relative accuracy."""
    return 0.5 * np.array([math.erfc(-v / math.sqrt(2)) for v in x.reshape(-1)]).reshape(x.shape)


def gelu_exact(x: Array) -> Array:
    return x * normal_cdf(x)


def gelu_exact_backward(dout: Array, x: Array) -> Array:
    return dout * (normal_cdf(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def relu_backward(dout: Array, x: Array) -> Array:
    return dout * (x > 0)


# -- rows


def layernorm_parts(x: Array, eps: float) -> tuple[Array, Array]:
    """Mean and 1 / standard deviation of each row."""
    mean = x.mean(-1)
    return mean, 1 / np.sqrt(((x - mean[..., None]) ** 2).mean(-1) + eps)


def layernorm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    mean, rstd = layernorm_parts(x, eps)
    return (x - mean[..., None]) * rstd[..., None] * gamma + beta


def layernorm_backward(dout: Array, x: Array, gamma: Array, eps: float) -> tuple[Array, Array, Array]:
    mean, rstd = layernorm_parts(x, eps)
    hat = (x - mean[..., None]) * rstd[..., None]
    dhat = dout * gamma
    dx = dhat - dhat.mean(-1, keepdims=True) - hat * (dhat * hat).mean(-1, keepdims=True)
    axes = tuple(range(x.ndim - 1))
    return dx * rstd[..., None], (dout * hat).sum(axes), dout.sum(axes)


def rmsnorm(x: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def rmsnorm_backward(dout: Array, x: Array, eps: float) -> Array:
    rstd = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return rstd * (dout - x * rstd**2 * (dout * x).mean(-1, keepdims=True))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_backward(dout: Array, x: Array) -> Array:
    p = softmax(x)
    return p * (dout - (dout * p).sum(-1, keepdims=True))


# -- attention


def _heads(x: Array, n_head: int) -> Array:
    B, T, D = x.shape
    return x.reshape(B, T, n_head, D // n_head).swapaxes(1, 2)


def _tokens(x: Array) -> Array:
    B, H, T, dh = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * dh)


def attention_weights(q: Array, k: Array, n_head: int) -> Array:
    """Causal softmax weights (B,n_head,T,T)."""
    T = q.shape[1]
    qh, kh = _heads(q, n_head), _heads(k, n_head)
    scores = qh @ kh.swapaxes(-1, -2) / np.sqrt(qh.shape[-1])
    return softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf))


def attention(q: Array, k: Array, v: Array, n_head: int, keep: Array | float = 1.0) -> Array:
    """keep (B,n_head,T,T) multiplies the weights: 0 where dropout acts, else 1 / (1 - p)."""
    return _tokens((attention_weights(q, k, n_head) * keep) @ _heads(v, n_head))


def attention_backward(
    dout: Array, q: Array, k: Array, v: Array, n_head: int, keep: Array | float = 1.0
) -> tuple[Array, Array, Array]:
    p = attention_weights(q, k, n_head)
    qh, kh, vh, dh = (_heads(x, n_head) for x in (q, k, v, dout))
    dp = (dh @ vh.swapaxes(-1, -2)) * keep
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(qh.shape[-1])
    return _tokens(ds @ kh), _tokens(ds.swapaxes(-1, -2) @ qh), _tokens((p * keep).swapaxes(-1, -2) @ dh)


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


def adamw(w, m, v, grad, *, lr, beta1, beta2, eps, weight_decay, step):
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
