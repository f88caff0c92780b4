"""Installed and ad hoc forward passes against float64 NumPy, their gradients against central differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from llm_sql import graph as g
from llm_sql.models import ModelConfig, Param

from ..reference import gpt2_numpy as reference
from ..reference import ops

SIZES = {"n_layer": 2, "n_head": 3, "d_model": 12, "n_positions": 9, "vocab": 17}
TOKENS = [3, 1, 4, 1, 5, 9, 2]
TARGETS = [1, 4, 1, -1, 9, 2, 6]
BATCH = [TOKENS[:5], [16, 0, 7, 7, 8]]

Parameters = dict[str, Any]


def store(
    session: Session, model: str, arch: str, parameters: Mapping[str, Any], **config: Any
) -> Parameters:
    """Rows put into the tables by hand make a model."""
    session.add(ModelConfig(model=model, arch=arch, **SIZES, **config))
    session.flush()
    session.add_all(Param(model=model, name=name, data=data) for name, data in parameters.items())
    session.flush()
    return dict(parameters)


@pytest.fixture(params=["gpt2", "gpt2 untied", "gpt3", "microgpt"])
def stored(
    request: pytest.FixtureRequest, session: Session
) -> tuple[g.Architecture, Parameters, Callable[..., Any]]:
    """An architecture, the parameters of its model "m", and the reference that computes it."""
    arch = request.param.split()[0]
    tied = request.param in ("gpt2", "gpt3")
    shape = {name: SIZES[name] for name in ("n_layer", "d_model", "n_positions", "vocab")}
    if arch == "microgpt":
        shapes, logits = reference.microgpt_shapes(**shape), reference.microgpt_logits
    else:
        shapes, logits = reference.gpt2_shapes(**shape, tied=tied), reference.gpt2_logits
    parameters = store(session, "m", arch, reference.random_parameters(shapes), tied=tied)
    [architecture] = [a for a in g.ARCHITECTURES if a.name == arch]
    return architecture, parameters, logits


@pytest.mark.parametrize("arch", ["gpt2", "gpt3"])
@pytest.mark.parametrize("activation", ops.ACTIVATIONS.values(), ids=ops.ACTIVATIONS.keys())
def test_the_activation_that_the_configuration_names(
    session: Session, arch: str, activation: ops.Activation
) -> None:
    shape = {name: SIZES[name] for name in ("n_layer", "d_model", "n_positions", "vocab")}
    # Large enough for the tanh form and GELU itself to differ by more than the comparison allows.
    parameters = {
        k: 20 * v if "c_fc" in k else v
        for k, v in reference.random_parameters(reference.gpt2_shapes(**shape, tied=True)).items()
    }
    expected = reference.gpt2_logits(
        parameters, TOKENS, n_head=SIZES["n_head"], activation=activation.forward
    )
    [architecture] = [a for a in g.ARCHITECTURES if a.name == arch]
    for name in activation.names:
        store(session, name, arch, parameters, activation_function=name)
        logits = session.execute(sa.text("SELECT llm_forward(:m, :t)"), {"m": name, "t": TOKENS}).scalar_one()
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
        values = {**ad_hoc(architecture), "model": name, "activation_function": name}
        tree = architecture.logits(SIZES["n_layer"], {g.tokens: TOKENS}, **values)
        np.testing.assert_array_equal(session.execute(g.select(tree)).scalar_one(), logits)


def test_bands_of_gpt3(session: Session) -> None:
    """Odd layers see three tokens, as NumPy has it. A band of all changes no bit."""
    shape = {name: SIZES[name] for name in ("n_layer", "d_model", "n_positions", "vocab")}
    parameters = store(
        session,
        "m",
        "gpt3",
        reference.random_parameters(reference.gpt2_shapes(**shape)),
        settings={"band": 3},
    )
    expected = reference.gpt2_logits(parameters, TOKENS, n_head=SIZES["n_head"], bands=[0, 3])
    banded = installed(session, tokens=TOKENS)
    assert close(banded, expected)
    tree = g.gpt3.logits(SIZES["n_layer"], {g.tokens: TOKENS}, **ad_hoc(g.gpt3), band=3)
    np.testing.assert_array_equal(session.execute(g.select(tree)).scalar_one(), banded)
    for band in (3, 9, None):
        session.execute(
            sa.update(ModelConfig).where(ModelConfig.model == "m").values(settings={"band": band})
        )
        assert (not np.array_equal(installed(session, tokens=TOKENS), banded)) == (band != 3)
    np.testing.assert_array_equal(
        installed(session, tokens=TOKENS),
        session.execute(sa.text("SELECT llm_forward_gpt2('m', :t)"), {"t": TOKENS}).scalar_one(),
    )


def installed(session: Session, **arguments: Any) -> Any:
    named = ", ".join(f"{name} => :{name}" for name in arguments)
    return session.execute(sa.text(f"SELECT llm_forward('m', {named})"), arguments).scalar_one()


def ad_hoc(architecture: g.Architecture) -> dict[str, Any]:
    """What an ad hoc tree of this architecture has to be given."""
    tied = {} if architecture.name == "microgpt" else {"tied": True}
    return {"model": "m", "n_head": SIZES["n_head"], **tied}


def close(actual: Any, expected: Any) -> bool:
    """Within float32's rounding through a few layers."""
    return bool(np.linalg.norm(actual - expected) <= 2e-6 * np.linalg.norm(expected))


