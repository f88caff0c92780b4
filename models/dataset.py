"""llm_dataset: token sequences to train and to evaluate on."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class Dataset(Base):
    """One sequence and, position by position, what follows it. A target below 0 does not count."""

    __tablename__ = "llm_dataset"
    __table_args__ = (
        CheckConstraint("cardinality(tokens) = cardinality(target)", name="length"),
        CheckConstraint("array_ndims(tokens) = 1 AND array_ndims(target) = 1", name="ndims"),
        Index(None, "model", "split", "id"),
        {"comment": "token sequences to train and to evaluate on"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    model: Mapped[str | None] = mapped_column(comment="NULL: for any model")
    split: Mapped[str] = mapped_column(
        server_default=text("'train'"), comment="train, validation or your own"
    )
    tokens: Mapped[list[int]]
    target: Mapped[list[int]] = mapped_column(comment="the next token at every position; below 0: ignored")
