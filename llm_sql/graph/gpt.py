"""The built-in architectures: gpt2 (Radford et al. 2019), gpt3 (Brown et al. 2020), microgpt (Karpathy)."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from llm_sql.models import Setting
from llm_sql.models.settings import GPT3

from .architecture import Architecture, ParameterSpec
from .elements import INTEGER
from .layers import affine, affine_parameters, norm_parameters, normed
from .ops import (
    activation,
    causal_attention,
    causal_attention_qkv,
    dropout,
    embedding,
    linear,
    lm_head,
    p,
    positions,
    relu,
    rms_norm,
)
from .variables import d_ff, d_model, layer, layer_norm_eps, n_positions, setting, tied, tokens, vocab, x

# Under Hugging Face's names; linear weights are [in, out]. Radford et al. 2019, section 2.3: residual
# projections begin scaled by 1/sqrt(2 n_layer).
_GPT_PARAMETERS = (
    ParameterSpec("wte.weight", (vocab, d_model)),
    ParameterSpec("wpe.weight", (n_positions, d_model)),
    *norm_parameters("h.{layer}.ln_1"),
    *affine_parameters("h.{layer}.attn.c_attn", d_model, 3 * d_model),
    *affine_parameters("h.{layer}.attn.c_proj", d_model, d_model, "residual"),
    *norm_parameters("h.{layer}.ln_2"),
    *affine_parameters("h.{layer}.mlp.c_fc", d_model, d_ff),
    *affine_parameters("h.{layer}.mlp.c_proj", d_ff, d_model, "residual"),
    *norm_parameters("ln_f"),
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


def _gpt(
    name: str,
    description: str,
    settings: Sequence[Setting] = (),
    window: ColumnElement[int] | None = None,
) -> Architecture:
    """Pre-LayerNorm blocks over token and position embeddings."""
    stem = dropout(
        embedding(p("wte.weight"), tokens) + embedding(p("wpe.weight"), positions(tokens)), site="embd"
    )
    attention = causal_attention_qkv(
        affine(normed(x, "h.{layer}.ln_1"), "h.{layer}.attn.c_attn"), site="h.{layer}.attn", window=window
    )
    attended = x + dropout(affine(attention, "h.{layer}.attn.c_proj"), site="h.{layer}.resid_attn")
    mlp = affine(
        activation(affine(normed(attended, "h.{layer}.ln_2"), "h.{layer}.mlp.c_fc")), "h.{layer}.mlp.c_proj"
    )
    block = attended + dropout(mlp, site="h.{layer}.resid_mlp")
    output_embedding = p(sa.case((tied, "wte.weight"), else_="lm_head.weight"))
    return Architecture(
        name,
        stem,
        block,
        lm_head(normed(x, "ln_f"), output_embedding),
        _GPT_PARAMETERS,
        description,
        settings=settings,
    )


def _microgpt() -> Architecture:
    """RMSNorm without gains, no biases, ReLU, separate projections; it has no dropout."""
    stem = rms_norm(
        embedding(p("wte.weight"), tokens) + embedding(p("wpe.weight"), positions(tokens)), layer_norm_eps
    )
    inner = rms_norm(x, layer_norm_eps)
    q, k, v = (linear(inner, p(f"h.{{layer}}.attn.{part}_proj.weight")) for part in "qkv")
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


gpt2 = _gpt(
    "gpt2", "GPT-2: pre-LayerNorm blocks, learned positions, tanh GELU, tied head (Radford et al. 2019)."
)
gpt3 = _gpt(
    "gpt3",
    "GPT-3: GPT-2's graph; with the setting band, odd layers see a band of tokens (Brown et al. 2020).",
    GPT3,
    sa.case((layer % 2 == 1, setting("band", INTEGER, value=None))),
)
microgpt = _microgpt()
