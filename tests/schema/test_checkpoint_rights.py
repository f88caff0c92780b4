"""Checkpoints under row policies and roles: nobody reads or loses what somebody else saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from ..support.checkpoints import file_of, files, load, referenced, save, skip_unless_visible
from ..support.small_models import make_model, make_trainable, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]
TABLES = (
    "llm_checkpoint",
    "llm_param",
    "llm_model_config",
    "llm_bpe_vocab",
    "llm_bpe_merges",
    "llm_train_log",
)
READERS = (
    "pg_llm_checkpoint_tensors(%s)",
    "pg_llm_checkpoint_tensor(%s, 'wte.weight')",
    "pg_llm_checkpoint_bytes(%s, 'tokenizer.vocab')",
    "pg_llm_checkpoint_metadata(%s, 'model')",
)


@pytest.fixture(autouse=True)
def only_where_files_can_be_seen(conn: Connection) -> None:
    skip_unless_visible(conn)


@pytest.fixture
def tenant(conn: Connection, connect: Any) -> Iterator[Connection]:
    """A trainer who sees model ten_a only, by policies on all tables; ten_b is the owner's."""
    for model in ("ten_a", "ten_b"):
        make_trainable(conn, model)
        train(conn, model, 2)
    conn.execute("DROP ROLE IF EXISTS llm_test_tenant")
    conn.execute("CREATE ROLE llm_test_tenant LOGIN IN ROLE llm_trainer")
    for table in TABLES:
        conn.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        conn.execute(f"CREATE POLICY own ON {table} USING (model = current_setting('app.tenant', true))")
    trainer = connect(user="llm_test_tenant")
    trainer.execute("SET app.tenant = 'ten_a'")
    yield trainer
    trainer.close()
    for table in TABLES:
        conn.execute(f"DROP POLICY IF EXISTS own ON {table}")
        conn.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    conn.execute("DROP OWNED BY llm_test_tenant")
    conn.execute("DROP ROLE llm_test_tenant")


def test_a_hidden_rows_file_stays(conn: Connection, tenant: Connection) -> None:
    """Whatever a tenant does to its own rows, files of the others are there and load."""
    theirs = save(conn, "ten_b")
    before = weights(conn, "ten_b")
    for _ in range(3):
        save(tenant, "ten_a", keep=1)
        tenant.execute("SELECT llm_checkpoint_retain('ten_b', 1)")
    tenant.execute("SELECT llm_checkpoint_sweep()")
    tenant.execute("SELECT pg_llm_checkpoint_sweep()")
    tenant.execute("DELETE FROM llm_checkpoint")
    tenant.execute("SELECT llm_checkpoint_sweep()")
    assert value(conn, "SELECT array_agg(id) FROM llm_checkpoint") == [theirs]
    assert files(conn) == referenced(conn)
    conn.execute("SELECT llm_init_model('ten_b', 9)")
    assert load(conn, theirs, "ten_b") == 2
    assert weights(conn, "ten_b") == before


def test_a_sweep_without_privileges_on_the_rows_removes_nothing_of_theirs(
    conn: Connection, connect: Any
) -> None:
    """Column privileges, no privileges at all, another owner: the rows count all the same."""
    make_model(conn)
    id_ = save(conn)
    for grants in ("SELECT (id, model)", "INSERT", ""):
        conn.execute("DROP ROLE IF EXISTS llm_test_sweeper")
        conn.execute("CREATE ROLE llm_test_sweeper LOGIN")
        try:
            conn.execute(
                "GRANT EXECUTE ON FUNCTION llm_checkpoint_sweep(), pg_llm_checkpoint_sweep() TO"
                " llm_test_sweeper"
            )
            if grants:
                conn.execute(f"GRANT {grants} ON llm_checkpoint TO llm_test_sweeper")
            other = connect(user="llm_test_sweeper")
            other.execute("SELECT llm_checkpoint_sweep()")
            other.close()
            assert files(conn) == referenced(conn) != set()
        finally:
            conn.execute("DROP OWNED BY llm_test_sweeper")
            conn.execute("DROP ROLE llm_test_sweeper")
    assert load(conn, id_) == 0


@pytest.mark.parametrize("call", READERS)
def test_a_file_is_read_through_a_row_that_is_seen(conn: Connection, tenant: Connection, call: str) -> None:
    theirs, own = save(conn, "ten_b"), save(tenant, "ten_a")
    assert tenant.execute(f"SELECT {call}", (own,)).fetchall()
    with pytest.raises(errors.UndefinedObject, match="does not exist"):
        tenant.execute(f"SELECT {call}", (theirs,))
    # what the session has open is not the next role's
    conn.execute(sql.SQL("SELECT set_config('app.tenant', 'ten_a', false)"))
    with conn.transaction():
        conn.execute(f"SELECT {call}", (theirs,))
        conn.execute("SET LOCAL ROLE llm_test_tenant")
        with pytest.raises(errors.UndefinedObject), conn.transaction():
            conn.execute(f"SELECT {call}", (theirs,))