@pytest.mark.parametrize("tokens", [TOKENS, TOKENS[:1], BATCH], ids=["sequence", "token", "batch"])
def test_logits_are_the_references(session: Session, stored: Any, tokens: Any) -> None:
    _, parameters, logits = stored
    expected = logits(parameters, tokens, n_head=SIZES["n_head"])
    actual = installed(session, tokens=tokens)
    assert actual.shape == expected.shape
    assert close(actual, expected)
    assert np.array_equal(installed(session, tokens=tokens, last_only=True), actual[..., -1:, :])


def test_the_loss_is_the_references(session: Session, stored: Any) -> None:
    _, parameters, logits = stored
    expected = ops.mean_cross_entropy(logits(parameters, TOKENS, n_head=SIZES["n_head"]), TARGETS)
    actual = installed(session, tokens=TOKENS, targets=TARGETS)
    assert actual.shape == ()
    assert abs(float(actual) - expected) <= 1e-6 * expected


def test_the_same_graph_ad_hoc_gives_the_same_bits(session: Session, stored: Any) -> None:
    architecture, parameters, _ = stored
    given = ad_hoc(architecture)
    if "tied" in given:
        given["tied"] = "lm_head.weight" not in parameters
    logits = architecture.logits(SIZES["n_layer"], given, tokens=BATCH)
    assert np.array_equal(session.execute(g.select(logits)).scalar_one(), installed(session, tokens=BATCH))
    loss = architecture.loss(SIZES["n_layer"], given, tokens=TOKENS, targets=TARGETS)
    as_column = session.execute(sa.select(loss, sa.literal(1))).one()
    assert np.array_equal(as_column[0], installed(session, tokens=TOKENS, targets=TARGETS))


def test_dropout_has_the_same_sites_in_both(session: Session, stored: Any) -> None:
    architecture, parameters, _ = stored
    if architecture.name == "microgpt":
        pytest.skip("microgpt has no dropout")
    key = sa.text("SELECT pg_llm_pass_begin(7, 3, 0)")
    given = ad_hoc(architecture) | {"tied": "lm_head.weight" not in parameters, "tokens": BATCH}
    session.execute(key)
    dropped = session.execute(
        g.select(architecture.logits(SIZES["n_layer"], given, training=True, dropout_p=0.3))
    ).scalar_one()
    session.execute(key)
    assert np.array_equal(dropped, installed(session, tokens=BATCH, training=True, dropout_p=0.3))
    assert not np.array_equal(dropped, installed(session, tokens=BATCH))


def test_a_column_of_tokens_gives_logits_per_row(session: Session, stored: Any) -> None:
    architecture, parameters, _ = stored
    given = ad_hoc(architecture)
    if "tied" in given:
        given["tied"] = "lm_head.weight" not in parameters
    rows = sa.values(sa.column("i", sa.Integer), sa.column("ids", sa.ARRAY(sa.Integer)), name="rows").data(
        [(1, TOKENS), (2, TOKENS[2:]), (3, TOKENS)]
    )
    logits = architecture.logits(SIZES["n_layer"], given, tokens=rows.c.ids)
    found = session.execute(sa.select(rows.c.i, logits).order_by(rows.c.i)).all()
    assert [row[0] for row in found] == [1, 2, 3]
    for row, tokens in zip(found, (TOKENS, TOKENS[2:], TOKENS), strict=True):
        assert np.array_equal(row[1], installed(session, tokens=tokens))


