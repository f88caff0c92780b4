"""llm_adapter: models that add to the weights of another one, their base."""

from __future__ import annotations

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .config import ModelConfig


class Adapter(Base):
    """A LoRA adapter: what its rows of llm_param add to which model, and what that model must be.

    Its configuration is a copy of its base's, so that it computes what it computed when it was made.
    """

    __tablename__ = "llm_adapter"
    __table_args__ = (
        CheckConstraint("model <> base", name="base"),
        CheckConstraint("base_sha256 ~ '^[0-9a-f]{64}$'", name="base_sha256"),
        CheckConstraint("rank > 0", name="rank"),
        CheckConstraint("cardinality(targets) > 0", name="targets"),
        {"comment": "LoRA adapters and the models that they add to"},
    )

    model: Mapped[str] = mapped_column(ForeignKey(ModelConfig.model), primary_key=True)
    base: Mapped[str] = mapped_column(ForeignKey(ModelConfig.model), index=True)
    base_sha256: Mapped[str] = mapped_column(comment="hash of the base's parameters, hexadecimal")
    base_version: Mapped[bytes | None] = mapped_column(
        comment="pg_llm_shared_version of the base with that hash: rows that have it need not be hashed"
    )
    rank: Mapped[int]
    alpha: Mapped[float] = mapped_column(comment="what is added counts alpha / rank times")
    targets: Mapped[list[str]] = mapped_column(
        ARRAY(Text), comment="the matrices of blocks that it adds to: attn.c_attn of h.N.attn.c_attn.weight"
    )
