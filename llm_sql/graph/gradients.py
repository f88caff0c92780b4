"""Gradients of ad hoc trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, bindparam, func
from sqlalchemy import select as sql_select
from sqlalchemy.orm import Session

from llm_sql.models.types import Tensor, TensorValue

from .adhoc import select
from .elements import Node, TensorNode
from .ops import tensor_id


@dataclass(frozen=True)
class Gradients:
    """What `gradients` found."""

    value: float
    """The tree's value."""
    of: dict[str, TensorValue | None]
    """The gradients by the caller's names; None where none flows."""


def gradients(
    session: Session,
    loss: TensorNode,
    of: Mapping[str, TensorNode],
    values: Mapping[Any, Any] | None = None,
    **variables: Any,
) -> Gradients:
    """The value of a tree of one element, and its gradients with respect to nodes `of` it.

    A parameter may be any `p(...)` of its name, whether or not the tree holds that very node. A node gets a
    gradient when it is a parameter `p(...)`, a leaf made by `track(...)`, or computed from one.
    The pass runs recorded in the session's transaction, replaces what its tape held, and leaves rows in
    llm_tape as pg_llm.record and pg_llm.tape_keep say. Whether the session records is afterwards what it was
    before.
    """
    names = list(of)
    outputs: dict[str, Node] = {"value": loss, "start": tensor_id(loss)}
    outputs |= {f"id_{i}": tensor_id(of[name]) for i, name in enumerate(names)}
    recorded = session.execute(sql_select(func.public.pg_llm_recording())).scalar_one()
    session.execute(sql_select(func.public.pg_llm_tape_clear()))
    session.execute(sql_select(func.public.pg_llm_set_recording(True)))
    row = session.execute(select(outputs, values, **variables)).one()
    base = _tape_base(session)
    session.execute(sql_select(func.public.pg_llm_set_recording(recorded)))
    session.execute(sql_select(func.public.llm_backprop(bindparam("start", row.start, BigInteger()))))
    # Leaving rows in llm_tape numbers the pass anew.
    shift = _tape_base(session) - base
    ids = {name: row[2 + i] for i, name in enumerate(names)}
    found = {name: None if id_ is None else _gradient(session, id_ + shift) for name, id_ in ids.items()}
    return Gradients(float(row.value), found)


def _tape_base(session: Session) -> int:
    return session.execute(sql_select(func.public.pg_llm_tape_base(type_=BigInteger()))).scalar_one()


def _gradient(session: Session, id_: int) -> TensorValue | None:
    by_id = func.public.pg_llm_grad_by_id(bindparam("id", id_, BigInteger()), type_=Tensor())
    return session.execute(sql_select(by_id)).scalar_one()
