"""llm_train_run, llm_train_log, llm_clip and llm_eval_log: what was trained and measured, step by step, with
enough to repeat it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class TrainRun(Base):
    """One call of llm_train, llm_train_loop or llm_train_step."""

    __tablename__ = "llm_train_run"
    __table_args__ = (
        CheckConstraint("status IN ('running', 'done', 'failed', 'interrupted', 'stopped')", name="status"),
        Index(None, "model"),
        {"comment": "training runs"},
    )

    run_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    model: Mapped[str]
    hyperparameters: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    data: Mapped[dict[str, Any] | None] = mapped_column(
        comment="the llm_dataset rows it trains on: ids, hash of their contents"
    )
    seed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    first_step: Mapped[int | None] = mapped_column(BigInteger)
    last_step: Mapped[int | None] = mapped_column(BigInteger, comment="the last step in llm_train_log")
    stored_step: Mapped[int | None] = mapped_column(
        BigInteger,
        comment="the step whose weights it stored last; llm_train_resume computes later ones again",
    )
    stored_hash: Mapped[int | None] = mapped_column(
        BigInteger, comment="pg_llm_arena_hash of what is stored; NULL: not known"
    )
    status: Mapped[str] = mapped_column(server_default=text("'running'"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    numerics_version: Mapped[int | None] = mapped_column(
        comment="version of the numerical rules that the run used"
    )
    precision: Mapped[str | None] = mapped_column(comment="of the numbers that it computed with")
    library: Mapped[str | None] = mapped_column(comment="the build that computed its last steps")


class TrainLog(Base):
    """One optimizer step. Loading a checkpoint or re-initialising supersedes the later steps of a model."""

    __tablename__ = "llm_train_log"
    __table_args__ = (
        Index(None, "run_id", "step"),
        Index(
            "uq_llm_train_log_model_step",
            "model",
            "step",
            unique=True,
            postgresql_where=text("NOT superseded"),
        ),
        {"comment": "one row per optimizer step"},
    )

    tape_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(TrainRun.run_id, ondelete="CASCADE"))
    step: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str]
    lr: Mapped[float | None]
    loss: Mapped[float | None] = mapped_column(comment="mean over the step's tokens or pairs, nats")
    grad_norm: Mapped[float | None] = mapped_column(comment="global L2 norm before clipping")
    tokens: Mapped[int | None] = mapped_column(
        BigInteger, comment="number of tokens, of an encoder pairs, that the loss averages"
    )
    batch_hash: Mapped[int | None] = mapped_column(
        BigInteger, comment="pg_llm_ids_hash of the step's batches, each from the hash of the one before"
    )
    seconds: Mapped[float | None]
    logged_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    superseded: Mapped[bool] = mapped_column(server_default=text("false"))


class Clip(Base):
    """A step whose gradient was clipped."""

    __tablename__ = "llm_clip"
    __table_args__ = (Index(None, "tape_id"), {"comment": "steps whose gradient was clipped"})

    clip_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    tape_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(TrainLog.tape_id, ondelete="CASCADE"))
    clip_threshold: Mapped[float]
    applied_norm: Mapped[float] = mapped_column(comment="global L2 norm before clipping")
    gradient_slice: Mapped[dict[str, Any] | None] = mapped_column(comment="norm per tensor before clipping")
    applied_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class EvalLog(Base):
    """A loss that llm_log_evaluation measured between training steps, such as held-out loss."""

    __tablename__ = "llm_eval_log"
    __table_args__ = (
        CheckConstraint("step >= 0", name="step"),
        Index(None, "model", "step"),
        Index(None, "tape_id"),
        {"comment": "losses measured between training steps"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    model: Mapped[str]
    step: Mapped[int] = mapped_column(BigInteger, comment="optimizer steps the weights had taken")
    tape_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey(TrainLog.tape_id, ondelete="CASCADE"),
        comment="the log row of that step, with which it is superseded; NULL when it is not logged",
    )
    split: Mapped[str] = mapped_column(comment="of llm_dataset: validation, train or your own")
    tokens: Mapped[int] = mapped_column(BigInteger, comment="number of tokens that the loss averages")
    loss: Mapped[float] = mapped_column(comment="mean negative log-likelihood, nats per token")
    evaluated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
