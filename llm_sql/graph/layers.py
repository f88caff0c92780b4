"""Parts that several architectures have: norms and affine maps with their parameters, heads, turns."""

from __future__ import annotations

import sqlalchemy as sa

from .architecture import Init, ParameterSpec
from .declared import TensorLike
from .elements import INTEGER, JSON, REAL, Node, TensorNode
from .ops import layer_norm, linear, p, rotary
from .variables import d_model, layer_norm_eps, n_head, setting

Width = sa.ColumnElement[int]


def normed(stream: TensorLike, name: str) -> TensorNode:
    return layer_norm(stream, p(f"{name}.weight"), p(f"{name}.bias"), layer_norm_eps)


def affine(stream: TensorLike, name: str) -> TensorNode:
    return linear(stream, p(f"{name}.weight"), p(f"{name}.bias"))


def norm_parameters(name: str) -> tuple[ParameterSpec, ParameterSpec]:
    return (
        ParameterSpec(f"{name}.weight", (d_model,), "ones"),
        ParameterSpec(f"{name}.bias", (d_model,), "zeros"),
    )


def affine_parameters(
    name: str, width_in: Width, width_out: Width, init: Init = "normal"
) -> tuple[ParameterSpec, ParameterSpec]:
    return (
        ParameterSpec(f"{name}.weight", (width_in, width_out), init),
        ParameterSpec(f"{name}.bias", (width_out,), "zeros"),
    )


n_kv_head: sa.ColumnElement[int] = sa.func.coalesce(setting("n_kv_head", INTEGER, value=None), n_head)
"""Heads of keys and values, which each serve several of queries; n_head unless the setting says otherwise."""
d_head: sa.ColumnElement[int] = sa.func.coalesce(setting("d_head", INTEGER, value=None), d_model // n_head)
"""The width of a head, where it need not be the share of d_model."""


def turned(stream: TensorLike, n: sa.ColumnElement[int], where: Node) -> TensorNode:
    """Queries or keys of n heads with their positions, as the settings of the rotary embedding say."""
    return rotary(
        stream,
        n,
        setting("rope_theta", REAL, value=10000.0),
        setting("rope_dims", INTEGER, value=0),
        where,
        setting("rope_scaling", JSON, value={}),
    )
