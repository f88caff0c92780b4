"""What PostgreSQL runs under a path of its own: materialized views, maintenance, dumps and restores."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from ..support.small_models import make_names
from ..support.tensors import value

Connection = psycopg.Connection[Any]


def test_materialized_views_of_embeddings(conn: Connection) -> None:
    make_names(conn)
    conn.execute("CREATE TABLE d (id int, t text)")
    conn.execute("INSERT INTO d VALUES (1, 'emma'), (2, 'olivia')")
    conn.execute("CREATE MATERIALIZED VIEW m AS SELECT id, llm_embed_text(t, model => 'names') AS e FROM d")
    before = conn.execute("SELECT id, e::text FROM m ORDER BY id").fetchall()
    conn.execute("CREATE UNIQUE INDEX ON m (id)")
    for refresh in ("REFRESH MATERIALIZED VIEW m", "REFRESH MATERIALIZED VIEW CONCURRENTLY m"):
        conn.execute("INSERT INTO d VALUES ((SELECT max(id) + 1 FROM d), 'ava')")
        conn.execute(refresh)
    assert value(conn, "SELECT count(*) FROM m") == 4
    assert conn.execute("SELECT id, e::text FROM m WHERE id < 3 ORDER BY id").fetchall() == before
    conn.execute("DROP MATERIALIZED VIEW m")
    conn.execute("DROP TABLE d")


def test_indexes_on_expressions(conn: Connection) -> None:
    """Built, analysed, vacuumed and rebuilt by maintenance, which finds no name in public."""
    conn.execute("CREATE TABLE kept (x tensor, name text)")
    conn.execute(
        "INSERT INTO kept SELECT pg_llm_normal('{4}', 0, 1, 1, i), 'h.' || i FROM generate_series(1, 50) i"
    )
    conn.execute("CREATE INDEX kept_norm ON kept (norm(x))")
    conn.execute("CREATE INDEX kept_x ON kept (x)")
    conn.execute("CREATE INDEX kept_like ON kept (pg_llm_zeros_like(x)) WHERE x > '[0,0,0,0]'")
    conn.execute("CREATE INDEX kept_name ON kept (llm_file_name(name))")
    conn.execute("CREATE STATISTICS kept_s ON norm(x), llm_file_name(name) FROM kept")
    for statement in (
        "ANALYZE kept",
        "VACUUM FULL ANALYZE kept",
        "REINDEX TABLE kept",
        "REINDEX TABLE CONCURRENTLY kept",
        "CLUSTER kept USING kept_norm",
    ):
        conn.execute(statement)
    conn.execute("SET enable_seqscan = off")
    assert value(conn, "SELECT count(*) FROM kept WHERE norm(x) > 0") == 50
    conn.execute("RESET enable_seqscan")
    conn.execute("DROP TABLE kept")


def test_a_dump_restores(server: Any, fresh_conn: Connection, fresh_database: str) -> None:
    make_names(fresh_conn)
    fresh_conn.execute("SELECT llm_train('names', 1, log_every => 0)")
    fresh_conn.execute("CREATE MATERIALIZED VIEW m AS SELECT llm_embed_text('emma', model => 'names') AS e")
    fresh_conn.execute("CREATE TABLE kept (x tensor DEFAULT '[1,2]', CHECK (x <> '[0,0]' AND norm(x) > 0))")
    fresh_conn.execute("INSERT INTO kept DEFAULT VALUES")
    fresh_conn.execute("CREATE INDEX ON kept (norm(x))")
    declared = Jsonb({"rate": {"type": "number", "default": 0.5}})
    fresh_conn.execute(
        "INSERT INTO llm_arch (arch, forward, parameters, kind, settings) VALUES"
        " ('own', 'public.llm_forward_gpt2', 'public.llm_parameters_gpt2', 'encoder', %s)",
        (declared,),
    )
    create = "SELECT llm_create_model('own', 'own', 1, 1, 4, 4, 5, settings => %s)"
    fresh_conn.execute(create, (Jsonb({"rate": 0.25}),))
    programs = Path(value(fresh_conn, "SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    dump = subprocess.run(
        [programs / "pg_dump", server.url(fresh_database)], capture_output=True, text=True, check=True
    ).stdout
    name = server.create_database()
    try:
        restored = subprocess.run(
            [programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", server.url(name)],
            input=dump,
            capture_output=True,
            text=True,
            check=False,
        )
        assert restored.returncode == 0, restored.stderr
        text = "SELECT llm_generate('e', 6, seed => 1, model => 'names'), (SELECT e::text FROM m)"
        with psycopg.connect(server.url(name), autocommit=True) as other:
            assert other.execute(text).fetchall() == fresh_conn.execute(text).fetchall()
            rate = "SELECT (llm_config('own')).settings, count(*) FROM llm_parameters('own')"
            assert other.execute(rate).fetchall() == fresh_conn.execute(rate).fetchall()
            assert other.execute(rate).fetchall()[0][0] == {"rate": 0.25}
            assert other.execute(
                "SELECT has_function_privilege('llm_reader', 'pg_llm_release()', 'EXECUTE')"
            ).fetchall()
    finally:
        server.drop_database(name)
