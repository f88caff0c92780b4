"""Every op of the graph: that it calls the SQL function it names with its arguments where they belong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy.orm import Session

from llm_sql import graph as g

from ..support.op_cases import CASES as OP_CASES
from ..support.op_cases import Case

CASES = [case for case in OP_CASES if case.node is not None]
X = np.random.default_rng(5).standard_normal((2, 4, 6))
IDS = [[3, 0, 6], [3, 3, 1]]

# What is no op of the extension's table: the node, and what NumPy computes.
OTHERS: dict[str, tuple[Callable[[], g.Node], Any]] = {
    "track": (lambda: g.track(X), X),
    "zeros_like": (lambda: g.zeros_like(X), X * 0),
    "ones_like": (lambda: g.ones_like(X), X * 0 + 1),
    "positions": (lambda: g.positions(IDS), [[0, 1, 2], [0, 1, 2]]),
    "choose": (lambda: g.choose(False, g.p("there is none", "no model"), g.track(X)), X),
    "shape": (lambda: g.shape(X), [2, 4, 6]),
    "item": (lambda: g.item(g.slice_axis(X[0, 0], 0, 2, 3)), X[0, 0, 2]),
    "norm": (lambda: g.norm(X), np.linalg.norm(X)),
}


def node_of(case: Case) -> g.Node:
    assert case.node is not None
    return case.node(*case.inputs(), *case.constants)


def check(session: Session, node: g.Node, expected: Any) -> None:
    actual = np.asarray(session.execute(g.select(node)).scalar_one())
    assert actual.shape == np.shape(expected)
    assert np.allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_computes_what_numpy_does(session: Session, case: Case) -> None:
    check(session, node_of(case), case.expected())


@pytest.mark.parametrize("name", OTHERS)
def test_another_node_does_too(session: Session, name: str) -> None:
    build, expected = OTHERS[name]
    assert build().call.name == name
    check(session, build(), expected)


def test_every_op_stands_here(conn: psycopg.Connection[Any]) -> None:
    named = {node_of(case).call.name for case in CASES}
    assert g.OPS.keys() - {"tensor_id"} == named | OTHERS.keys()
    table = {name for (name,) in conn.execute("SELECT name FROM pg_llm_ops()")}
    assert table <= {case.op for case in CASES}


def test_dropout_in_training_scales_what_it_keeps(session: Session) -> None:
    kept = session.execute(g.select(g.dropout(np.ones((40, 40)), 0.25, training=True, site="s"))).scalar_one()
    assert set(np.unique(kept)) == {np.float32(0), np.float32(4 / 3)}
    assert 0.2 < (kept == 0).mean() < 0.3


def test_every_differentiable_function_of_the_extension_has_an_op(conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute(
        "SELECT DISTINCT regexp_replace(proname, '_backward$', '') FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'pg\\_llm\\_%\\_backward'"
    ).fetchall()
    assert {row[0] for row in rows} <= {op.sql for op in g.OPS.values()}
