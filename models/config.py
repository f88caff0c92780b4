"""llm_arch and llm_model_config: which architectures there are, and the shape of every model."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, func, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base

# Transformers' names of activations, and the one of them that we call each function by (pg_llm_activation).
ACTIVATIONS = {
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class Arch(Base):
    """An architecture: the SQL functions that compute it and that list its parameters.

    A user registers one by a row here. Both functions are called with the rights of whoever trains or
    generates.
    """

    __tablename__ = "llm_arch"
    __table_args__ = (
        CheckConstraint("kind IN ('decoder', 'encoder')", name="kind"),
        CheckConstraint("jsonb_typeof(settings) = 'object'", name="settings"),
        {"comment": "architectures and the SQL functions that compute them"},
    )

    arch: Mapped[str] = mapped_column(primary_key=True)
    forward: Mapped[str] = mapped_column(
        comment="forward(model, tokens, training, targets, dropout_p, last_only): logits or loss"
    )
    parameters: Mapped[str] = mapped_column(
        comment="parameters(model) returns name, shape and initialisation of every tensor"
    )
    description: Mapped[str | None]
    kind: Mapped[str] = mapped_column(
        server_default=text("'decoder'"),
        comment="decoder: logits of next tokens; encoder: one vector for a sequence",
    )
    settings: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'"),
        comment="what may stand in llm_model_config.settings: name, then type, default, values, bounds",
    )


class ModelConfig(Base):
    """The shape of a model. The first seven columns are enough to declare a GPT-2."""

    __tablename__ = "llm_model_config"
    __table_args__ = (
        CheckConstraint("model <> ''", name="model"),
        CheckConstraint("n_layer > 0", name="n_layer"),
        CheckConstraint("n_head > 0", name="n_head"),
        CheckConstraint("d_model > 0", name="d_model"),
        CheckConstraint("n_positions > 0", name="n_positions"),
        CheckConstraint("vocab > 0", name="vocab"),
        CheckConstraint("d_ff > 0", name="d_ff"),
        CheckConstraint("layer_norm_eps > 0", name="layer_norm_eps"),
        CheckConstraint(
            f"activation_function IN ({', '.join(map(repr, ACTIVATIONS))})",
            name="activation_function",
        ),
        # NULLIF: CHECKs run in the order of their names, and this one must not divide by the zero n_head
        # refuses.
        CheckConstraint(
            "d_model % NULLIF(n_head, 0) = 0 OR settings ->> 'd_head' IS NOT NULL", name="d_head"
        ),
        # Only that it is an object: what may stand in it is a row of llm_arch, which a CHECK cannot read.
        CheckConstraint("jsonb_typeof(settings) = 'object'", name="settings"),
        {"comment": "the configuration of every model"},
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    arch: Mapped[str] = mapped_column(ForeignKey(Arch.arch), server_default=text("'gpt2'"))
    n_layer: Mapped[int]
    n_head: Mapped[int]
    d_model: Mapped[int]
    n_positions: Mapped[int] = mapped_column(comment="longest context in tokens")
    vocab: Mapped[int] = mapped_column(comment="number of token ids")
    d_ff: Mapped[int | None] = mapped_column(comment="width of the MLP; NULL: 4 * d_model")
    layer_norm_eps: Mapped[float] = mapped_column(server_default=text("1e-5"))
    activation_function: Mapped[str] = mapped_column(
        server_default=text("'gelu_new'"),
        comment="of the MLP, by Hugging Face's names: gelu_new (tanh form), gelu (exact), silu, ...",
    )
    tied: Mapped[bool] = mapped_column(
        server_default=text("true"), comment="whether the output head is the token embedding"
    )
    init_seed: Mapped[int | None] = mapped_column(
        BigInteger, comment="seed of the llm_init_model that the weights began with; NULL: imported or copied"
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    settings: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'"),
        comment="what the architecture needs besides, as llm_arch.settings declares; {}: its defaults",
    )
