"""Fingerprints of a model's rows: what enters them, how data reaches them, and their public half."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import Connection, make_model, make_trainable, train
from ..support.tensors import value

Connect = Callable[..., Connection]

NAME_BYTES = 24
FINGERPRINT = "pg_llm_fingerprint(name, token_id, tableoid, ctid, xmin, data)"


@pytest.fixture
def wide(conn: Connection) -> Connection:
    """A model whose larger rows lie in TOAST and whose smaller ones do not."""
    make_model(conn, "wide", d_model=64, n_positions=16, vocab=40)
    kinds = "SELECT count(*) FILTER (WHERE octet_length(data::bytea) {} 2000) FROM llm_param"
    assert value(conn, kinds.format(">")) > 0
    assert value(conn, kinds.format("<")) > 0
    return conn


def fingerprint(conn: Connection, source: str = "llm_param") -> bytes:
    found = value(conn, f"SELECT {FINGERPRINT} FROM {source} AS p")
    assert isinstance(found, bytes)
    assert len(found) == 2 * NAME_BYTES
    return found


def public(conn: Connection) -> str | None:
    """The name that other sessions may know."""
    name, whole = conn.execute(
        f"SELECT pg_llm_public_name(f), f FROM (SELECT {FINGERPRINT} AS f FROM llm_param OFFSET 0) AS q"
    ).fetchone()  # type: ignore[misc]
    assert name in (None, whole[NAME_BYTES:].hex())
    return name  # type: ignore[no-any-return]


def run(conn: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        conn.execute(statement)


# ---- how data reaches the aggregate ----

ALL = "SELECT name, token_id, tableoid, ctid, xmin, data FROM llm_param"
SOURCES = {
    "subquery": f"({ALL})",
    "sorted": f"({ALL} ORDER BY name DESC, token_id OFFSET 0)",
    "materialized": f"(WITH a AS MATERIALIZED ({ALL}) SELECT * FROM a)",
    "materialized twice": f"(WITH a AS MATERIALIZED ({ALL}) SELECT * FROM a WHERE name < 'h' UNION ALL SELECT * FROM a WHERE NOT name < 'h')",  # noqa: E501
    "joined": "(SELECT a.name, a.token_id, a.tableoid, a.ctid, a.xmin, a.data FROM llm_param AS a"
    " JOIN (SELECT name, token_id FROM llm_param OFFSET 0) AS b USING (name, token_id))",
    "lateral": f"(SELECT q.* FROM (SELECT DISTINCT model FROM llm_param) AS m CROSS JOIN LATERAL ({ALL} AS p WHERE p.model = m.model OFFSET 0) AS q)",  # noqa: E501
    "conditional": "(SELECT name, token_id, tableoid, ctid, xmin, CASE WHEN name <> '' THEN coalesce(data, m) END AS data FROM llm_param)",  # noqa: E501
    "locked": f"({ALL} FOR UPDATE)",
}  # fmt: skip
PLANS = {
    "as it comes": (),
    "index": ("SET LOCAL enable_seqscan = off", "SET LOCAL enable_bitmapscan = off"),
    "bitmap": ("SET LOCAL enable_seqscan = off", "SET LOCAL enable_indexscan = off"),
    "hash": ("SET LOCAL enable_nestloop = off", "SET LOCAL enable_mergejoin = off"),
    "merge": ("SET LOCAL enable_nestloop = off", "SET LOCAL enable_hashjoin = off"),
    "spilled": ("SET LOCAL work_mem = '64kB'",),
    "parallel": (
        "SET LOCAL parallel_setup_cost = 0",
        "SET LOCAL parallel_tuple_cost = 0",
        "SET LOCAL min_parallel_table_scan_size = 0",
    ),
}


@pytest.mark.parametrize("plan", PLANS)
def test_data_arrives_as_it_is_stored(wide: Connection, plan: str) -> None:
    """Whatever plan brings the rows, pointers are not followed; so all sessions agree on the public name."""
    plain = fingerprint(wide)
    wide.execute("CREATE OR REPLACE VIEW seen AS " + ALL)
    with wide.transaction(force_rollback=True):
        run(wide, PLANS[plan])
        for source in SOURCES.values():
            assert fingerprint(wide, source) == plain, source
        assert fingerprint(wide, "seen") == plain


def test_nothing_is_fetched_from_toast(wide: Connection) -> None:
    """Not one page of the TOAST table is asked for."""
    wide.execute("UPDATE llm_param SET data = pg_llm_full('{100000}', 1) WHERE name = 'wte.weight'")
    toast = "SELECT reltoastrelid FROM pg_class WHERE oid = 'llm_param'::regclass"
    pages = f"SELECT pg_stat_get_xact_blocks_fetched(({toast}))"
    for query, fetched in (
        (f"SELECT {FINGERPRINT} FROM llm_param", False),
        ("SELECT sum(norm(data)) FROM llm_param", True),
    ):
        with wide.transaction():
            before = value(wide, pages)
            wide.execute(query)
            assert (value(wide, pages) > before) is fetched


def test_content_counts_however_it_is_packed(conn: Connection) -> None:
    """A short or long header, compressed or not, a tensor in memory: the same content is the same data."""
    sample = "pg_llm_full('{{{}}}', 1)"
    conn.execute("CREATE TABLE packed (id int, data tensor)")
    fixed = "pg_llm_fingerprint('a', 1, 'llm_param'::regclass, '(0,1)', '3', {})"
    for storage in ("EXTERNAL", "MAIN", "PLAIN", "EXTENDED"):
        conn.execute(f"ALTER TABLE packed ALTER data SET STORAGE {storage}")
        for n in (1, 10, 25, 100, 400) if storage == "EXTERNAL" else (1, 10, 25, 100, 400, 1000):
            conn.execute("TRUNCATE packed")
            conn.execute(f"INSERT INTO packed VALUES (1, {sample.format(n)})")
            stored = value(conn, f"SELECT {fixed.format('data')} FROM packed")
            computed = value(conn, f"SELECT {fixed.format(sample.format(n))}")
            in_memory = value(conn, f"SELECT {fixed.format('data + 0.0::double precision')} FROM packed")
            other = value(conn, f"SELECT {fixed.format(f'pg_llm_full($${{{n}}}$$, 2)')}")
            assert stored == computed == in_memory != other, (storage, n)
    conn.execute("ALTER TABLE packed ALTER data SET STORAGE EXTERNAL")
    conn.execute("TRUNCATE packed")
    conn.execute(f"INSERT INTO packed SELECT i, {sample.format(1000)} FROM generate_series(1, 2) AS i")
    pointers = conn.execute(f"SELECT {fixed.format('data')} FROM packed GROUP BY id").fetchall()
    fetched = conn.execute(
        f"SELECT {fixed.format('data + 0.0::double precision')} FROM packed GROUP BY id"
    ).fetchall()
    assert pointers[0] != pointers[1]
    assert fetched[0] == fetched[1] not in pointers
    conn.execute("DROP TABLE packed")


def test_data_of_records_and_variables_is_content(wide: Connection) -> None:
    """PL/pgSQL fetches the data of its records: it is content then, and the name another, never an error."""
    wide.execute(
        f"""CREATE OR REPLACE FUNCTION pg_temp.looped() RETURNS bytea LANGUAGE plpgsql AS $$
        DECLARE one record; all_of llm_param[]; found bytea;
        BEGIN
            FOR one IN {ALL} LOOP
                found := pg_llm_fingerprint(
                    one.name, one.token_id, one.tableoid, one.ctid, one.xmin, one.data
                );
            END LOOP;
            SELECT array_agg(p) INTO all_of FROM llm_param AS p;
            RETURN (SELECT pg_llm_fingerprint(u.name, u.token_id, 'llm_param'::regclass, '(0,1)', '3', u.data)
                FROM unnest(all_of) AS u);
        END $$"""
    )
    looped = value(wide, "SELECT pg_temp.looped()")
    assert looped == value(
        wide,
        "SELECT pg_llm_fingerprint(name, token_id, 'llm_param'::regclass, '(0,1)', '3', data + 0.0::double precision)"  # noqa: E501
        " FROM llm_param",
    )


def test_rows_with_a_null_do_not_count(wide: Connection) -> None:
    plain = fingerprint(wide)
    assert fingerprint(wide, f"({ALL} UNION ALL SELECT 'a', 1, 1, '(0,1)', '3', NULL)") == plain
    for arguments in (
        "name, token_id, tableoid, ctid, xmin, NULL::tensor",
        "NULL, token_id, tableoid, ctid, xmin, data",
    ):
        assert value(wide, f"SELECT pg_llm_fingerprint({arguments}) FROM llm_param") is None
    assert value(wide, f"SELECT {FINGERPRINT} FROM llm_param WHERE false") is None
    assert value(wide, "SELECT llm_fingerprint('nobody')") is None
    assert value(wide, "SELECT llm_fingerprint(NULL)") is None


def test_a_window_asks_again_and_again(wide: Connection) -> None:
    rows = wide.execute(f"SELECT {FINGERPRINT} OVER (ORDER BY name, token_id) FROM llm_param").fetchall()
    assert len({row[0] for row in rows}) == len(rows)
    assert rows[-1][0] == fingerprint(wide)


def test_every_argument_counts(wide: Connection) -> None:
    plain = fingerprint(wide)
    for change in (
        "upper(name), token_id, tableoid, ctid, xmin, data",
        "name, token_id + 1, tableoid, ctid, xmin, data",
        "name, token_id, 'llm_dataset'::regclass, ctid, xmin, data",
        "name, token_id, tableoid, '(0,1)', xmin, data",
        "name, token_id, tableoid, ctid, '3', data",
        "name, token_id, tableoid, ctid, xmin, data + 0.0::double precision",
    ):
        assert value(wide, f"SELECT pg_llm_fingerprint({change}) FROM llm_param") != plain
    assert fingerprint(wide, f"({ALL} OFFSET 1)") != plain
    assert fingerprint(wide, f"({ALL} UNION ALL ({ALL} LIMIT 1))") != plain


# ---- the public name ----


def test_sessions_agree_on_the_public_name_only(wide: Connection, connect: Connect) -> None:
    mine, others = fingerprint(wide), fingerprint(connect())
    assert mine[:NAME_BYTES] != others[:NAME_BYTES]
    assert mine[NAME_BYTES:] == others[NAME_BYTES:] != mine[:NAME_BYTES]
    assert value(wide, "SELECT llm_fingerprint('wide')") == mine


# What makes rows that may yet be rolled back.
OWN = {
    "update": ("UPDATE llm_param SET step = 1 WHERE name = 'ln_f.bias'",),
    "delete and insert": (
        "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM llm_param WHERE name = 'ln_f.bias'",
        "DELETE FROM llm_param WHERE name = 'ln_f.bias'",
        "INSERT INTO llm_param (model, name, token_id, data) SELECT model, name, token_id, data FROM kept",
    ),
    "released savepoint": ("SAVEPOINT a", "UPDATE llm_param SET step = 1 WHERE name = 'ln_f.bias'", "RELEASE a"),  # noqa: E501
    "nested savepoint": ("SAVEPOINT a", "SAVEPOINT b", "UPDATE llm_param SET step = 1 WHERE name = 'ln_f.bias'", "RELEASE b"),  # noqa: E501
    "block": ("DO $$ BEGIN UPDATE llm_param SET step = 1 WHERE name = 'ln_f.bias';"
              " EXCEPTION WHEN others THEN RAISE; END $$",),
    "rewrite": ("ALTER TABLE llm_param ADD drawn float DEFAULT random()",),
    "cluster": ("CLUSTER llm_param USING pk_llm_param",),
    "unlogged": ("ALTER TABLE llm_param SET UNLOGGED",),
}  # fmt: skip


@pytest.mark.parametrize("way", OWN)
def test_what_may_be_rolled_back_has_no_public_name(
    fresh_conn: Connection, connect: Connect, way: str
) -> None:
    conn = fresh_conn
    make_model(conn, "wide", d_model=64)
    other, before = connect(), public(conn)
    with conn.transaction(force_rollback=True):
        assert public(conn) == before
        run(conn, OWN[way])
        assert public(conn) is None
    assert public(conn) == before
    with conn.transaction():
        with conn.transaction(force_rollback=True):
            run(conn, OWN[way])
            assert public(conn) is None
        assert public(conn) == before
        run(conn, OWN[way])
        assert public(conn) is None
    after = public(conn)
    assert before != after
    assert public(other) == after is not None


def test_a_commit_leaves_the_fingerprint_as_it_is(conn: Connection) -> None:
    """A trainer knows again what it wrote."""
    make_trainable(conn)
    with conn.transaction():
        conn.execute("UPDATE llm_param SET step = 1")
        written = fingerprint(conn)
        assert public(conn) is None
    assert fingerprint(conn) == written
    assert public(conn) is not None


def test_only_who_was_just_given_a_fingerprint_has_its_name(wide: Connection, connect: Connect) -> None:
    known = fingerprint(wide)
    given = f"(SELECT {FINGERPRINT} FROM llm_param)"
    for session in (wide, connect()):
        for query in (f"'\\x{known.hex()}'", "'\\x'", f"substr({given}, 1, 24)", f"{given} || '\\x00'"):
            assert value(session, f"SELECT pg_llm_public_name({query})") is None
        assert value(session, f"SELECT pg_llm_public_name({given})") == known[NAME_BYTES:].hex()
    with wide.transaction():
        assert value(wide, f"SELECT pg_llm_public_name({given})") is not None
        wide.execute("SET LOCAL ROLE llm_reader")
        assert value(wide, f"SELECT pg_llm_public_name('\\x{known.hex()}')") is None


def test_a_transaction_that_wrote_elsewhere_names_what_it_reads(conn: Connection) -> None:
    make_trainable(conn)
    before = public(conn)
    with conn.transaction():
        conn.execute("UPDATE llm_dataset SET split = 'train'")
        assert public(conn) == before


def test_an_older_snapshot_names_its_own_version(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect(autocommit=False)
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    before = public(reader)
    train(conn, "tiny", 1)
    assert public(reader) == before != public(conn)
    reader.commit()
    assert public(reader) == public(conn)


LAYOUTS = (
    "ALTER TABLE llm_param RENAME grad TO gradient",
    "ALTER TABLE llm_param ADD extra int",
    "ALTER TABLE llm_param DROP extra",
    "ALTER TABLE llm_param ADD extra int",
    "ALTER TABLE llm_param RENAME m TO moment",
    "ALTER TABLE llm_param RENAME v TO m",
    "VACUUM FULL llm_param",
    "CLUSTER llm_param USING pk_llm_param",
)


def test_the_same_pointers_in_another_layout_are_another_version(fresh_conn: Connection) -> None:
    conn = fresh_conn
    make_model(conn, "wide", d_model=64)
    names = {public(conn)}
    for change in LAYOUTS:
        conn.execute(change)
        names.add(public(conn))
    assert len(names) == 1 + len(LAYOUTS)
    assert None not in names


def test_a_copied_database_has_names_of_its_own(server: Any, fresh_conn: Connection, dbname: str) -> None:
    """Places, transactions and pointers are the same there."""
    make_model(fresh_conn, "wide", d_model=64)
    query = (
        f"SELECT array_agg((name, ctid, xmin, tableoid)::text ORDER BY name), {FINGERPRINT} FROM llm_param"
    )
    original = fresh_conn.execute(query).fetchone()
    fresh_conn.close()
    copy = server.create_database(dbname)
    try:
        with psycopg.connect(server.url(copy)) as conn:
            copied = conn.execute(query).fetchone()
        with psycopg.connect(server.url(dbname)) as conn:
            again = conn.execute(query).fetchone()
    finally:
        server.drop_database(copy)
    assert original is not None
    assert copied is not None
    assert again is not None
    assert copied[0] == original[0]
    assert again[1][NAME_BYTES:] == original[1][NAME_BYTES:] != copied[1][NAME_BYTES:]


def test_a_row_of_what_is_no_ordinary_table(conn: Connection) -> None:
    for oid in ("'llm_step'::regclass", "'pk_llm_param'::regclass"):
        with pytest.raises(errors.WrongObjectType):
            conn.execute(f"SELECT pg_llm_fingerprint('a', 1, {oid}, '(0,1)', '3', '[1]')")
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT pg_llm_fingerprint('a', 1, 1, '(0,1)', '3', '[1]')")
