"""Which files of shared weights go, when, and who may remove them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg import errors

from ..support.shared_files import (
    files,
    listed,
    logits,
    mapped,
)
from ..support.small_models import Connection, make_model, make_trainable, train
from ..support.tensors import value

Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("no_files_left")


def test_release_is_for_those_who_may_write(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    expected = logits(conn)
    reader = connect()
    assert logits(reader) == expected
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL ROLE llm_reader")
        with pytest.raises(errors.InsufficientPrivilege, match="llm_param"), conn.transaction():
            conn.execute("SELECT llm_release(shared => true)")
        with pytest.raises(errors.InsufficientPrivilege), conn.transaction():
            conn.execute("SELECT pg_llm_shared_remove('tiny')")
        with pytest.raises(errors.InsufficientPrivilege), conn.transaction():
            conn.execute("SELECT pg_llm_shared_forget('tiny')")
        assert value(conn, "SELECT llm_release()") >= 0
    assert len(files(conn)) == 1
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL ROLE llm_trainer")
        assert value(conn, "SELECT llm_release(shared => true)") > 0
    assert files(conn) == []
    assert logits(reader) == expected  # with what it has mapped, for the last time
    assert logits(reader) == expected
    assert len(files(conn)) == 1


def test_row_policies_decide_on_release(conn: Connection) -> None:
    make_model(conn)
    logits(conn)
    try:
        conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
        conn.execute("CREATE POLICY everybody_reads ON llm_param FOR SELECT USING (true)")
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL ROLE llm_trainer")
            with pytest.raises(errors.InsufficientPrivilege, match="row-level security"), conn.transaction():
                conn.execute("SELECT llm_release(shared => true)")
        assert len(files(conn)) == 1
        conn.execute("CREATE POLICY tiny_is_theirs ON llm_param FOR UPDATE USING (model = 'tiny')")
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL ROLE llm_trainer")
            conn.execute("SELECT llm_release(shared => true)")
        assert files(conn) == []
    finally:
        conn.execute("DROP POLICY IF EXISTS everybody_reads ON llm_param")
        conn.execute("DROP POLICY IF EXISTS tiny_is_theirs ON llm_param")
        conn.execute("ALTER TABLE llm_param DISABLE ROW LEVEL SECURITY")


def test_a_dropped_models_files_go_with_the_commit(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    make_model(conn, "other")
    logits(conn)
    logits(conn, "other")
    assert len(files(conn)) == 2
    dropping = connect(autocommit=False)
    dropping.execute("SELECT llm_drop_model('tiny')")
    assert len(files(conn)) == 2
    dropping.rollback()
    assert len(files(conn)) == 2
    dropping.execute("SAVEPOINT a")
    dropping.execute("SELECT llm_drop_model('other')")
    dropping.execute("ROLLBACK TO SAVEPOINT a")
    dropping.execute("SELECT llm_drop_model('tiny')")
    dropping.commit()
    assert [row[0] for row in listed(conn)] == ["other"]
    assert len(files(conn)) == 1
    conn.execute("SELECT llm_release(shared => true)")


def test_a_renamed_models_files_go(conn: Connection) -> None:
    make_model(conn)
    expected = logits(conn)
    conn.execute("SELECT llm_rename_model('tiny', 'small')")
    assert files(conn) == []
    assert logits(conn, "small") == expected
    assert listed(conn) == [("small", "float32", True)]


def test_who_may_only_delete_drops_a_model(conn: Connection) -> None:
    """Where policies are, nobody but those who may update rows removes files; the model goes all the same."""
    make_model(conn)
    logits(conn)
    conn.execute("DROP ROLE IF EXISTS llm_test_dropper")
    conn.execute("CREATE ROLE llm_test_dropper")
    try:
        conn.execute("GRANT llm_reader TO llm_test_dropper")
        conn.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO llm_test_dropper")
        conn.execute("GRANT DELETE ON ALL TABLES IN SCHEMA public TO llm_test_dropper")
        conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
        conn.execute("CREATE POLICY all_rows ON llm_param USING (true)")
        conn.execute("SET ROLE llm_test_dropper")
        conn.execute("SELECT llm_drop_model('tiny')")
        conn.execute("RESET ROLE")
        assert value(conn, "SELECT count(*) FROM llm_param WHERE model = 'tiny'") == 0
        assert len(files(conn)) == 1
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP POLICY IF EXISTS all_rows ON llm_param")
        conn.execute("ALTER TABLE llm_param DISABLE ROW LEVEL SECURITY")
        conn.execute("DROP OWNED BY llm_test_dropper")
        conn.execute("DROP ROLE llm_test_dropper")


def test_an_idle_session_lets_go_of_what_is_gone(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect()
    logits(reader)
    assert len(mapped(reader)) == 1
    conn.execute("SELECT llm_release(shared => true)")
    assert len(mapped(reader)) == 1
    reader.execute("SELECT 1")
    assert mapped(reader) == []
    # Within a transaction the version in use stays.
    with reader.transaction():
        before = logits(reader)
        reader.execute("SELECT llm_pin('tiny')")
        conn.execute("SELECT llm_release(shared => true)")
        assert logits(reader) == before
        assert len(mapped(reader)) == 1
    assert mapped(reader) == []


def test_mapped_weights_are_not_the_sessions_memory(conn: Connection, connect: Connect) -> None:
    make_model(conn, "large", d_model=128, vocab=2000, n_positions=64)
    reader, alone = connect(), connect()
    alone.execute("SET pg_llm.shared_dir = ''")
    for session in (reader, alone):
        logits(session, "large")
    bytes_of_weights = value(
        conn, "SELECT sum(octet_length(data::bytea)) FROM llm_param WHERE model = 'large'"
    )
    assert value(alone, "SELECT llm_release()") >= bytes_of_weights
    assert value(reader, "SELECT llm_release()") < bytes_of_weights
    assert mapped(reader) == []


def test_descriptors_are_closed(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect()
    descriptors = Path(f"/proc/{reader.info.backend_pid}/fd")
    if not descriptors.exists():
        pytest.skip("this system does not tell a process's descriptors")
    logits(reader)

    def open_files() -> list[str]:
        return [str(one.readlink()) for one in descriptors.iterdir() if "pgsql_tmp" in str(one.readlink())]

    for _ in range(3):
        train(conn, n_steps=1, lr_max=0.1)
        logits(reader)
        reader.execute("SELECT count(*) FROM llm_shared_version")
    assert open_files() == []
