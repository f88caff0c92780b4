"""Parts that several architectures have: norms and affine maps with their parameters."""

from __future__ import annotations

import sqlalchemy as sa

from .architecture import Init, ParameterSpec
from .elements import TensorNode
from .ops import TensorLike, layer_norm, linear, p
from .variables import d_model, layer_norm_eps

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
