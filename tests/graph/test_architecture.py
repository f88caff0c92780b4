"""A user's own architecture: registered, created, trained, evaluated, generated from like a built-in one."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from llm_sql import graph as g

normed = g.rms_norm(g.x)
attended = g.x + g.linear(
    g.causal_attention_qkv(g.linear(normed, g.p("h.{layer}.qkv")), site="h.{layer}.attn"),
    g.p("h.{layer}.out"),
)
gate = g.linear(g.rms_norm(attended), g.p("h.{layer}.gate"))
block = attended + g.linear(gate * g.gelu(gate), g.p("h.{layer}.down"))

MINE = g.Architecture(
    "mine",
    stem=g.embedding(g.p("wte"), g.tokens) + g.embedding(g.p("wpe"), g.positions(g.tokens)),
    block=block,
    head=g.lm_head(g.rms_norm(g.x), g.p("wte")),
    parameters=[
        g.ParameterSpec("wte", (g.vocab, g.d_model)),
        g.ParameterSpec("wpe", (g.n_positions, g.d_model), std=0.01),
        g.ParameterSpec("h.{layer}.qkv", (g.d_model, 3 * g.d_model)),
        g.ParameterSpec("h.{layer}.out", (g.d_model, g.d_model), "residual"),
        g.ParameterSpec("h.{layer}.gate", (g.d_model, g.d_ff)),
        g.ParameterSpec("h.{layer}.down", (g.d_ff, g.d_model), "zeros"),
    ],
    description="gated, for a test",
)

CREATE = sa.text(
    "SELECT llm_create_model('own', arch => 'mine', n_layer => 2, n_head => 2, d_model => 8, "
    "n_positions => 6, vocab => 7)"
)


@pytest.fixture
def own(session: Session) -> Session:
    session.execute(sa.text("SELECT set_config('pg_llm.default_model', 'own', true)"))
    MINE.register(session)
    session.execute(CREATE)
    for i in range(7):
        tokens = [(i + j) % 7 for j in range(5)]
        session.execute(
            sa.text("INSERT INTO llm_dataset (model, tokens, target) VALUES ('own', :tokens, :target)"),
            {"tokens": tokens[:-1], "target": tokens[1:]},
        )
    return session


def loss(session: Session) -> float:
    found = session.execute(sa.text("SELECT llm_loss('own', '{0,1,2,3}', '{1,2,3,4}')")).scalar_one()
    return float(found)


def test_its_parameters_are_those_declared(own: Session) -> None:
    rows = own.execute(
        sa.text("SELECT name, shape(data), norm(data) FROM llm_param WHERE model = 'own'")
    ).all()
    block_shapes = {"qkv": [8, 24], "out": [8, 8], "gate": [8, 32], "down": [32, 8]}
    expected = {f"h.{i}.{name}": shape for i in range(2) for name, shape in block_shapes.items()}
    assert {name: shape for name, shape, _ in rows} == expected | {"wte": [7, 8], "wpe": [6, 8]}
    norms = {name: norm for name, _, norm in rows}
    assert norms["h.0.down"] == 0
    # 48 normal numbers of deviation 0.01 and 64 of 0.02 / sqrt(2 * 2)
    assert norms["wpe"] == pytest.approx(0.01 * np.sqrt(48), rel=0.4)
    assert norms["h.1.out"] == pytest.approx(0.01 * np.sqrt(64), rel=0.4)


def test_it_computes_what_the_trees_say(own: Session) -> None:
    tokens = [1, 2, 3]
    by_hand = own.execute(
        g.select(MINE.logits(2, model="own", tokens=tokens, n_head=2, training=False, dropout_p=0.0))
    ).scalar_one()
    installed = own.execute(sa.text("SELECT llm_forward('own', '{1,2,3}')")).scalar_one()
    assert np.array_equal(by_hand, installed)


def test_it_trains(own: Session) -> None:
    before = loss(own)
    assert before == pytest.approx(np.log(7), rel=0.05)
    own.execute(
        sa.text(
            "SELECT llm_train('own', 150, lr_max => 0.02, batch_size => 7, dropout_p => 0, log_every => 0)"
        )
    )
    assert loss(own) < 0.2 < before


def test_it_can_be_registered_again_and_its_row_says_where_it_is(own: Session) -> None:
    MINE.register(own)
    row = own.execute(
        sa.text("SELECT forward, parameters, description FROM llm_arch WHERE arch = 'mine'")
    ).one()
    assert tuple(row) == ("public.llm_forward_mine", "public.llm_parameters_mine", "gated, for a test")
    comment = own.execute(
        sa.text("SELECT obj_description('public.llm_forward_mine'::regproc, 'pg_proc')")
    ).scalar_one()
    assert comment.endswith("gated, for a test")


def test_registering_is_part_of_the_transaction(session: Session) -> None:
    MINE.register(session)
    session.rollback()
    found = session.execute(sa.text("SELECT count(*) FROM llm_arch WHERE arch = 'mine'")).scalar_one()
    assert found == 0


def test_without_parameters_there_is_nothing_to_train(session: Any) -> None:
    bare = g.Architecture("bare", stem=MINE.stem, block=MINE.block, head=MINE.head)
    with pytest.raises(sa.exc.ArgumentError, match="no parameters"):
        bare.register(session)


def test_the_examples_of_the_package_run(session: Session) -> None:
    session.execute(
        sa.text("SELECT llm_create_model('gpt', 'gpt2', 1, 2, d_model => 8, n_positions => 8, vocab => 5)")
    )
    lines = str(g.__doc__).splitlines()
    code = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line))
    scope: dict[str, Any] = {"session": session, "select": sa.select}
    exec(code, scope)
    assert session.execute(sa.text("SELECT count(*) FROM llm_param WHERE model = 'tiny'")).scalar_one() == 6


def test_hidden_states_of_an_own_architecture(own: Session) -> None:
    states = own.execute(sa.text("SELECT llm_hidden('own', '{0,1,2}')")).scalar_one()
    weight = own.execute(
        sa.text("SELECT data FROM llm_param WHERE model = 'own' AND name = 'wte'")
    ).scalar_one()
    logits = own.execute(sa.text("SELECT llm_logits('{0,1,2}', 'own')")).scalar_one()
    np.testing.assert_allclose(states @ weight.T, logits, atol=1e-6)
    own.execute(sa.text("DROP FUNCTION llm_hidden_mine"))
    with pytest.raises(sa.exc.NotSupportedError, match="hidden states"):
        own.execute(sa.text("SELECT llm_hidden('own', '{0,1,2}')"))
