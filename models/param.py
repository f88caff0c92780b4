"""llm_param: weights, gradients and optimizer state, of which memory holds a version."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Computed, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .config import ModelConfig
from .types import Tensor, TensorValue


class Param(Base):
    """One tensor of a model, or one part of it.

    A tensor of more than 8 Mi elements stands in parts of whole rows, because PostgreSQL limits a whole tuple
    to 1 GB and a row carries data, grad, m and v. llm_init_model makes parts of 2 Mi elements. Names are
    Hugging Face's.
    """

    __tablename__ = "llm_param"
    __table_args__ = (
        CheckConstraint("token_id >= 0", name="token_id"),
        CheckConstraint("step >= 0", name="step"),
        Index(None, "model", "layer"),
        {
            "comment": "parameters, gradients and optimizer state",
            # A write-back replaces every row of a model. fillfactor leaves room for HOT updates, which spare
            # the indexes. Vacuum starts after each, however many other models there are (1000 chunks are 2
            # MB), and runs unthrottled, so that the next one finds the dead TOAST free: it passes over
            # pages without changes, and over the index where they are few. Not truncating keeps the file at
            # its steady size and takes no exclusive lock from readers.
            "postgresql_with": {
                "fillfactor": 50,
                "autovacuum_vacuum_threshold": 50,
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_cost_delay": 0,
                "vacuum_truncate": "false",
                "toast.autovacuum_vacuum_threshold": 1000,
                "toast.autovacuum_vacuum_scale_factor": 0,
                "toast.autovacuum_vacuum_cost_delay": 0,
                "toast.vacuum_truncate": "false",
            },
            # Float mantissas do not compress.
            "info": {"storage": {"data": "EXTERNAL", "grad": "EXTERNAL", "m": "EXTERNAL", "v": "EXTERNAL"}},
        },
    )

    model: Mapped[str] = mapped_column(ForeignKey(ModelConfig.model), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[int] = mapped_column(
        primary_key=True, server_default=text("0"), autoincrement=False, comment="first row of this part"
    )
    data: Mapped[TensorValue] = mapped_column(Tensor)
    grad: Mapped[TensorValue | None] = mapped_column(
        Tensor, comment="gradient of the last step that was written back with keep_grad"
    )
    m: Mapped[TensorValue | None] = mapped_column(Tensor, comment="AdamW: mean of the gradients")
    v: Mapped[TensorValue | None] = mapped_column(Tensor, comment="AdamW: mean of their squares")
    step: Mapped[int] = mapped_column(
        BigInteger, server_default=text("0"), comment="optimizer steps this tensor has taken"
    )
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    layer: Mapped[int | None] = mapped_column(
        Computed(r"""("substring"(name, '^h\.([0-9]{1,9})\.'::text))::integer""", persisted=True),
        comment="N of h.N.*; NULL outside the blocks",
    )
