"""neox: GPT-NeoX (Black et al. 2022) and Pythia."""

from __future__ import annotations

import sqlalchemy as sa

from llm_sql.models.settings import NEOX

from .architecture import Architecture, ParameterSpec
from .elements import BOOLEAN
from .layers import affine, affine_parameters, norm_parameters, normed, turned
from .ops import activation, causal_attention, choose, dropout, embedding, lm_head, p, positions
from .variables import d_ff, d_model, n_head, setting, tied, tokens, vocab, x

_ATTN, _MLP = "h.{layer}.attn", "h.{layer}.mlp"

_PARAMETERS = (
    ParameterSpec("wte.weight", (vocab, d_model)),
    *norm_parameters("h.{layer}.ln_1"),
    *(spec for part in "qkv" for spec in affine_parameters(f"{_ATTN}.{part}_proj", d_model, d_model)),
    *affine_parameters(f"{_ATTN}.o_proj", d_model, d_model, "residual"),
    *norm_parameters("h.{layer}.ln_2"),
    *affine_parameters(f"{_MLP}.fc1", d_model, d_ff),
    *affine_parameters(f"{_MLP}.fc2", d_ff, d_model, "residual"),
    *norm_parameters("ln_f"),
    ParameterSpec("lm_head.weight", (vocab, d_model), only_if=sa.not_(tied)),
)


def _neox() -> Architecture:
    """Attention and MLP beside each other, each with a norm of its own; a part of each head is turned."""
    inner = normed(x, "h.{layer}.ln_1")
    where = positions(tokens)
    q, k, v = (affine(inner, f"{_ATTN}.{part}_proj") for part in "qkv")
    attention = causal_attention(turned(q, n_head, where), turned(k, n_head, where), v, site=_ATTN)
    attended = x + dropout(affine(attention, f"{_ATTN}.o_proj"), site="h.{layer}.resid_attn")
    read = choose(setting("parallel", BOOLEAN, value=True), x, attended)
    mlp = affine(activation(affine(normed(read, "h.{layer}.ln_2"), f"{_MLP}.fc1")), f"{_MLP}.fc2")
    return Architecture(
        "neox",
        dropout(embedding(p("wte.weight"), tokens), site="embd"),
        attended + dropout(mlp, site="h.{layer}.resid_mlp"),
        lm_head(normed(x, "ln_f"), p(sa.case((tied, "wte.weight"), else_="lm_head.weight"))),
        _PARAMETERS,
        "GPT-NeoX, Pythia: attention beside the MLP, rotary positions, LayerNorm (Black et al. 2022).",
        settings=NEOX,
    )


neox = _neox()