def test_a_row_of_ones_own_does_not_lead_to_anothers_file(conn: Connection, tenant: Connection) -> None:
    """Even with the other's file name; the hash is what a row must know, and the model must be the file's."""
    theirs, own = save(conn, "ten_b"), save(tenant, "ten_a")
    path = value(conn, "SELECT file_path FROM llm_checkpoint WHERE id = %s", (theirs,))
    tenant.execute("UPDATE llm_checkpoint SET file_path = %s WHERE id = %s", (path, own))
    for call in READERS:
        with pytest.raises(errors.DataException):
            tenant.execute(f"SELECT {call}", (own,))
    with pytest.raises(errors.DataException):
        load(tenant, own, "ten_a")
    known = conn.execute("SELECT bytes, sha256 FROM llm_checkpoint WHERE id = %s", (theirs,)).fetchone()
    assert known is not None
    tenant.execute("UPDATE llm_checkpoint SET bytes = %s, sha256 = %s WHERE id = %s", (*known, own))
    for call in READERS:
        with pytest.raises(errors.InvalidParameterValue, match='not a checkpoint of model "ten_a"'):
            tenant.execute(f"SELECT {call}", (own,))
    # deleting that row takes nothing away
    save(tenant, "ten_a", keep=1)
    assert load(conn, theirs, "ten_b") == 2


def test_what_names_files_by_their_path_is_no_trainers(conn: Connection, tenant: Connection) -> None:
    id_ = save(conn, "ten_b")
    path = value(conn, "SELECT file_path FROM llm_checkpoint WHERE id = %s", (id_,))
    for call in (
        f"pg_llm_file_tensors('{path}', 1000000, true)",
        f"pg_llm_file_tensor('{path}', 'wte.weight', checkpoint => true)",
        f"pg_llm_file_bytes('{path}', 'tokenizer.vocab', true)",
        f"pg_llm_file_metadata('{path}', 'model', true)",
        f"pg_llm_file_sha256('{path}', true)",
        "pg_llm_checkpoint_files()",
        "llm_checkpoint_orphans()",
        "llm_checkpoint_orphans(true)",
        "pg_llm_checkpoint_orphans(true)",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            tenant.execute(f"SELECT {call}")
    assert file_of(conn, id_).exists()


def test_without_grants_no_function_of_files_is_executable(conn: Connection, connect: Any) -> None:
    conn.execute("DROP ROLE IF EXISTS llm_test_nobody")
    conn.execute("CREATE ROLE llm_test_nobody LOGIN")
    try:
        nobody = connect(user="llm_test_nobody")
        functions = value(
            nobody,
            "SELECT array_agg(oid::regprocedure::text) FROM pg_proc WHERE proname ~"
            " '^pg_llm_(file|checkpoint)_'",
        )
        assert len(functions) > 10
        open_to_all = value(
            nobody,
            "SELECT array_agg(f) FROM unnest(%s::text[]) f WHERE has_function_privilege(f, 'EXECUTE')",
            (functions,),
        )
        assert open_to_all is None
        nobody.close()
    finally:
        conn.execute("DROP ROLE llm_test_nobody")


def test_a_role_is_not_trusted_for_its_name(conn: Connection, connect: Any) -> None:
    """Where provisioning granted nothing to llm_trainer, whoever makes or joins that role gets nothing."""
    make_model(conn)
    before = files(conn)
    conn.execute("DROP ROLE IF EXISTS llm_test_named")
    conn.execute("CREATE ROLE llm_test_named LOGIN IN ROLE llm_trainer")
    granted = value(
        conn,
        "SELECT array_agg(oid::regprocedure::text) FROM pg_proc WHERE proname LIKE"
        " 'pg\\_llm\\_checkpoint\\_%'"
        " AND has_function_privilege('llm_trainer', oid, 'EXECUTE')",
    )
    try:
        for function in granted:
            conn.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM llm_trainer")
        trainer = connect(user="llm_test_named")
        for call in (
            "llm_checkpoint_save('tiny')",
            "llm_checkpoint_load('tiny', 1)",
            "pg_llm_checkpoint_write('tiny')",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                trainer.execute(f"SELECT {call}")
        assert files(conn) == before
        trainer.close()
    finally:
        for function in granted:
            conn.execute(f"GRANT EXECUTE ON FUNCTION {function} TO llm_trainer")
        conn.execute("DROP ROLE llm_test_named")


def test_what_a_policy_hides_of_the_weights_is_no_checkpoint(conn: Connection, tenant: Connection) -> None:
    conn.execute("DROP POLICY own ON llm_param")
    conn.execute("CREATE POLICY own ON llm_param USING (name <> 'wte.weight')")
    before = files(conn)
    with pytest.raises(errors.InvalidParameterValue, match=r'parameter "wte\.weight"'):
        save(tenant, "ten_a")
    assert files(conn) == before
