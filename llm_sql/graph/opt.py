"""opt: OPT (Zhang et al. 2022)."""

from __future__ import annotations

import sqlalchemy as sa

from llm_sql.models.settings import OPT

from .architecture import Architecture, ParameterSpec
from .declared import TensorLike
from .elements import BOOLEAN, INTEGER, TensorNode
from .layers import affine, affine_parameters, norm_parameters, normed
from .ops import (
    activation,
    causal_attention,
    choose,
    dropout,
    embedding,
    linear,
    lm_head,
    p,
    positions,
)
from .variables import d_ff, d_model, n_positions, setting, tied, tokens, vocab, x

_ATTN, _MLP = "h.{layer}.attn", "h.{layer}.mlp"
_NORM_FIRST = setting("norm_first", BOOLEAN, value=True)
_D_EMBED = setting("d_embed", INTEGER, value=None)
_IS_PROJECTED = _D_EMBED.is_not(None)
_EMBED_WIDTH: sa.ColumnElement[int] = sa.func.coalesce(_D_EMBED, d_model)

# The two rows that Hugging Face's table of positions begins with stand for no position; they are not here.
_PARAMETERS = (
    ParameterSpec("wte.weight", (vocab, _EMBED_WIDTH)),
    ParameterSpec("wpe.weight", (n_positions, d_model)),
    ParameterSpec("project_in.weight", (_EMBED_WIDTH, d_model), only_if=_IS_PROJECTED),
    *norm_parameters("h.{layer}.ln_1"),
    *(spec for part in "qkv" for spec in affine_parameters(f"{_ATTN}.{part}_proj", d_model, d_model)),
    *affine_parameters(f"{_ATTN}.o_proj", d_model, d_model, "residual"),
    *norm_parameters("h.{layer}.ln_2"),
    *affine_parameters(f"{_MLP}.fc1", d_model, d_ff),
    *affine_parameters(f"{_MLP}.fc2", d_ff, d_model, "residual"),
    ParameterSpec("ln_f.weight", (d_model,), "ones", only_if=_NORM_FIRST),
    ParameterSpec("ln_f.bias", (d_model,), "zeros", only_if=_NORM_FIRST),
    ParameterSpec("project_out.weight", (d_model, _EMBED_WIDTH), only_if=_IS_PROJECTED),
    ParameterSpec("lm_head.weight", (vocab, _EMBED_WIDTH), only_if=sa.not_(tied)),
)


def _before(stream: TensorLike, name: str) -> TensorNode:
    """The stream as attention, the MLP and the head read it."""
    return choose(_NORM_FIRST, normed(stream, name), stream)


def _after(stream: TensorLike, name: str) -> TensorNode:
    """A residual sum as it is handed on."""
    return choose(_NORM_FIRST, stream, normed(stream, name))


def _projected(stream: TensorLike, name: str) -> TensorNode:
    return choose(_IS_PROJECTED, linear(stream, p(f"{name}.weight")), stream)


def _opt() -> Architecture:
    """GPT-2's blocks with projections each for queries, keys and values, and ReLU."""
    embedded = _projected(embedding(p("wte.weight"), tokens), "project_in")
    stem = dropout(embedded + embedding(p("wpe.weight"), positions(tokens)), site="embd")
    inner = _before(x, "h.{layer}.ln_1")
    q, k, v = (affine(inner, f"{_ATTN}.{part}_proj") for part in "qkv")
    mixed = affine(causal_attention(q, k, v, site=_ATTN), f"{_ATTN}.o_proj")
    attended = _after(x + dropout(mixed, site="h.{layer}.resid_attn"), "h.{layer}.ln_1")
    expanded = activation(affine(_before(attended, "h.{layer}.ln_2"), f"{_MLP}.fc1"))
    mlp = dropout(affine(expanded, f"{_MLP}.fc2"), site="h.{layer}.resid_mlp")
    state = _projected(_before(x, "ln_f"), "project_out")
    return Architecture(
        "opt",
        stem,
        _after(attended + mlp, "h.{layer}.ln_2"),
        lm_head(state, p(sa.case((tied, "wte.weight"), else_="lm_head.weight"))),
        _PARAMETERS,
        "OPT: GPT-2's blocks with ReLU; with norms after the sums its 350m (Zhang et al. 2022).",
        settings=OPT,
    )


opt = _opt()
