"""Settings of a model's configuration: what an architecture declares, and what of it a model may hold."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg import errors

from llm_sql.models import Setting

from ..support.small_models import weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]

SETTINGS = (
    Setting("pooling", "text", "mean", values=("mean", "cls")),
    Setting("normalize", "boolean", True),
    Setting("rows", "integer", 2, minimum=1, maximum="n_positions"),
    Setting("longest", "integer", None, minimum=1),
    Setting("temperature", "number", 0.05, above=0),
    Setting("prompts", "object", {}),
    Setting("prompt", "text"),
)
DEFAULTS = {setting.name: setting.default for setting in SETTINGS}
NAMES = ", ".join(sorted(DEFAULTS))


@pytest.fixture
def own(conn: Connection) -> Connection:
    """An architecture `own` that computes as gpt2 does and knows settings, and a model of it."""
    declared = {setting.name: setting.declaration() for setting in SETTINGS}
    conn.execute(
        "INSERT INTO llm_arch (arch, forward, parameters, settings)"
        " VALUES ('own', 'public.llm_forward_gpt2', 'public.llm_parameters_gpt2', %s)"
        " ON CONFLICT (arch) DO UPDATE SET settings = EXCLUDED.settings",
        (json.dumps(declared),),
    )
    create(conn, "m")
    return conn


def create(conn: Connection, model: str, **settings: Any) -> None:
    conn.execute(
        "SELECT llm_create_model(%s, 'own', 1, 1, 4, 8, 13, settings => %s)", (model, json.dumps(settings))
    )


def settings(conn: Connection, model: str = "m") -> Any:
    return value(conn, "SELECT (llm_config(%s)).settings", (model,))


def store(conn: Connection, given: Any, model: str = "m") -> None:
    conn.execute("UPDATE llm_model_config SET settings = %s WHERE model = %s", (json.dumps(given), model))


def test_what_a_model_does_not_say_has_the_declared_defaults(own: Connection) -> None:
    assert settings(own) == DEFAULTS
    assert value(own, "SELECT settings FROM llm_model_config WHERE model = 'm'") == {}
    create(own, "n", pooling="cls", prompts={"query": "q: "})
    assert settings(own, "n") == DEFAULTS | {"pooling": "cls", "prompts": {"query": "q: "}}


ALLOWED = (
    {"pooling": "cls"},
    {"normalize": False},
    {"rows": 8},
    {"rows": 1},
    {"longest": None},
    {"longest": 2147483647},
    {"temperature": 1},
    {"temperature": 1e-9},
    {"prompts": {"a": "", "b": "it's"}},
    {"prompt": "query"},
    {"prompt": None},
)


@pytest.mark.parametrize("given", ALLOWED, ids=str)
def test_what_is_declared_is_allowed(own: Connection, given: dict[str, Any]) -> None:
    store(own, given)
    assert settings(own) == DEFAULTS | given


REFUSED = (
    ({"poling": "cls"}, '"poling" of model "m" is not known to architecture "own"', f"It knows {NAMES}."),
    ({"pooling": "max"}, '"pooling" of model "m" must be one of mean, cls, got "max"', NAMES),
    ({"pooling": 1}, '"pooling" of model "m" must be one of mean, cls, got 1', NAMES),
    ({"pooling": None}, '"pooling" of model "m" must be one of mean, cls, got null', NAMES),
    ({"normalize": "true"}, '"normalize" of model "m" must be true or false, got "true"', NAMES),
    ({"rows": 0}, '"rows" of model "m" must be an integer, at least 1, at most n_positions, got 0', NAMES),
    ({"rows": 9}, "at most n_positions, got 9", NAMES),
    ({"rows": 1.5}, "must be an integer, at least 1, at most n_positions, got 1.5", NAMES),
    ({"rows": "2"}, 'must be an integer, at least 1, at most n_positions, got "2"', NAMES),
    ({"longest": 2147483648}, "must be an integer, at least 1, or null, got 2147483648", NAMES),
    ({"temperature": 0}, '"temperature" of model "m" must be a number, above 0, got 0', NAMES),
    ({"temperature": -1}, "must be a number, above 0, got -1", NAMES),
    ({"temperature": True}, "must be a number, above 0, got true", NAMES),
    ({"prompts": {"a": 1}}, '"prompts" of model "m" must be an object whose values are texts', NAMES),
    ({"prompts": ["a"]}, '"prompts" of model "m" must be an object whose values are texts', NAMES),
    ({"prompt": {}}, '"prompt" of model "m" must be a text, or null, got {}', NAMES),
    ({"n_layer": 1}, '"n_layer" of model "m" repeats the column of that name', "column n_layer"),
    ({"settings": {}}, '"settings" of model "m" repeats the column of that name', "column settings"),
)


@pytest.mark.parametrize(("given", "message", "hint"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_what_is_not_allowed_is_told_at_first_use(
    own: Connection, given: dict[str, Any], message: str, hint: str
) -> None:
    store(own, given)
    for use in (
        "SELECT llm_config('m')",
        "SELECT llm_logits('{1,2}', 'm')",
        "SELECT * FROM llm_parameters('m')",
        "SELECT llm_init_model('m')",
        "SELECT llm_train('m', 1)",
    ):
        with pytest.raises(errors.InvalidParameterValue) as error:
            own.execute(use)
        assert message in str(error.value.diag.message_primary)
        assert hint in str(error.value.diag.message_hint)


def test_numbers_beyond_what_a_double_holds(own: Connection) -> None:
    for number in ("1e400", "1e-400"):
        own.execute(
            "UPDATE llm_model_config SET settings = jsonb_build_object('temperature', %s::numeric)", (number,)
        )
        with pytest.raises(errors.InvalidParameterValue, match=r'"temperature" .* must be a number, above 0'):
            own.execute("SELECT llm_config('m')")


def test_nothing_is_created_with_wrong_settings(own: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match='"pooling" of model "n" must be one of mean, cls'):
        create(own, "n", pooling="max")
    for wrong in ("[]", "3", '"pooling"', "null"):
        with pytest.raises(errors.InvalidParameterValue, match="settings must be a JSON object"):
            own.execute("SELECT llm_create_model('n', 'own', 1, 1, 4, 8, 13, settings => %s)", (wrong,))
    with pytest.raises(errors.InvalidParameterValue) as error:
        own.execute("SELECT llm_create_model('n', n_layer => 1, settings => '{\"pooling\": \"cls\"}')")
    assert 'is not known to architecture "gpt2"' in str(error.value)
    assert error.value.diag.message_hint == "It knows no settings."
    assert not value(own, "SELECT count(*) FROM llm_model_config WHERE model = 'n'")
    own.execute("SELECT llm_create_model('n', 'own', 1, 1, 4, 8, 13, settings => NULL)")
    assert settings(own, "n") == DEFAULTS


def test_settings_are_an_object_in_the_table_too(own: Connection) -> None:
    for table in ("llm_model_config", "llm_arch"):
        with pytest.raises(errors.CheckViolation, match=f"ck_{table}_settings"):
            own.execute(f"UPDATE {table} SET settings = '[]'")
    with pytest.raises(errors.CheckViolation, match="ck_llm_arch_kind"):
        own.execute("UPDATE llm_arch SET kind = 'both'")


def test_a_model_with_wrong_settings_can_be_renamed_mended_and_dropped(own: Connection) -> None:
    store(own, {"poling": "cls"})
    own.execute("SELECT llm_rename_model('m', 'n')")
    with pytest.raises(errors.InvalidParameterValue, match='"poling" of model "n"'):
        own.execute("SELECT llm_copy_model('n', 'o')")
    store(own, {"pooling": "cls"}, "n")
    assert settings(own, "n")["pooling"] == "cls"
    store(own, {"poling": "cls"}, "n")
    own.execute("SELECT llm_drop_model('n')")
    assert value(own, "SELECT count(*) FROM llm_model_config WHERE model = 'n'") == 0


def test_copies_renamed_models_and_checkpoints_keep_settings(own: Connection) -> None:
    create(own, "n", pooling="cls")
    own.execute("SELECT llm_copy_model('n', 'copy')")
    own.execute("SELECT llm_rename_model('copy', 'renamed')")
    assert settings(own, "renamed") == DEFAULTS | {"pooling": "cls"}
    saved = value(own, "SELECT llm_checkpoint_save('n')")
    before = weights(own, "n")
    own.execute("SELECT llm_init_model('n', 7)")
    store(own, {}, "n")
    own.execute("SELECT llm_checkpoint_load('n', %s)", (saved,))
    assert settings(own, "n") == DEFAULTS | {"pooling": "cls"}
    assert weights(own, "n") == before


def declare(conn: Connection, declared: Any) -> None:
    conn.execute("UPDATE llm_arch SET settings = %s WHERE arch = 'own'", (json.dumps(declared),))


WRONG_DECLARATIONS = (
    ({"a": {"type": "real"}}, 'architecture "own" declares setting "a" with type real'),
    ({"a": {"default": 1}}, 'architecture "own" declares setting "a" with type NULL'),
    ({"a": "text"}, 'architecture "own" declares setting "a" with type NULL'),
    ({"a": {"type": "text", "default": 1}}, 'default of setting "a" of architecture "own" must be a text'),
    ({"a": {"type": "integer", "default": 0, "minimum": 1}}, 'default of setting "a" of architecture "own"'),
    ({"vocab": {"type": "integer", "default": 1}}, '"vocab" of architecture "own" repeats the column'),
)


@pytest.mark.parametrize(("declared", "message"), WRONG_DECLARATIONS, ids=range(len(WRONG_DECLARATIONS)))
def test_what_an_architecture_declares_wrongly_is_told(own: Connection, declared: Any, message: str) -> None:
    declare(own, declared)
    with pytest.raises(errors.InvalidParameterValue, match=message):
        own.execute("SELECT llm_config('m')")


def test_a_declaration_may_be_short(own: Connection) -> None:
    declare(own, {"a": {"type": "text"}, "b": {"type": "number", "maximum": "d_ff", "minimum": "nothing"}})
    assert settings(own) == {"a": None, "b": None}
    store(own, {"a": "x", "b": 16})
    assert settings(own) == {"a": "x", "b": 16}
    store(own, {"b": 16.5})
    with pytest.raises(errors.InvalidParameterValue, match=r'"b" .* at most d_ff, or null, got 16\.5'):
        own.execute("SELECT llm_config('m')")


def test_architectures_are_decoders_unless_they_say_otherwise(own: Connection) -> None:
    assert value(own, "SELECT kind FROM llm_arch WHERE arch = 'own'") == "decoder"
