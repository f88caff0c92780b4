"""llm_checkpoint: the files that hold a model's parameters, optimizer state, configuration and tokenizer."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class Checkpoint(Base):
    """One checkpoint file and the hash that loading it must find."""

    __tablename__ = "llm_checkpoint"
    __table_args__ = (
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        Index(None, "model", "step"),
        {"comment": "checkpoint files"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    model: Mapped[str]
    saved_as: Mapped[str | None] = mapped_column(
        comment="the model's name in the file, if the model was renamed since"
    )
    step: Mapped[int] = mapped_column(BigInteger)
    note: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    n_params: Mapped[int | None] = mapped_column(BigInteger, comment="number of weights")
    format: Mapped[str] = mapped_column(comment="name and version of the file format")
    file_path: Mapped[str]
    bytes: Mapped[int | None] = mapped_column(BigInteger, comment="size of the file")
    sha256: Mapped[str | None] = mapped_column(comment="hash of the file, hexadecimal")
