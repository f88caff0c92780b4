"""Versions of adapters in memory, and the numbers that adapters begin with."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..support.small_models import add_rows, make_model, train
from ..support.tensors import array_of, value

Connection = psycopg.Connection[Any]
FORWARD = "SELECT pg_llm_tensor_send(llm_forward(%s, '{1,2,3}'))"


def test_uniform_numbers(conn: Connection) -> None:
    query = "SELECT pg_llm_tensor_send(pg_llm_uniform('{200,50}', %s, %s, %s, %s))"
    x = array_of(value(conn, query, (-0.5, 1.5, 7, 3)))
    assert x.shape == (200, 50)
    assert x.min() >= -0.5
    assert x.max() <= 1.5
    assert abs(x.mean() - 0.5) < 0.03
    assert abs(x.std() - 2 / np.sqrt(12)) < 0.02
    assert np.unique(x).size > 9900
    assert (x == array_of(value(conn, query, (-0.5, 1.5, 7, 3)))).all()
    for seed, stream in ((8, 3), (7, 4)):
        assert (x != array_of(value(conn, query, (-0.5, 1.5, seed, stream)))).mean() > 0.99
    assert (array_of(value(conn, query, (2, 2, 1, 1))) == 2).all()
    for low, high, error in (
        (1, 0, errors.InvalidParameterValue),
        ("NaN", 1, errors.InvalidParameterValue),
        (0, "Infinity", errors.InvalidParameterValue),
        (0, 1e300, errors.NumericValueOutOfRange),
    ):
        with pytest.raises(error):
            conn.execute(query, (low, high, 1, 1))


def pin(conn: Connection, *models: str) -> None:
    for model in models:
        conn.execute("SELECT llm_pin(%s)", (model,))


def test_what_can_be_a_base_in_memory(conn: Connection) -> None:
    make_model(conn, "base")
    make_model(conn, "other")
    conn.execute("SELECT llm_create_adapter('tuned', 'base')")
    join = "SELECT pg_llm_arena_base(%s, %s, 1)"
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="not in memory"):
        conn.execute(join, ("tuned", "base"))
    with conn.transaction(force_rollback=True):
        pin(conn, "tuned", "base", "other")
        for model, base in (("base", "base"), ("other", "tuned"), ("base", "other")):
            refused = pytest.raises(errors.InvalidParameterValue, match="cannot be the base of model")
            with refused, conn.transaction():
                conn.execute(join, (model, base))
    with conn.transaction(force_rollback=True):
        pin(conn, "tuned")
        conn.execute("SELECT llm_pin('other', true)")
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="is being trained in this session"):
            conn.execute(join, ("tuned", "other"))


def test_another_alpha_counts_at_once(conn: Connection) -> None:
    make_model(conn, "base")
    conn.execute("SELECT llm_create_adapter('tuned', 'base', 2, 2)")
    conn.execute("UPDATE llm_param SET data = pg_llm_add(data, '0.5'::tensor) WHERE model = 'tuned'")
    key = "SELECT llm_chat_key(c) FROM llm_model_config c WHERE model = 'tuned'"
    keys, logits = set(), []
    for alpha in (2, 0, 2, -3):
        conn.execute("UPDATE llm_adapter SET alpha = %s", (alpha,))
        keys.add(bytes(value(conn, key)))
        logits.append(value(conn, FORWARD, ("tuned",)))
    assert len(keys) == len(set(logits)) == 3
    assert logits[0] == logits[2]
    assert logits[1] == value(conn, FORWARD, ("base",))


def test_an_adapter_of_an_adapter_by_hand(conn: Connection) -> None:
    make_model(conn, "base")
    conn.execute("SELECT llm_create_adapter('a', 'base')")
    conn.execute("SELECT llm_create_adapter('b', 'base')")
    conn.execute("UPDATE llm_adapter SET base = CASE model WHEN 'a' THEN 'b' ELSE 'a' END")
    with pytest.raises(
        errors.InvalidParameterValue, match='"b", the base of adapter "a", is an adapter itself'
    ):
        conn.execute(FORWARD, ("a",))


def test_a_base_is_known_by_its_numbers_however_they_are_stored(conn: Connection) -> None:
    make_model(conn, "base")
    conn.execute("UPDATE llm_param SET data = pg_llm_to_bf16(data) WHERE model = 'base'")
    for weights in ("float32", "bf16"):
        conn.execute(f"SET pg_llm.weights = '{weights}'")
        conn.execute("SELECT llm_create_adapter(%s, 'base')", (weights,))
    hashes = conn.execute("SELECT DISTINCT base_sha256 FROM llm_adapter").fetchall()
    assert len(hashes) == 1
    conn.execute("RESET pg_llm.weights")
    before = value(conn, FORWARD, ("bf16",))
    conn.execute("UPDATE llm_param SET data = pg_llm_to_float32(data) WHERE model = 'base'")
    assert value(conn, FORWARD, ("bf16",)) == before
    conn.execute("UPDATE llm_param SET data = pg_llm_to_bf16(data) WHERE model = 'base'")
    conn.execute("SET pg_llm.weights = 'bf16'")
    add_rows(conn, "bf16")
    train(conn, "bf16", 2)
    assert value(conn, "SELECT bool_and(dtype(data) = 'bf16') FROM llm_param WHERE model = 'base'")
    conn.execute("UPDATE llm_param SET data = pg_llm_mul(data, '1.001'::tensor) WHERE model = 'base'")
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        conn.execute(FORWARD, ("bf16",))


def test_a_base_is_recognised_once_for_all_of_its_adapters(conn: Connection) -> None:
    make_model(conn, "base")
    for name in ("a", "b"):
        conn.execute("SELECT llm_create_adapter(%s, 'base')", (name,))
    versions = "SELECT DISTINCT base_version = pg_llm_shared_version('base') FROM llm_adapter"
    assert conn.execute(versions).fetchall() == [(True,)]
    expected = value(conn, FORWARD, ("a",))
    conn.execute("UPDATE llm_param SET step = step WHERE model = 'base'")
    assert conn.execute(versions).fetchall() == [(False,)]
    assert value(conn, FORWARD, ("a",)) == expected
    assert value(conn, "SELECT llm_recognise_base('base')") == 2
    assert conn.execute(versions).fetchall() == [(True,)]
    assert value(conn, FORWARD, ("a",)) == expected
    conn.execute("UPDATE llm_param SET data = pg_llm_mul(data, '1.1'::tensor) WHERE model = 'base'")
    assert value(conn, "SELECT llm_recognise_base('base')") == 0
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        conn.execute(FORWARD, ("a",))
    with pytest.raises(errors.UndefinedObject, match="model NULL does not exist"):
        conn.execute("SELECT llm_recognise_base(NULL)")


def test_llm_release_lets_go_of_adapters_and_bases(conn: Connection) -> None:
    make_model(conn, "base")
    conn.execute("SELECT llm_create_adapter('tuned', 'base')")
    expected = value(conn, FORWARD, ("tuned",))
    assert value(conn, "SELECT llm_release()") > 0
    assert value(conn, FORWARD, ("tuned",)) == expected
    conn.execute("SET pg_llm.cache_size = '1MB'")
    for number in range(3):
        conn.execute("SELECT llm_create_adapter(%s, 'base', seed => %s)", (f"a{number}", number))
        assert value(conn, FORWARD, (f"a{number}",)) == expected