def test_gradients_are_the_references_central_differences(session: Session) -> None:
    shape = {name: SIZES[name] for name in ("n_layer", "d_model", "n_positions", "vocab")}
    shapes = reference.gpt2_shapes(**shape)
    parameters = store(session, "m", "gpt2", reference.random_parameters(shapes))
    nodes = {name: g.p(name, "m") for name in ("wte.weight", "h.0.attn.c_attn.weight", "ln_f.bias")}
    loss = g.gpt2.loss(2, model="m", n_head=3, tied=True, tokens=TOKENS, targets=TARGETS)
    found = g.gradients(session, loss, nodes)
    assert found.value == pytest.approx(reference_loss(parameters), rel=1e-6)
    for name in nodes:
        expected = central_differences(parameters, name)
        actual = found.of[name]
        assert actual is not None
        assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected), name


def reference_loss(parameters: Mapping[str, Any]) -> float:
    return ops.mean_cross_entropy(reference.gpt2_logits(parameters, TOKENS, n_head=3), TARGETS)


def central_differences(parameters: Parameters, name: str, h: float = 1e-5) -> Any:
    precise = {key: np.asarray(value, dtype=np.float64).copy() for key, value in parameters.items()}
    gradient = np.zeros(precise[name].shape)
    for i in np.ndindex(gradient.shape):
        middle = precise[name][i]
        precise[name][i] = middle + h
        above = reference_loss(precise)
        precise[name][i] = middle - h
        gradient[i] = (above - reference_loss(precise)) / (2 * h)
        precise[name][i] = middle
    return gradient


# ---- what a caller meets ----


def test_null_gives_null(conn: psycopg.Connection[Any]) -> None:
    for call in ("llm_forward_gpt2(NULL, '{1}')", "llm_forward_gpt2('gpt2-small', NULL)"):
        assert conn.execute(f"SELECT {call}").fetchone() == (None,)


def test_an_unknown_model_is_42704(conn: psycopg.Connection[Any], session: Session) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match="nobody"):
        conn.execute("SELECT llm_forward_microgpt('nobody', '{1}')")
    with pytest.raises(sa.exc.DBAPIError, match="nobody") as caught:
        session.execute(g.select(g.p("wte.weight", "nobody")))
    assert isinstance(caught.value.orig, psycopg.errors.UndefinedObject)


def test_names_cannot_leave_their_literal(session: Session) -> None:
    session.execute(sa.text("SELECT llm_create_model('m', 'microgpt')"))
    hostile = "'); DROP TABLE llm_param; -- \\' %s %(x)s :y\n"
    with pytest.raises(sa.exc.DBAPIError) as caught:
        session.execute(g.select(g.p(hostile, "m")))
    assert isinstance(caught.value.orig, psycopg.errors.UndefinedObject)
    assert hostile in str(caught.value.orig)


def test_a_pass_leaves_nothing_pinned(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SELECT llm_create_model('m', 'microgpt')")
    with conn.transaction():
        conn.execute("SELECT llm_forward_microgpt('m', '{1,2,3}')")
        assert conn.execute("SELECT pg_llm_arena_pinned('m')").fetchone() == (False,)


def test_a_sequence_longer_than_the_context_is_22003(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SELECT llm_create_model('m', 'microgpt', n_positions => 4)")
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        conn.execute("SELECT llm_forward_microgpt('m', '{1,2,3,4,5}')")


def test_every_op_runs_once(session: Session) -> None:
    stream = g.track(np.ones((2, 2)))
    for _ in range(30):
        stream = stream + g.relu(stream)
    session.execute(sa.text("SELECT pg_llm_set_recording(true)"))
    session.execute(g.select({"a": stream, "b": g.sum_all(stream)})).one()
    tape = session.execute(sa.text("SELECT name, count(*) FROM pg_llm_tape() GROUP BY name"))
    counts = {row.name: row.count for row in tape}
    session.execute(sa.text("SELECT pg_llm_set_recording(false)"))
    assert counts == {"add": 30, "relu": 30, "sum": 1}


def test_a_node_without_gradient_is_none(session: Session) -> None:
    x = g.track([1.0, 2.0, 3.0])
    y, unused = x * x, g.track([1.0])
    found = g.gradients(session, g.sum_all(y) + 0.0 * g.sum_all(g.track([5.0])), {"x": x, "unused": unused})
    assert found.value == 14.0
    assert np.array_equal(found.of["x"], [2, 4, 6])
    assert found.of["unused"] is None
    assert session.execute(sa.text("SELECT pg_llm_recording()")).scalar_one() is False


def test_a_tree_without_leaves_that_want_gradients_is_refused(session: Session) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="does not depend on any parameter or tracked tensor"):
        g.gradients(session, g.sum_all(g.relu([1.0])), {})
