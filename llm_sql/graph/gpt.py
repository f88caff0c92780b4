"""The built-in architectures: gpt2 (Radford et al. 2019), gpt3 (Brown et al. 2020), microgpt (Karpathy)."""

from __future__ import annotations

import sqlalchemy as sa

from .architecture import Architecture, Init, ParameterSpec
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
from .variables import d_ff, d_model, layer_norm_eps, n_positions, tied, tokens, vocab, x

Width = sa.ColumnElement[int]


def _norm(stream: TensorLike, name: str) -> TensorNode:
    return layer_norm(stream, p(f"{name}.weight"), p(f"{name}.bias"), layer_norm_eps)


def _affine(stream: TensorLike, name: str) -> TensorNode:
    return linear(stream, p(f"{name}.weight"), p(f"{name}.bias"))


def _norm_parameters(name: str) -> tuple[ParameterSpec, ParameterSpec]:
    return (
        ParameterSpec(f"{name}.weight", (d_model,), "ones"),
        ParameterSpec(f"{name}.bias", (d_model,), "zeros"),
    )


def _affine_parameters(
    name: str, width_in: Width, width_out: Width, init: Init = "normal"
) -> tuple[ParameterSpec, ParameterSpec]:
    return (
        ParameterSpec(f"{name}.weight", (width_in, width_out), init),
        ParameterSpec(f"{name}.bias", (width_out,), "zeros"),
    )


# Under Hugging Face's names; linear weights are [in, out]. Radford et al. 2019, section 2.3: residual
# projections begin scaled by 1/sqrt(2 n_layer).
_GPT_PARAMETERS = (
    ParameterSpec("wte.weight", (vocab, d_model)),
    ParameterSpec("wpe.weight", (n_positions, d_model)),
    *_norm_parameters("h.{layer}.ln_1"),
    *_affine_parameters("h.{layer}.attn.c_attn", d_model, 3 * d_model),
    *_affine_parameters("h.{layer}.attn.c_proj", d_model, d_model, "residual"),
    *_norm_parameters("h.{layer}.ln_2"),
    *_affine_parameters("h.{layer}.mlp.c_fc", d_model, d_ff),
    *_affine_parameters("h.{layer}.mlp.c_proj", d_ff, d_model, "residual"),
    *_norm_parameters("ln_f"),
    ParameterSpec("lm_head.weight", (vocab, d_model), only_if=sa.not_(tied)),
)

# Everything normal with standard deviation 0.08.
_MICROGPT_PARAMETERS = tuple(
    ParameterSpec(name, shape, std=0.08)
    for name, shape in (
        ("wte.weight", (vocab, d_model)),
        ("wpe.weight", (n_positions, d_model)),
        ("lm_head.weight", (vocab, d_model)),
        ("h.{layer}.attn.q_proj.weight", (d_model, d_model)),
        ("h.{layer}.attn.k_proj.weight", (d_model, d_model)),
        ("h.{layer}.attn.v_proj.weight", (d_model, d_model)),
        ("h.{layer}.attn.o_proj.weight", (d_model, d_model)),
        ("h.{layer}.mlp.fc1.weight", (d_model, d_ff)),
        ("h.{layer}.mlp.fc2.weight", (d_ff, d_model)),
    )
)


def _gpt2() -> Architecture:
    """Pre-LayerNorm blocks over token and position embeddings."""
    stem = dropout(
        embedding(p("wte.weight"), tokens) + embedding(p("wpe.weight"), positions(tokens)), site="embd"
    )
    attention = causal_attention_qkv(
        _affine(_norm(x, "h.{layer}.ln_1"), "h.{layer}.attn.c_attn"), site="h.{layer}.attn"
    )
    attended = x + dropout(_affine(attention, "h.{layer}.attn.c_proj"), site="h.{layer}.resid_attn")
    mlp = _affine(
        activation(_affine(_norm(attended, "h.{layer}.ln_2"), "h.{layer}.mlp.c_fc")), "h.{layer}.mlp.c_proj"
    )
    block = attended + dropout(mlp, site="h.{layer}.resid_mlp")
    output_embedding = p(sa.case((tied, "wte.weight"), else_="lm_head.weight"))
    return Architecture(
        "gpt2",
        stem,
        block,
        lm_head(_norm(x, "ln_f"), output_embedding),
        _GPT_PARAMETERS,
        "GPT-2: pre-LayerNorm blocks, learned positions, tanh GELU, tied head (Radford et al. 2019).",
    )


def _microgpt() -> Architecture:
    """RMSNorm without gains, no biases, ReLU, separate projections; it has no dropout."""
    stem = rms_norm(
        embedding(p("wte.weight"), tokens) + embedding(p("wpe.weight"), positions(tokens)), layer_norm_eps
    )
    normed = rms_norm(x, layer_norm_eps)
    q, k, v = (linear(normed, p(f"h.{{layer}}.attn.{part}_proj.weight")) for part in "qkv")
    attended = x + linear(causal_attention(q, k, v, dropout_p=0.0), p("h.{layer}.attn.o_proj.weight"))
    expanded = relu(linear(rms_norm(attended, layer_norm_eps), p("h.{layer}.mlp.fc1.weight")))
    block = attended + linear(expanded, p("h.{layer}.mlp.fc2.weight"))
    return Architecture(
        "microgpt",
        stem,
        block,
        lm_head(x, p("lm_head.weight")),
        _MICROGPT_PARAMETERS,
        "microgpt: RMSNorm without gains, ReLU, no biases, head of its own (Karpathy 2026).",
    )


gpt2 = _gpt2()
gpt3 = gpt2.renamed("gpt3", "GPT-3: the graph of GPT-2, every layer dense (Brown et al. 2020).")
microgpt = _microgpt()

ARCHITECTURES = (gpt2, gpt3, microgpt)
