"""The built-in architectures: gpt2 (Radford et al. 2019), gpt3 (Brown et al. 2020), microgpt (Karpathy)."""

from __future__ import annotations

import sqlalchemy as sa

from .architecture import Architecture
from .elements import TensorNode
from .ops import (
    TensorLike,
    activation,
    causal_attention,
    causal_attention_qkv,
    dropout,
    embedding,
    layer_norm,
    linear,
    lm_head,
    p,
    positions,
    relu,
    rms_norm,
)
from .variables import layer_norm_eps, tied, tokens, x


def _norm(stream: TensorLike, name: str) -> TensorNode:
    return layer_norm(stream, p(f"{name}.weight"), p(f"{name}.bias"), layer_norm_eps)


def _affine(stream: TensorLike, name: str) -> TensorNode:
    return linear(stream, p(f"{name}.weight"), p(f"{name}.bias"))


def _gpt(name: str, description: str) -> Architecture:
    """Pre-LayerNorm blocks over token and position embeddings."""
    stem = dropout(
        embedding(p("wte.weight"), tokens) + embedding(p("wpe.weight"), positions(tokens)), site="embd"
    )
    attention = causal_attention(
        _affine(_norm(x, "h.{layer}.ln_1"), "h.{layer}.attn.c_attn"), site="h.{layer}.attn"
    )
    attended = x + dropout(_affine(attention, "h.{layer}.attn.c_proj"), site="h.{layer}.resid_attn")
    mlp = _affine(
        activation(_affine(_norm(attended, "h.{layer}.ln_2"), "h.{layer}.mlp.c_fc")), "h.{layer}.mlp.c_proj"
    )
    block = attended + dropout(mlp, site="h.{layer}.resid_mlp")
    output_embedding = p(sa.case((tied, "wte.weight"), else_="lm_head.weight"))
    return Architecture(name, stem, block, lm_head(_norm(x, "ln_f"), output_embedding), (), description)


def _microgpt() -> Architecture:
    """RMSNorm without gains, no biases, ReLU, separate projections; it has no dropout."""
    stem = rms_norm(
        embedding(p("wte.weight"), tokens) + embedding(p("wpe.weight"), positions(tokens)), layer_norm_eps
    )
    normed = rms_norm(x, layer_norm_eps)
    q, k, v = (linear(normed, p(f"h.{{layer}}.attn.{part}_proj.weight")) for part in "qkv")
    attended = x + linear(causal_attention_qkv(q, k, v, dropout_p=0.0), p("h.{layer}.attn.o_proj.weight"))
    expanded = relu(linear(rms_norm(attended, layer_norm_eps), p("h.{layer}.mlp.fc1.weight")))
    block = attended + linear(expanded, p("h.{layer}.mlp.fc2.weight"))
    return Architecture(
        "microgpt",
        stem,
        block,
        lm_head(x, p("lm_head.weight")),
        description="microgpt: RMSNorm without gains, ReLU, no biases, head of its own (Karpathy 2026).",
    )


gpt2 = _gpt(
    "gpt2", "GPT-2: pre-LayerNorm blocks, learned positions, tanh GELU, tied head (Radford et al. 2019)."
)
gpt3 = _gpt("gpt3", "GPT-3: the graph of GPT-2, every layer dense (Brown et al. 2020).")
microgpt = _microgpt()

ARCHITECTURES = (gpt2, gpt3, microgpt)
