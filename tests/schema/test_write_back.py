"""Writing a model back many times: the table holds the bits that memory held, and its size stays bounded."""

from __future__ import annotations

from typing import Any

import psycopg

from ..amount import extended
from ..conftest import Connect
from ..support.small_models import make_model, make_trainable, train, weights
from ..support.tensors import value
from ..support.waiting import vacuum, wait_for

Connection = psycopg.Connection[Any]

WRITE_BACKS = 8


def toast_bytes(conn: Connection) -> int:
    """Of llm_param's TOAST table, its index included."""
    size = value(
        conn, "SELECT pg_total_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'llm_param'::regclass"
    )
    assert isinstance(size, int)
    return size


def rows_unlike_memory(conn: Connection, model: str) -> list[tuple[str, int]]:
    """Parts whose stored data, m or v differ in any bit from the version that the session holds."""
    with conn.transaction():
        conn.execute("SELECT llm_pin(%s, true)", (model,))
        found = conn.execute(
            """SELECT name, token_id FROM llm_param
            WHERE model = %s AND (data::bytea, m::bytea, v::bytea) IS DISTINCT FROM (
                pg_llm_arena_data(model, name, token_id)::bytea, pg_llm_arena_m(model, name, token_id)::bytea,
                pg_llm_arena_v(model, name, token_id)::bytea)""",
            (model,),
        ).fetchall()
        conn.execute("SELECT pg_llm_arena_close(%s)", (model,))
    return found


def test_the_same_bits_after_many_write_backs(fresh_conn: Connection, connect: Connect) -> None:
    """One run of eight steps, and eight of one that sessions take in turn, each from what the last stored."""
    conn = fresh_conn
    arguments = {"seed": 3, "start_step": 1, "total_steps": WRITE_BACKS, "lr_max": 0.01, "warmup": 2}
    # From tensors of one chunk to an embedding of four hundred.
    sizes = {"d_model": 64, "n_layer": 1, "vocab": 3001}
    make_trainable(conn, "whole", **sizes)
    make_trainable(conn, "pieces", **sizes)
    train(conn, "whole", WRITE_BACKS, **arguments)
    sessions = [conn, connect(), connect()]
    for step in range(WRITE_BACKS):
        session = sessions[step % len(sessions)]
        train(session, "pieces", 1, **arguments)
        assert rows_unlike_memory(session, "pieces") == []
    assert weights(conn, "pieces") == weights(conn, "whole")
    assert value(conn, "SELECT min(step) FROM llm_param WHERE model = 'pieces'") == WRITE_BACKS


def test_an_undone_write_back_leaves_the_bits(fresh_conn: Connection, connect: Connect) -> None:
    conn = fresh_conn
    make_trainable(conn, d_model=64, vocab=1001)
    train(conn, n_steps=1)
    before = weights(conn)
    for _ in range(3):
        with conn.transaction(force_rollback=True):
            train(conn, n_steps=1)
            assert weights(conn) != before
            assert weights(connect()) == before
        assert weights(conn) == before
    assert rows_unlike_memory(conn, "tiny") == []


def test_size_is_bounded_over_many_write_backs(fresh_conn: Connection) -> None:
    """Where vacuum keeps up, a write-back fills the space that the last one left: two versions, no more."""
    conn = fresh_conn
    conn.execute("ALTER TABLE llm_param SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)")
    make_trainable(conn, d_model=64, vocab=8009)
    train(conn, n_steps=1)
    live = value(
        conn, "SELECT sum(pg_column_size(data) + pg_column_size(m) + pg_column_size(v)) FROM llm_param"
    )
    sizes = []
    for _ in range(WRITE_BACKS):
        vacuum(conn)
        train(conn, n_steps=1)
        sizes.append(toast_bytes(conn))
    assert live < sizes[-1] < 2.5 * float(live)
    assert sizes[-1] <= 1.05 * sizes[1]


@extended
def test_vacuum_starts_after_each_write_back(fresh_conn: Connection) -> None:
    """By itself, also when other models have twenty times as many weights."""
    conn = fresh_conn
    make_model(conn, "large", d_model=512, vocab=10007)
    make_trainable(conn, d_model=64, vocab=3001)
    train(conn, n_steps=1)
    # Because of what is dead, not of what is new.
    conn.execute("ALTER TABLE llm_param SET (toast.autovacuum_vacuum_insert_threshold = -1)")
    conn.execute("VACUUM ANALYZE llm_param")
    counted = (
        "SELECT autovacuum_count FROM pg_stat_all_tables"
        " WHERE relid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'llm_param'::regclass)"
    )
    conn.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    conn.execute("SELECT pg_reload_conf()")
    try:
        sizes = []
        for _ in range(3):
            before = value(conn, counted)
            train(conn, n_steps=1)
            conn.execute("SELECT pg_stat_force_next_flush()")
            wait_for(lambda before=before: value(conn, counted) > before, "autovacuum", pause=0.1)
            sizes.append(toast_bytes(conn))
    finally:
        conn.execute("ALTER SYSTEM RESET autovacuum_naptime")
        conn.execute("SELECT pg_reload_conf()")
    live = value(
        conn,
        "SELECT sum(pg_column_size(data) + pg_column_size(m) + pg_column_size(v)) FROM llm_param"
        " WHERE model = 'tiny'",
    )
    assert sizes[-1] - sizes[0] < 1.5 * float(live)


def test_vacuum_of_weights_is_prompt_and_leaves_the_file(fresh_conn: Connection) -> None:
    """What bounds the size on a server whose vacuum runs by itself, for the TOAST table as for llm_param."""
    rows = fresh_conn.execute(
        """SELECT c.relkind::text, o.option_name, o.option_value::float8
        FROM pg_class p
        JOIN pg_class c ON c.oid IN (p.oid, p.reltoastrelid)
        CROSS JOIN LATERAL pg_options_to_table(c.reloptions) o
        WHERE p.oid = 'llm_param'::regclass AND o.option_name LIKE 'autovacuum%'"""
    ).fetchall()
    options = {(kind, name): number for kind, name, number in rows}
    for kind in "rt":
        assert options[kind, "autovacuum_vacuum_scale_factor"] == 0
        assert options[kind, "autovacuum_vacuum_threshold"] <= 1000
        assert options[kind, "autovacuum_vacuum_cost_delay"] == 0
