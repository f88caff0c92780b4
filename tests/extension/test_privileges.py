"""What a role learns of weights that it may not read: nothing, whatever ran in its session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from ..support.small_models import Connection, make_names, make_trainable, train, weights
from ..support.tensors import value

Connect = Callable[..., Connection]


@pytest.fixture
def guest(conn: Connection, connect: Connect) -> Iterator[Connection]:
    """A session whose user may call all functions and read no table of ours."""
    conn.execute("DROP ROLE IF EXISTS llm_test_guest")
    conn.execute("CREATE ROLE llm_test_guest LOGIN")
    conn.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO llm_test_guest")
    yield connect(user="llm_test_guest")
    conn.execute("DROP OWNED BY llm_test_guest")


def definer(conn: Connection, declaration: str, body: str) -> None:
    """A function of the owner's that everybody may call."""
    conn.execute(f"CREATE FUNCTION {declaration} LANGUAGE sql VOLATILE SECURITY DEFINER AS $$ {body} $$")


def test_a_generation_belongs_to_the_role_that_began_it(conn: Connection, guest: Connection) -> None:
    make_names(conn)
    definer(
        conn,
        "open_generation() RETURNS int",
        "SELECT llm_pin('names'); SELECT pg_llm_gen_open('names', '{1,2}', 16)",
    )
    for call in (
        "pg_llm_gen_tokens(%s)",
        "pg_llm_gen_use(ARRAY[%s]::int[])",
        "pg_llm_gen_length(%s)",
        "pg_llm_gen_last(%s, 1)",
        "pg_llm_gen_push(%s, 1)",
        "pg_llm_gen_sampling(%s, '{}', 'top_k'::text, 1)",
        "pg_llm_gen_sample(%s, '[[1,2]]'::tensor)",
        "pg_llm_gen_write(%s, 'a')",
        "pg_llm_gen_close(%s)",
    ):
        with guest.transaction(force_rollback=True):
            handle = value(guest, "SELECT open_generation()")
            with pytest.raises(errors.InsufficientPrivilege, match="another role"), guest.transaction():
                guest.execute(f"SELECT {call}", (handle,))
            with pytest.raises(errors.ObjectNotInPrerequisiteState), guest.transaction():
                guest.execute("SELECT pg_llm_param('names', 'wpe.weight')")


def test_a_recorded_call_of_another_role_shows_nothing(conn: Connection, guest: Connection) -> None:
    make_trainable(conn)
    definer(
        conn,
        "score(tokens int[], targets int[]) RETURNS double precision",
        "SELECT llm_loss('tiny', tokens, targets)",
    )
    guest.execute("SET pg_llm.record = 'full'")
    guest.execute("SET pg_llm.autograd = on")
    assert value(guest, "SELECT score('{1,2}', '{2,3}')") > 0
    assert value(guest, "SELECT count(*) FROM pg_llm_tape()") == 0
    assert value(guest, "SELECT count(*) FROM pg_llm_tape_tensors(true)") == 0
    assert value(guest, "SELECT count(*) FROM pg_llm_tape_params()") == 0
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is recorded"):
        guest.execute("SELECT pg_llm_backward_begin(NULL, 1.0)")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is recorded"):
        guest.execute("SELECT pg_llm_grad_by_id(0)")


def test_a_pass_goes_on_around_a_call_of_another_role(conn: Connection, guest: Connection) -> None:
    """What the other role computes is a constant; the caller's own gradient is whole."""
    definer(conn, "double(x tensor) RETURNS tensor", "SELECT x * 2.0::double precision")
    guest.execute("SET pg_llm.autograd = on")
    guest.execute(
        """CREATE TEMP TABLE result AS
        SELECT x, pg_llm_sum(x * double(x)) AS y
        FROM (SELECT pg_llm_autograd_track_tensor('[1,3]') AS x OFFSET 0) t"""
    )
    guest.execute("SET pg_llm.autograd = off")
    guest.execute("SELECT pg_llm_backward_begin(pg_llm_tensor_id(y), 1.0) FROM result")
    guest.execute("SELECT pg_llm_backward(id) FROM pg_llm_tape(false)")
    assert value(guest, "SELECT pg_llm_grad(x)::text FROM result") == "[2,6]"


