"""A token in position 8,000 against float64: no further from it than transformers is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from ..support.training import relative_error, scalar
from .families import MODEL, VOCAB, Family, bring_in

Floats = NDArray[np.float64]
T, LAST, D_HEAD, N_HEAD, N_KV, THETA = 8000, 16, 32, 4, 2, 500000.0
FAMILY = Family(
    "far",
    "Llama",
    {
        "hidden_size": N_HEAD * D_HEAD, "num_hidden_layers": 1, "num_attention_heads": N_HEAD,
        "num_key_value_heads": N_KV, "max_position_embeddings": 8192, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": THETA},
    },
    std=0.08,
)  # fmt: skip


def normed(x: Floats, gain: Floats) -> Floats:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain


def turned(x: Floats, positions: Floats) -> Floats:
    """x [T, heads, D_HEAD]."""
    half = D_HEAD // 2
    angles = (positions[:, None] * THETA ** (-2.0 * np.arange(half) / D_HEAD))[:, None, :]
    first, second = x[..., :half], x[..., half:]
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def exactly(w: dict[str, Floats], ids: NDArray[Any]) -> Floats:
    """The logits of the last positions in float64."""
    block = "model.layers.0."
    x = w["model.embed_tokens.weight"][ids]
    inner = normed(x, w[f"{block}input_layernorm.weight"])
    q, k, v = (inner @ w[f"{block}self_attn.{part}_proj.weight"].T for part in "qkv")
    positions = np.arange(T, dtype=np.float64)
    q = turned(q.reshape(T, N_HEAD, D_HEAD), positions)[-LAST:]
    k = turned(k.reshape(T, N_KV, D_HEAD), positions).repeat(N_HEAD // N_KV, 1)
    v = v.reshape(T, N_KV, D_HEAD).repeat(N_HEAD // N_KV, 1)
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(D_HEAD)
    scores[:, np.arange(T)[None] > np.arange(T - LAST, T)[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hts,shd->thd", weights / weights.sum(-1, keepdims=True), v).reshape(LAST, -1)
    x = x[-LAST:] + mixed @ w[f"{block}self_attn.o_proj.weight"].T
    inner = normed(x, w[f"{block}post_attention_layernorm.weight"])
    gate, up = (inner @ w[f"{block}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
    x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{block}mlp.down_proj.weight"].T
    return normed(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T


def test_position_8000(conn: psycopg.Connection[Any], db_url: str, tmp_path: Path) -> None:
    model = FAMILY.make()
    model.save_pretrained(tmp_path / "saved")
    bring_in(db_url, tmp_path / "saved")
    ids = torch.randint(0, VOCAB, (1, T), generator=torch.Generator().manual_seed(2))
    model.config._attn_implementation = "sdpa"
    with torch.no_grad():
        theirs = model(ids, logits_to_keep=LAST).logits[0].numpy()
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    expected = exactly(w, ids[0].numpy())
    ours = scalar(conn, "SELECT llm_logits(%s, %s)", (ids[0].tolist(), MODEL))[-LAST:]
    assert relative_error(ours, expected) <= 1.2 * relative_error(theirs, expected) + 1e-7
    assert relative_error(ours, expected) < 1e-4
