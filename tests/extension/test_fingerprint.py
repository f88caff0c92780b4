"""Fingerprints of a model's rows: what enters them, how data reaches them, and what they open."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
    assert len(found) == NAME_BYTES
    return found


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
    """Whatever plan brings the rows, pointers are not followed."""
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


# ---- what it opens, and for how long it is the same ----


def test_a_commit_leaves_the_fingerprint_as_it_is(conn: Connection) -> None:
    """A trainer knows again what it wrote."""
    make_trainable(conn)
    with conn.transaction():
        conn.execute("UPDATE llm_param SET step = 1")
        written = fingerprint(conn)
    assert fingerprint(conn) == written == value(conn, "SELECT llm_fingerprint('tiny')")


def test_only_who_was_just_given_a_fingerprint_opens_memory(wide: Connection) -> None:
    """One that named rows when they could be read opens nothing later."""
    wide.execute("SET pg_llm.shared_dir = ''")
    value(wide, "SELECT sum(pg_llm_item(pg_llm_sum(llm_weight('wide', name)))) FROM llm_param")
    known = fingerprint(wide)
    given = f"(SELECT {FINGERPRINT} FROM llm_param)"
    opened = "SELECT pg_llm_arena_open('wide', {}, false)"
    with wide.transaction(force_rollback=True):
        assert value(wide, opened.format(given)) is True
    for query in (f"'\\x{known.hex()}'", "'\\x'", f"substr({given}, 1, 23)", f"{given} || '\\x00'"):
        with wide.transaction(force_rollback=True):
            assert value(wide, opened.format(query)) is False
    with wide.transaction(force_rollback=True):
        assert value(wide, opened.format(given)) is True
        wide.execute("SET LOCAL ROLE llm_reader")
        assert value(wide, opened.format(given)) is False
    # Rows without their data prove nothing.
    without = "(SELECT pg_llm_fingerprint(name, token_id, tableoid, ctid, xmin) FROM llm_param)"
    for _ in range(2):
        with wide.transaction():
            assert value(wide, opened.format(without)) is False
            for row in wide.execute("SELECT name, token_id, data FROM llm_param").fetchall():
                wide.execute("SELECT pg_llm_arena_put('wide', %s, %s, %s, NULL, NULL)", row)
            wide.execute("SELECT pg_llm_arena_seal('wide')")


def test_a_transaction_that_wrote_elsewhere_names_what_it_reads(conn: Connection) -> None:
    make_trainable(conn)
    before = fingerprint(conn)
    with conn.transaction():
        conn.execute("UPDATE llm_dataset SET split = 'train'")
        assert fingerprint(conn) == before


def test_an_older_snapshot_names_its_own_version(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect(autocommit=False)
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    before = fingerprint(reader)
    train(conn, "tiny", 1)
    assert fingerprint(reader) == before
    reader.commit()
    assert fingerprint(reader) != before


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
    names = {fingerprint(conn)}
    for change in LAYOUTS:
        conn.execute(change)
        names.add(fingerprint(conn))
    assert len(names) == 1 + len(LAYOUTS)


def test_a_row_of_what_is_no_ordinary_table(conn: Connection) -> None:
    for oid in ("'llm_step'::regclass", "'pk_llm_param'::regclass"):
        with pytest.raises(errors.WrongObjectType):
            conn.execute(f"SELECT pg_llm_fingerprint('a', 1, {oid}, '(0,1)', '3', '[1]')")
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT pg_llm_fingerprint('a', 1, 1, '(0,1)', '3', '[1]')")
