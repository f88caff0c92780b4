"""llm_dataset: token sequences to train and to evaluate on; llm_dataset_load: loads from files."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class Dataset(Base):
    """One sequence and, position by position, what follows it. A target below 0 does not count."""

    __tablename__ = "llm_dataset"
    __table_args__ = (
        CheckConstraint("cardinality(tokens) = cardinality(target)", name="length"),
        CheckConstraint("array_ndims(tokens) = 1 AND array_ndims(target) = 1", name="ndims"),
        CheckConstraint(
            "array_position(tokens, NULL) IS NULL AND array_position(target, NULL) IS NULL", name="no_null"
        ),
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


class DatasetLoad(Base):
    """The last load of a model's data by a client; one that was cut off goes on from its state."""

    __tablename__ = "llm_dataset_load"
    __table_args__ = ({"comment": "data loads by clients, and where to resume them"},)

    model: Mapped[str] = mapped_column(primary_key=True)
    settings: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="sources and options; a load with the same ones is resumed"
    )
    state: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="position in the sources, tokens not yet in a row"
    )
    done: Mapped[bool] = mapped_column(server_default=text("false"))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