def test_weights_in_memory_are_found_by_their_reader_only(conn: Connection, guest: Connection) -> None:
    """A fingerprint is no secret: who knows it neither gets another role's weights nor plants its own."""
    make_trainable(conn)
    definer(conn, "read_weights() RETURNS bytea", "SELECT llm_pin('tiny')")
    definer(
        conn,
        "score2(tokens int[], targets int[]) RETURNS double precision",
        "SELECT llm_loss('tiny', tokens, targets)",
    )
    expected = value(conn, "SELECT llm_loss('tiny', '{1,2}', '{2,3}')")
    fingerprint = value(guest, "SELECT read_weights()")
    with guest.transaction():
        assert value(guest, "SELECT pg_llm_arena_open('tiny', %s, false)", (fingerprint,)) is False
        with pytest.raises(errors.ObjectNotInPrerequisiteState), guest.transaction():
            guest.execute("SELECT pg_llm_param('tiny', 'wpe.weight')")
        guest.execute(
            """SELECT pg_llm_arena_put('tiny', 'wpe.weight', 0, '[[0]]', NULL, NULL),
                pg_llm_arena_seal('tiny')"""
        )
        assert value(guest, "SELECT score2('{1,2}', '{2,3}')") == expected
    assert value(guest, "SELECT score2('{1,2}', '{2,3}')") == expected


def test_roles_of_one_session_keep_their_own_copies(conn: Connection) -> None:
    make_trainable(conn)
    expected = value(conn, "SELECT llm_loss('tiny', '{1,2}', '{2,3}')")
    for role in ("llm_reader", "llm_trainer"):
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        try:
            assert value(conn, "SELECT llm_loss('tiny', '{1,2}', '{2,3}')") == expected
        finally:
            conn.execute("RESET ROLE")


def test_a_policy_that_hides_rows_from_writing_fails_the_run(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    conn.execute("DROP ROLE IF EXISTS llm_test_partial")
    conn.execute("CREATE ROLE llm_test_partial LOGIN IN ROLE llm_trainer")
    try:
        conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
        conn.execute("CREATE POLICY everybody_reads ON llm_param FOR SELECT USING (true)")
        conn.execute("CREATE POLICY some_write ON llm_param FOR UPDATE USING (name <> 'wte.weight')")
        before = weights(conn)
        with pytest.raises(psycopg.Error) as caught:
            train(connect(user="llm_test_partial"), n_steps=1)
        assert caught.value.sqlstate == "42501"
        assert weights(conn) == before
    finally:
        conn.execute("DROP POLICY IF EXISTS everybody_reads ON llm_param")
        conn.execute("DROP POLICY IF EXISTS some_write ON llm_param")
        conn.execute("ALTER TABLE llm_param DISABLE ROW LEVEL SECURITY")
        conn.execute("DROP ROLE llm_test_partial")


@pytest.mark.parametrize(
    "call",
    [
        "llm_loss('tiny', '{1,2}', '{2,3}')",
        "llm_backprop(NULL, 'tiny')",
        "(llm_evaluate('tiny', 'train')).tokens",
        "shape(llm_logits('{1,2}', 'tiny'))",
        "llm_materialize_params('tiny')",
        "shape(llm_weight('tiny', 'wpe.weight'))",
    ],
)
def test_calls_that_a_parallel_plan_must_not_hold(conn: Connection, call: str) -> None:
    """Whatever writes the tape or sets a parameter keeps its query from running in parallel mode."""
    version: Any = conn.info.server_version
    setting = "debug_parallel_query" if version >= 160000 else "force_parallel_mode"
    make_trainable(conn)
    conn.execute("SET pg_llm.autograd = on")
    conn.execute("SELECT llm_loss('tiny', '{1,2}', '{2,3}')")
    conn.execute(f"SET {setting} = on")
    assert value(conn, f"SELECT {call}") is not None
