"""An architecture's settings: variables of its trees, in an installed one the model's configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from llm_sql import graph as g
from llm_sql.models import ARCHITECTURE_ROWS

EPS = g.setting("eps", g.REAL)
ROWS = g.setting("rows", g.INTEGER)
GATED = g.setting("gated", g.BOOLEAN)
SETTINGS = (
    g.Setting("act", "text", "relu", values=("relu", "silu")),
    g.Setting("eps", "number", 0.5, above=0),
    g.Setting("rows", "integer", 3, minimum=1),
    g.Setting("gated", "boolean", False),
)


def architecture(**changes: Any) -> g.Architecture:
    parts: dict[str, Any] = {
        "name": "mine",
        "stem": g.embedding(g.p("wte"), g.tokens),
        "block": g.x
        + g.activation(g.linear(g.rms_norm(g.x, EPS), g.p("h.{layer}.a")), g.setting("act", g.TEXT)),
        "head": g.lm_head(g.x, g.p("wte")),
        "parameters": [
            g.ParameterSpec("wte", (g.vocab, g.d_model)),
            g.ParameterSpec("h.{layer}.a", (g.d_model, g.d_model), std=1.0),
            g.ParameterSpec("extra", (2 * ROWS,), only_if=GATED),
        ],
        "settings": SETTINGS,
    }
    return g.Architecture(**{**parts, **changes})


CREATE = sa.text(
    "SELECT llm_create_model('own', arch => 'mine', n_layer => 2, n_head => 1, d_model => 4,"
    " n_positions => 6, vocab => 7, settings => CAST(:settings AS jsonb))"
)


def logits(session: Session) -> Any:
    return session.scalar(sa.text("SELECT llm_forward('own', '{1,2,3}')"))


def test_an_installed_function_reads_them_and_an_ad_hoc_tree_is_given_them(session: Session) -> None:
    mine = architecture()
    mine.register(session)
    session.execute(CREATE, {"settings": "{}"})
    given = {"model": "own", "tokens": [1, 2, 3]}
    by_default = logits(session)
    assert np.array_equal(session.scalar(g.select(mine.logits(2, **given))), by_default)
    update = sa.text("UPDATE llm_model_config SET settings = CAST(:settings AS jsonb) WHERE model = 'own'")
    session.execute(update, {"settings": '{"act": "silu", "eps": 0.9}'})
    changed = logits(session)
    assert not np.array_equal(changed, by_default)
    by_hand = session.scalar(g.select(mine.logits(2, act="silu", eps=0.9, **given)))
    assert np.array_equal(by_hand, changed)


def test_parameters_depend_on_them(session: Session) -> None:
    architecture().register(session)
    session.execute(CREATE, {"settings": '{"gated": true, "rows": 5}'})
    shapes = session.execute(sa.text("SELECT name, shape FROM llm_parameters('own')")).all()
    assert dict(map(tuple, shapes))["extra"] == [10]
    session.execute(sa.text("UPDATE llm_model_config SET settings = '{}' WHERE model = 'own'"))
    assert "extra" not in dict(
        map(tuple, session.execute(sa.text("SELECT name, shape FROM llm_parameters('own')")))
    )


def test_registering_stores_the_declarations(session: Session) -> None:
    architecture(kind="encoder").register(session)
    query = sa.text("SELECT kind, settings FROM llm_arch WHERE arch = 'mine'")
    kind, settings = session.execute(query).one()
    assert kind == "encoder"
    assert settings == {setting.name: setting.declaration() for setting in SETTINGS}
    architecture(settings=SETTINGS[:2], parameters=[g.ParameterSpec("wte", (g.vocab,))]).register(session)
    kind, settings = session.execute(query).one()
    assert (kind, list(settings)) == ("decoder", ["act", "eps"])


def test_a_setting_that_is_not_declared_is_refused_when_compiled() -> None:
    with pytest.raises(ArgumentError, match=r"variable 'eps' has no value here; known are act, "):
        architecture(settings=SETTINGS[:1]).compile_function()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": [SETTINGS[0], SETTINGS[0]]}, r"settings declared twice: \['act'\]"),
        ({"settings": [g.Setting("tokens", "text")]}, r"settings named as variables are: \['tokens'\]"),
        ({"settings": [g.Setting("last_only", "text")]}, r"named as variables are: \['last_only'\]"),
        ({"kind": "both"}, "kind is 'both', not decoder or encoder"),
    ],
)
def test_declarations_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        architecture(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("n_layer", "integer"), "is a column of llm_model_config"),
        (("A", "text"), "a lower-case letter"),
        (("a", "real"), "has type 'real'; types are text, boolean"),
        (("a", "integer", True), "default that it does not allow: True"),
        (("a", "integer", 1.0), "default that it does not allow: 1.0"),
        (("a", "object", {"b": 1}), "default that it does not allow"),
        (("a", "boolean", "true"), "default that it does not allow"),
    ],
)
def test_settings_that_cannot_be(arguments: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        g.Setting(*arguments)


def test_bounds_and_values_of_settings() -> None:
    for wrong in (
        {"type": "text", "default": "c", "values": ("a", "b")},
        {"type": "number", "default": 0, "above": 0},
        {"type": "integer", "default": 0, "minimum": 1},
        {"type": "integer", "default": 9, "maximum": 8},
        {"type": "integer", "minimum": "context"},
        {"type": "integer", "values": ("1",)},
    ):
        with pytest.raises(ArgumentError, match="setting 'a'"):
            g.Setting("a", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", g.ARCHITECTURES, ids=lambda a: a.name)
def test_built_in_architectures_are_what_their_rows_say(architecture: g.Architecture) -> None:
    [row] = [row for row in ARCHITECTURE_ROWS if row["arch"] == architecture.name]
    declared = {setting.name: setting.declaration() for setting in architecture.settings}
    assert (row["kind"], row["settings"]) == (architecture.kind, declared)
