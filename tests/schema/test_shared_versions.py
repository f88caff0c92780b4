"""One copy of a version's weights per server: who maps which, and that nobody sees another's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from ..support.shared_files import files, listed, logits, mapped, private_logits, version
from ..support.small_models import Connection, make_model, make_names, make_trainable, train
from ..support.tensors import value

Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("no_files_left")


# ---- one copy ----


def test_sessions_map_one_file_and_compute_the_same_bits(conn: Connection, connect: Connect) -> None:
    make_names(conn)
    other, alone = connect(), connect()
    alone.execute("SET pg_llm.shared_dir = ''")
    expected = logits(alone, "names")
    assert logits(conn, "names") == logits(other, "names") == expected
    assert mapped(alone) == []
    assert len(mapped(conn)) == 1
    assert mapped(conn) == mapped(other)
    text = "SELECT llm_generate('em', 20, 1, 5, 0.9, 'names', 7)"
    assert value(conn, text) == value(other, text) == value(alone, text)
    assert listed(conn) == [("names", "float32", True)]
    size = value(conn, "SELECT bytes FROM llm_shared_version")
    assert size == Path(mapped(conn)[0]).stat().st_size


def test_parts_of_a_parameter_are_joined(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    expected = private_logits(connect())
    whole = value(conn, "SELECT data::text FROM llm_param WHERE model = 'tiny' AND name = 'wte.weight'")
    conn.execute(
        """WITH whole AS (
            DELETE FROM llm_param WHERE model = 'tiny' AND name = 'wte.weight' RETURNING data
        )
        INSERT INTO llm_param (model, name, token_id, data)
        SELECT 'tiny', 'wte.weight', begins, pg_llm_slice(data, 0, begins, least(begins + 5, 13))
        FROM whole, unnest('{0,5,10}'::int[]) begins"""
    )
    assert logits(connect()) == expected
    other = connect()
    assert value(other, "SELECT llm_weight('tiny', 'wte.weight')::text") == whole
    assert len(mapped(other)) == 1


@pytest.mark.parametrize("setting", ["bf16", "int8", "int4"])
def test_weights_in_fewer_bits_are_made_of_the_shared_ones(
    conn: Connection, connect: Connect, setting: str
) -> None:
    make_names(conn)
    alone, other = connect(), connect()
    for one in (alone, other):
        one.execute(sql.SQL("SET pg_llm.weights = {}").format(setting))
    alone.execute("SET pg_llm.shared_dir = ''")
    assert logits(other, "names") == logits(alone, "names")
    assert len(mapped(other)) >= 1


def test_what_is_read_from_a_mapping_can_be_kept_and_trained_on(conn: Connection, connect: Connect) -> None:
    """A tensor outlives its version, and who is fed with it does not write to the mapping."""
    make_trainable(conn)
    other = connect()
    before = logits(other)
    other.execute(
        """DO $$
        DECLARE
            w tensor := llm_weight('tiny', 'wpe.weight');
            before text := w::text;
        BEGIN
            PERFORM llm_release();
            PERFORM pg_llm_arena_open('fed', '\\x01', true);
            PERFORM pg_llm_arena_put('fed', 'wpe.weight', 0, w, NULL, NULL);
            w := w + 0;
            PERFORM pg_llm_arena_seal('fed');
            PERFORM pg_llm_arena_discard('fed');
            PERFORM pg_llm_arena_close('fed');
            IF (w * 1)::text IS DISTINCT FROM before THEN
                RAISE 'a weight has changed';
            END IF;
        END $$"""
    )
    train(other, n_steps=2, lr_max=0.1)
    assert logits(other) != before
    assert logits(connect()) == logits(other)


# ---- versions ----


def test_a_new_version_gets_a_file_of_its_own_and_old_ones_go(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect()
    seen = []
    for _ in range(4):
        seen.append(logits(reader))
        train(conn, n_steps=1, lr_max=0.1)
    assert len(set(seen)) == 4
    assert logits(reader) == private_logits(conn)
    assert len(files(conn)) == 2
    assert listed(conn) == [("tiny", "float32", False), ("tiny", "float32", True)]
    assert len(mapped(reader)) <= 2
    value(reader, "SELECT 1")
    assert len(mapped(reader)) == 1


def test_a_snapshot_keeps_its_version(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    before = logits(connect())
    old = connect(autocommit=False)
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT FROM llm_param")
    for _ in range(3):
        train(conn, n_steps=1, lr_max=0.1)
        logits(connect())
    assert logits(old) == before
    old.rollback()
    assert logits(old) == logits(conn) != before


def test_an_update_of_nothing_but_the_time_maps_the_same_numbers(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    before = logits(conn)
    conn.execute("UPDATE llm_param SET updated_at = clock_timestamp() WHERE name = 'wpe.weight'")
    assert logits(conn) == logits(connect()) == before


@pytest.mark.parametrize("command", ["VACUUM FULL llm_param", "CLUSTER llm_param USING pk_llm_param"])
def test_rows_that_move_keep_their_file(conn: Connection, connect: Connect, command: str) -> None:
    make_model(conn)
    before = logits(conn)
    kept = files(conn)
    conn.execute(command.encode())
    other = connect()
    assert logits(other) == before
    assert len(mapped(other)) == 1
    assert files(conn) == kept


def test_weights_that_are_not_committed_are_nobody_elses(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    before = logits(conn)
    kept = files(conn)
    writer = connect(autocommit=False)
    train(writer, n_steps=1, lr_max=0.1)
    changed = logits(writer)
    writer.execute("SAVEPOINT a")
    writer.execute("UPDATE llm_param SET data = data * 2.0 WHERE name = 'wpe.weight'")
    doubled = logits(writer)
    writer.execute("RELEASE SAVEPOINT a")
    assert len({before, changed, doubled, logits(writer)}) == 3
    assert files(conn) == kept
    assert logits(connect()) == before
    writer.execute("SAVEPOINT b")
    writer.execute("UPDATE llm_param SET data = data * 3.0 WHERE name = 'wpe.weight'")
    assert logits(writer) not in {before, changed, doubled}
    writer.execute("ROLLBACK TO SAVEPOINT b")
    assert logits(writer) == doubled
    writer.rollback()
    assert logits(writer) == before
    assert files(conn) == kept


# What makes rows that may yet be rolled back.
OWN = {
    "update": ("UPDATE llm_param SET step = 1 WHERE name = 'ln_f.bias'",),
    "delete and insert": (
        "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM llm_param WHERE name = 'ln_f.bias'",
        "DELETE FROM llm_param WHERE name = 'ln_f.bias'",
        "INSERT INTO llm_param (model, name, token_id, data) SELECT model, name, token_id, data FROM kept",
    ),
    "released savepoint": ("SAVEPOINT a", "UPDATE llm_param SET step = 1", "RELEASE a"),
    "nested savepoint": ("SAVEPOINT a", "SAVEPOINT b", "UPDATE llm_param SET step = 1", "RELEASE b"),
    "block": ("DO $$ BEGIN UPDATE llm_param SET step = 1; EXCEPTION WHEN others THEN RAISE; END $$",),
    "rewrite": ("ALTER TABLE llm_param ADD drawn float DEFAULT random()",),
    "unlogged": ("ALTER TABLE llm_param SET UNLOGGED",),
}


@pytest.mark.parametrize("way", OWN)
def test_what_may_be_rolled_back_has_no_name(fresh_conn: Connection, connect: Connect, way: str) -> None:
    conn = fresh_conn
    make_model(conn, d_model=64)
    other, before = connect(), version(conn)
    assert before is not None
    with conn.transaction():
        with conn.transaction(force_rollback=True):
            for statement in OWN[way]:
                conn.execute(statement)
            assert version(conn) is None
        assert version(conn) == before
        for statement in OWN[way]:
            conn.execute(statement)
        assert version(conn) is None
    after = version(conn)
    assert before != after is not None
    assert version(other) == after


def test_a_transaction_that_moved_or_wrote_elsewhere_shares_what_it_reads(
    fresh_conn: Connection,
) -> None:
    conn = fresh_conn
    make_trainable(conn)
    before = version(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("UPDATE llm_dataset SET split = 'train'")
        conn.execute("CLUSTER llm_param USING pk_llm_param")
        assert version(conn) == before is not None


def test_a_copied_database_has_files_of_its_own(server: Any, fresh_conn: Connection, dbname: str) -> None:
    """Places, transactions and pointers are the same there."""
    make_model(fresh_conn, d_model=64)
    query = "SELECT array_agg((name, ctid, xmin, tableoid)::text ORDER BY name) FROM llm_param"
    original = value(fresh_conn, query)
    fresh_conn.close()
    copy = server.create_database(dbname)
    try:
        with (
            psycopg.connect(server.url(copy), autocommit=True) as theirs,
            psycopg.connect(server.url(dbname), autocommit=True) as ours,
        ):
            assert value(theirs, query) == original
            assert logits(theirs) == logits(ours)
            assert mapped(theirs) != mapped(ours)
            assert len(mapped(theirs)) == len(mapped(ours)) == 1
            assert len(listed(ours)) == 1
            ours.execute("SELECT llm_release(shared => true)")
            assert len(listed(theirs)) == 1
    finally:
        server.drop_database(copy)


def test_what_was_written_in_a_transaction_is_shared_after_it(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    writer = connect(autocommit=False)
    writer.execute("UPDATE llm_param SET data = data * 2.0 WHERE name = 'wpe.weight'")
    inside = logits(writer)
    assert mapped(writer) == []
    writer.commit()
    assert logits(writer) == inside == logits(connect())
    assert len(mapped(writer)) == 1


def test_readers_beside_a_trainer_see_committed_versions_only(conn: Connection, connect: Connect) -> None:
    """Each result belongs to exactly one of them."""
    make_trainable(conn, d_model=32)
    trainer, alone = connect(), connect()
    alone.execute("SET pg_llm.shared_dir = ''")
    committed = {logits(alone)}
    results: list[list[str]] = [[] for _ in range(4)]
    readers = [connect() for _ in results]
    done = threading.Event()

    def read(reader: Connection, into: list[str]) -> None:
        while not done.is_set():
            into.append(logits(reader))

    threads = [threading.Thread(target=read, args=pair) for pair in zip(readers, results, strict=True)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(25):
            train(trainer, n_steps=1, lr_max=0.05)
            committed.add(logits(alone))
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert len(committed) == 26
    assert all(results)
    assert {one for each in results for one in each} <= committed
    assert {logits(reader) for reader in readers} == {logits(alone)}
    assert all(len(mapped(reader)) <= 2 for reader in readers)


def test_a_young_version_is_read_for_oneself_and_exchanged_later(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    reader = connect()
    reader.execute("SET pg_llm.shared_age = '1h'")
    before = logits(reader)
    assert mapped(reader) == []
    assert files(conn) == []
    reader.execute("SET pg_llm.shared_age = 0")
    reader.execute("SELECT llm_release()")
    assert logits(reader) == before
    assert len(mapped(reader)) == 1
    waiting = connect()
    waiting.execute("SELECT llm_release(shared => true)")
    waiting.execute("SET pg_llm.shared_age = '200ms'")
    waiting.execute("UPDATE llm_param SET data = data, updated_at = clock_timestamp() + '1 day'")
    assert logits(waiting) == before
    assert mapped(waiting) == []
    waiting.execute("SELECT pg_sleep(0.3)")
    assert logits(waiting) == before
    assert len(mapped(waiting)) == 1


def test_sharing_that_was_off_goes_on_with_the_next_version(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect()
    reader.execute("SET pg_llm.shared_dir = ''")
    before = logits(reader)
    reader.execute("RESET pg_llm.shared_dir")
    assert logits(reader) == before
    train(conn, n_steps=1, lr_max=0.1)
    assert logits(reader) == private_logits(conn) != before
    assert len(mapped(reader)) == 1


# ---- who may read ----


@pytest.fixture
def guest(conn: Connection) -> str:
    """A role that may call everything and read llm_param; made anew for each test."""
    conn.execute("DROP ROLE IF EXISTS llm_test_mapper")
    conn.execute("CREATE ROLE llm_test_mapper LOGIN")
    return "llm_test_mapper"


def test_a_revoked_privilege_takes_effect_at_the_next_look(
    conn: Connection, connect: Connect, guest: str
) -> None:
    make_model(conn)
    conn.execute(f"GRANT llm_reader TO {guest}".encode())
    expected = logits(conn)
    reader = connect(user=guest)
    try:
        assert logits(reader) == expected
        assert len(mapped(reader)) == 1
        conn.execute(f"REVOKE llm_reader FROM {guest}".encode())
        for session in (reader, connect(user=guest)):
            with pytest.raises(errors.InsufficientPrivilege):
                logits(session)
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute("SELECT * FROM llm_shared_version")
    finally:
        conn.execute(f"DROP OWNED BY {guest}".encode())


def test_a_role_without_the_column_maps_nothing(conn: Connection, connect: Connect, guest: str) -> None:
    make_model(conn)
    expected = logits(conn)
    try:
        conn.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {guest}".encode())
        conn.execute(
            f"GRANT SELECT ON llm_model_config, llm_adapter, llm_arch, llm_shared_version TO {guest}".encode()
        )
        columns = "model, name, token_id, tableoid, ctid, xmin"
        conn.execute(f"GRANT SELECT ({columns}) ON llm_param TO {guest}".encode())
        reader = connect(user=guest)
        for call in ("llm_pin('tiny')", "llm_logits('{1,2,3}', 'tiny')", "pg_llm_shared_versions()"):
            with pytest.raises(errors.InsufficientPrivilege):
                reader.execute(f"SELECT {call}".encode())
        with reader.transaction():
            assert value(reader, "SELECT pg_llm_arena_open('tiny', '\\x00', false)") is False
            with pytest.raises(errors.InsufficientPrivilege), reader.transaction():
                reader.execute("SELECT pg_llm_shared_open('tiny')")
        assert mapped(reader) == []
        # Without the time of a change, which nobody needs who reads.
        conn.execute(f"GRANT SELECT (data) ON llm_param TO {guest}".encode())
        assert logits(reader) == expected
        assert len(mapped(reader)) == 1
    finally:
        conn.execute(f"DROP OWNED BY {guest}".encode())


def test_a_row_policy_names_another_version(conn: Connection, connect: Connect, guest: str) -> None:
    make_model(conn)
    make_model(conn, "hidden")
    expected = logits(conn)
    logits(conn, "hidden")
    conn.execute(f"GRANT llm_reader TO {guest}".encode())
    try:
        conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
        conn.execute(
            "CREATE POLICY part ON llm_param FOR SELECT"
            " USING (model = 'tiny' AND name <> current_setting('my.name'))"
        )
        reader = connect(user=guest)
        reader.execute("SET my.name = 'wpe.weight'")
        with pytest.raises(errors.NoDataFound, match=r"lacks parameter .wpe\.weight."):
            logits(reader)
        with pytest.raises(errors.NoDataFound, match="has no weights"):
            logits(reader, "hidden")
        assert {row[0] for row in listed(reader)} == {"tiny"}
        assert not any("hidden" in path for path in mapped(reader))
        reader.execute("SET my.name = ''")
        assert logits(reader) == expected
        assert [row for row in listed(reader) if row[2]] == [("tiny", "float32", True)]
    finally:
        conn.execute("ALTER TABLE llm_param DISABLE ROW LEVEL SECURITY")
        conn.execute("DROP POLICY part ON llm_param")
        conn.execute(f"DROP OWNED BY {guest}".encode())


def test_a_forged_fingerprint_plants_nothing(conn: Connection, connect: Connect) -> None:
    """Numbers that a session feeds for itself reach no file, whatever it calls their version."""
    make_model(conn)
    expected = private_logits(conn)
    forger = connect()
    fingerprint = value(forger, "SELECT llm_fingerprint('tiny')")
    with forger.transaction():
        forger.execute("SET LOCAL pg_llm.shared_age = '1h'")
        assert value(forger, "SELECT pg_llm_arena_open('tiny', %s, false)", (fingerprint,)) is False
        assert value(forger, "SELECT pg_llm_shared_open('tiny')") is False
        forger.execute(
            "SELECT pg_llm_arena_put(model, name, token_id, data * 2.0, NULL, NULL)"
            " FROM llm_param WHERE model = 'tiny'"
        )
        forger.execute("SELECT pg_llm_arena_seal('tiny')")
        forger.execute("SET LOCAL pg_llm.shared_age = 0")
        forger.execute("SELECT pg_llm_arena_close('tiny')")
    logits(forger)
    forger.execute("SELECT llm_release()")
    assert logits(forger) == logits(conn) == logits(connect()) == expected
