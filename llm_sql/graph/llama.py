"""llama: Llama (Touvron et al. 2023), SmolLM2, Mistral, Qwen2, Qwen3, which differ by settings."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from llm_sql.models.settings import LLAMA

from .architecture import Architecture, Init, ParameterSpec
from .declared import TensorLike
from .elements import BOOLEAN, INTEGER, TensorNode
from .layers import d_head, n_kv_head, turned
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
    rms_norm,
    swiglu,
)
from .variables import (
    activation_function,
    d_ff,
    d_model,
    layer_norm_eps,
    n_head,
    setting,
    tied,
    tokens,
    vocab,
    x,
)

_QK_NORM = setting("qk_norm", BOOLEAN, value=False)
_QKV_BIAS = setting("qkv_bias", BOOLEAN, value=False)
_O_BIAS = setting("o_bias", BOOLEAN, value=False)
_MLP_BIAS = setting("mlp_bias", BOOLEAN, value=False)
_GATES_BY_SILU = sa.or_(activation_function == "silu", activation_function == "swish")

_ATTN, _MLP = "h.{layer}.attn", "h.{layer}.mlp"
_WIDTH = n_head * d_head
_KV_WIDTH = n_kv_head * d_head


def _projection(
    name: str, width_in: Any, width_out: Any, bias: ColumnElement[bool], init: Init = "normal"
) -> tuple[ParameterSpec, ParameterSpec]:
    return (
        ParameterSpec(f"{name}.weight", (width_in, width_out), init),
        ParameterSpec(f"{name}.bias", (width_out,), "zeros", only_if=bias),
    )


def _gain(name: str, width: Any, only_if: ColumnElement[bool] | None = None) -> ParameterSpec:
    return ParameterSpec(f"{name}.weight", (width,), "ones", only_if=only_if)


# Residual projections begin scaled by 1/sqrt(2 n_layer), as GPT-2's.
_PARAMETERS = (
    ParameterSpec("wte.weight", (vocab, d_model)),
    _gain("h.{layer}.ln_1", d_model),
    *_projection(f"{_ATTN}.q_proj", d_model, _WIDTH, _QKV_BIAS),
    *_projection(f"{_ATTN}.k_proj", d_model, _KV_WIDTH, _QKV_BIAS),
    *_projection(f"{_ATTN}.v_proj", d_model, _KV_WIDTH, _QKV_BIAS),
    _gain(f"{_ATTN}.q_norm", d_head, _QK_NORM),
    _gain(f"{_ATTN}.k_norm", d_head, _QK_NORM),
    *_projection(f"{_ATTN}.o_proj", _WIDTH, d_model, _O_BIAS, "residual"),
    _gain("h.{layer}.ln_2", d_model),
    *_projection(f"{_MLP}.gate_proj", d_model, d_ff, _MLP_BIAS),
    *_projection(f"{_MLP}.up_proj", d_model, d_ff, _MLP_BIAS),
    *_projection(f"{_MLP}.down_proj", d_ff, d_model, _MLP_BIAS, "residual"),
    _gain("ln_f", d_model),
    ParameterSpec("lm_head.weight", (vocab, d_model), only_if=sa.not_(tied)),
)


def _projected(stream: TensorLike, name: str, bias: ColumnElement[bool]) -> TensorNode:
    weight = f"{name}.weight"
    return choose(bias, linear(stream, p(weight), p(f"{name}.bias")), linear(stream, p(weight)))


def _normed(stream: TensorLike, name: str) -> TensorNode:
    return rms_norm(stream, layer_norm_eps, p(f"{name}.weight"))


def _llama() -> Architecture:
    """Pre-RMSNorm blocks; rotary positions; heads of queries share those of keys and values; a gated MLP."""
    normed = _normed(x, "h.{layer}.ln_1")
    where = positions(tokens)

    def rotated(part: str, n: ColumnElement[int]) -> TensorNode:
        projected = _projected(normed, f"{_ATTN}.{part}_proj", _QKV_BIAS)
        # Of each head by itself: its gain has the width of a head.
        return turned(choose(_QK_NORM, _normed(projected, f"{_ATTN}.{part}_norm"), projected), n, where)

    attention = causal_attention(
        rotated("q", n_head),
        rotated("k", n_kv_head),
        _projected(normed, f"{_ATTN}.v_proj", _QKV_BIAS),
        site=_ATTN,
        n_kv_head=n_kv_head,
        window=setting("window", INTEGER, value=None),
    )
    mixed = _projected(attention, f"{_ATTN}.o_proj", _O_BIAS)
    attended = x + dropout(mixed, site="h.{layer}.resid_attn")
    inner = _normed(attended, "h.{layer}.ln_2")
    gate, up = (_projected(inner, f"{_MLP}.{part}_proj", _MLP_BIAS) for part in ("gate", "up"))
    gated = choose(_GATES_BY_SILU, swiglu(gate, up), activation(gate) * up)
    mlp = _projected(gated, f"{_MLP}.down_proj", _MLP_BIAS)
    return Architecture(
        "llama",
        dropout(embedding(p("wte.weight"), tokens), site="embd"),
        attended + dropout(mlp, site="h.{layer}.resid_mlp"),
        lm_head(_normed(x, "ln_f"), p(sa.case((tied, "wte.weight"), else_="lm_head.weight"))),
        _PARAMETERS,
        "Llama and its kin: rotary positions, RMSNorm, grouped heads, gated MLP (Touvron et al. 2023).",
        settings=LLAMA,
    )


llama = _llama()
