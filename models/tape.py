"""llm_tape, llm_tensor_rt, llm_tensor and llm_tensor_map: recorded passes and kept tensors."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .types import Tensor, TensorValue


class TapeEntry(Base):
    """One op of a recorded pass: an edge of the graph from `inputs` to `output`, ids in llm_tensor_rt."""

    __tablename__ = "llm_tape"
    __table_args__ = (
        Index(None, "model", "step"),
        Index(None, "run"),
        {"comment": "one row per op of a recorded pass"},
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    run: Mapped[int | None] = mapped_column(BigInteger, comment="llm_train_run.run_id; NULL outside a run")
    model: Mapped[str | None]
    step: Mapped[int | None] = mapped_column(BigInteger)
    position: Mapped[int] = mapped_column(comment="order in the pass")
    name: Mapped[str] = mapped_column(comment="the op")
    inputs: Mapped[list[int]] = mapped_column(
        ARRAY(BigInteger()), comment="llm_tensor_rt.id; llm_tensor_map names the parameters among them"
    )
    output: Mapped[int] = mapped_column(BigInteger, comment="llm_tensor_rt.id")
    extra: Mapped[dict[str, Any] | None] = mapped_column(comment="the op's constants")
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RuntimeTensor(Base):
    """A tensor of a recorded pass. Values only when payload recording is on (pg_llm.record = full)."""

    __tablename__ = "llm_tensor_rt"
    __table_args__ = (
        Index(None, "run"),
        {
            "comment": "tensors of recorded passes",
            "info": {"storage": {"data": "EXTERNAL", "grad": "EXTERNAL"}},
        },
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    run: Mapped[int | None] = mapped_column(BigInteger)
    shape: Mapped[list[int]]
    requires_grad: Mapped[bool] = mapped_column(server_default=text("false"))
    norm: Mapped[float | None] = mapped_column(comment="L2 norm of the values")
    grad_norm: Mapped[float | None] = mapped_column(comment="L2 norm of the gradient")
    data: Mapped[TensorValue | None] = mapped_column(Tensor)
    grad: Mapped[TensorValue | None] = mapped_column(Tensor)
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class NamedTensor(Base):
    """A tensor that a session materialised or a user keeps under a name."""

    __tablename__ = "llm_tensor"
    __table_args__ = (
        CheckConstraint("shape = public.shape(data)", name="shape"),
        {"comment": "tensors kept by name", "info": {"storage": {"data": "EXTERNAL"}}},
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[TensorValue] = mapped_column(Tensor)
    shape: Mapped[list[int] | None]
    requires_grad: Mapped[bool] = mapped_column(server_default=text("false"))


class TensorMap(Base):
    """Which runtime tensor stood for a parameter in the last recorded pass."""

    __tablename__ = "llm_tensor_map"
    __table_args__ = ({"comment": "the parameters that a model's last recorded pass read, by tensor id"},)

    model: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True, comment="llm_param.name")
    token_id: Mapped[int] = mapped_column(
        primary_key=True,
        server_default=text("0"),
        autoincrement=False,
        comment="llm_param.token_id; the parts of a tensor have one tensor_id",
    )
    tensor_id: Mapped[int] = mapped_column(
        BigInteger, comment="llm_tensor_rt.id; in llm_tape.inputs of every op that read the parameter"
    )
