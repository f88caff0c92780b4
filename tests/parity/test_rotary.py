"""Rotary position embedding against transformers' Llama and GPT-NeoX: values and gradients."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import GPTNeoXConfig, LlamaConfig
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.llama import modeling_llama

T, N_HEAD, D_HEAD, THETA = 40, 3, 32, 500000.0
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SCALINGS: list[dict[str, Any]] = [{}, {"rope_type": "linear", "factor": 4.0}, LLAMA3]


def ours(
    conn: psycopg.Connection[Any], call: str, x: np.ndarray, dims: int, positions: list[int], scaling: Any
) -> np.ndarray:
    arguments = (x, N_HEAD, THETA, dims, positions, json.dumps(scaling))
    (value,) = conn.execute(f"SELECT {call}%s, %s, %s, %s, %s, %s::jsonb)", arguments).fetchone()  # type: ignore[misc]
    return np.asarray(value)


def compare(conn: psycopg.Connection[Any], config: Any, module: Any, dims: int, scaling: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    embedding = getattr(module, "LlamaRotaryEmbedding", None) or module.GPTNeoXRotaryEmbedding
    positions = torch.randint(0, 8000, (1, T), generator=generator)
    x = torch.randn(1, N_HEAD, T, D_HEAD, generator=generator, requires_grad=True)
    cosine, sine = embedding(config)(x, positions)
    turned, _ = module.apply_rotary_pos_emb(x, x, cosine, sine)
    dout = torch.randn(turned.shape, generator=generator)
    turned.backward(dout)

    def rows(t: torch.Tensor) -> np.ndarray:
        return t.detach().transpose(1, 2).reshape(T, N_HEAD * D_HEAD).numpy()

    got = ours(conn, "pg_llm_rotary(", rows(x), dims, positions[0].tolist(), scaling)
    # an ulp of the frequency, which their powers and ours may differ by, at position 8000
    near = 8000 * 2.0**-23
    np.testing.assert_allclose(got, rows(turned), rtol=0, atol=2 * near)
    assert np.mean(np.abs(got - rows(turned))) < 1e-5
    call = f"pg_llm_rotary_backward('{json.dumps(rows(dout).tolist())}'::tensor, "
    got = ours(conn, call, rows(x), dims, positions[0].tolist(), scaling)
    np.testing.assert_allclose(got, rows(x.grad), rtol=0, atol=2 * near)  # type: ignore[arg-type]
    assert np.mean(np.abs(got - rows(x.grad))) < 1e-5  # type: ignore[arg-type]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: s.get("rope_type", "default"))
def test_like_llama(conn: psycopg.Connection[Any], scaling: dict[str, Any]) -> None:
    config = LlamaConfig(
        hidden_size=N_HEAD * D_HEAD,
        num_attention_heads=N_HEAD,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": THETA, **scaling},
    )
    compare(conn, config, modeling_llama, 0, scaling)


def test_like_gpt_neox_which_turns_a_quarter(conn: psycopg.Connection[Any]) -> None:
    config = GPTNeoXConfig(
        hidden_size=N_HEAD * D_HEAD,
        num_attention_heads=N_HEAD,
        rope_parameters={"rope_type": "default", "rope_theta": THETA, "partial_rotary_factor": 0.25},
    )
    compare(conn, config, modeling_gpt_neox, D_HEAD // 4, {})
