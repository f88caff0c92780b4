"""Warm memory shows a role what the tables would show it, and takes nothing from other roles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from psycopg import errors

from ..support.small_models import Connection, make_names
from ..support.tensors import value

Connect = Callable[..., Connection]

SECRET = "$$VALUES ('secretword secretword secretword')$$"


@pytest.fixture
def reader(fresh_conn: Connection, connect: Connect) -> Iterator[Connection]:
    """A login in llm_reader, in a database with a BPE tokenizer `bpe` and a character model `names`."""
    fresh_conn.execute("DROP ROLE IF EXISTS llm_test_reader")
    fresh_conn.execute("CREATE ROLE llm_test_reader LOGIN IN ROLE llm_reader")
    fresh_conn.execute(f"SELECT llm_train_bpe('bpe', {SECRET}, 262)")
    make_names(fresh_conn)
    yield connect(user="llm_test_reader")
    fresh_conn.execute("DROP OWNED BY llm_test_reader")
    fresh_conn.execute("DROP ROLE IF EXISTS llm_test_reader")


def tenancy(conn: Connection, table: str) -> None:
    conn.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    conn.execute(f"CREATE POLICY tenant ON {table} USING (model = current_setting('app.model', true))")


QUERIES = {
    "encode": "SELECT llm_encode('secretword', 'bpe')",
    "decode": "SELECT llm_decode('{259}', 'bpe')",
    "characters": "SELECT llm_encode('emma', 'names')",
    "weight": "SELECT norm(llm_weight('names', 'wte.weight'))",
    "generate": "SELECT llm_generate('em', 3, 0, model => 'names')",
}


@pytest.mark.parametrize("table", ["llm_bpe_vocab", "llm_bpe_merges", "llm_param"])
@pytest.mark.parametrize("name", QUERIES)
def test_policies_hold_for_warm_memory(
    fresh_conn: Connection, reader: Connection, table: str, name: str
) -> None:
    """What a policy shows depends on a setting: every answer is that of a session with cold memory."""
    tenancy(fresh_conn, table)
    model = "bpe" if name in ("encode", "decode") else "names"

    def answer() -> object:
        try:
            return value(reader, QUERIES[name])
        except (errors.UndefinedObject, errors.NoDataFound, errors.DataError) as error:
            return type(error)

    for tenant in (model, "nobody", model, "nobody"):
        reader.execute("SELECT set_config('app.model', %s, false)", (tenant,))
        warm = answer(), answer()
        reader.execute("SELECT llm_release()")
        assert warm == (answer(),) * 2


def test_row_security_off_is_an_error(fresh_conn: Connection, reader: Connection) -> None:
    for table in ("llm_bpe_vocab", "llm_param"):
        tenancy(fresh_conn, table)
    reader.execute("SET app.model = 'bpe'")
    reader.execute("SET row_security = off")
    for query in QUERIES.values():
        with pytest.raises(errors.InsufficientPrivilege):
            reader.execute(query)


def test_a_policy_by_role(fresh_conn: Connection, reader: Connection) -> None:
    """BYPASSRLS, SET ROLE and SECURITY DEFINER: each sees what it may, in one session."""
    fresh_conn.execute("ALTER TABLE llm_bpe_vocab ENABLE ROW LEVEL SECURITY")
    fresh_conn.execute("CREATE POLICY mine ON llm_bpe_vocab USING (current_user <> 'llm_test_reader')")
    fresh_conn.execute(
        "CREATE FUNCTION ids(t text) RETURNS int[] LANGUAGE sql VOLATILE SECURITY DEFINER"
        " AS $$ SELECT llm_encode(t, 'bpe') $$"
    )
    plain = value(fresh_conn, QUERIES["encode"])
    for _ in range(2):
        assert value(reader, "SELECT ids('secretword')") == plain
        with pytest.raises(errors.UndefinedObject):
            reader.execute(QUERIES["encode"])
        assert value(fresh_conn, QUERIES["encode"]) == plain
        fresh_conn.execute("SET ROLE llm_test_reader")
        with pytest.raises(errors.UndefinedObject):
            fresh_conn.execute(QUERIES["encode"])
        fresh_conn.execute("RESET ROLE")


def test_privileges_are_asked_anew(fresh_conn: Connection, reader: Connection) -> None:
    """A right that is taken away, of a table or of one column, ends what memory gives."""
    for query in QUERIES.values():
        reader.execute(query)
    for statement, queries in (
        ("REVOKE SELECT ON llm_bpe_merges FROM llm_reader", ("encode", "decode")),
        ("REVOKE SELECT ON llm_bpe_vocab FROM llm_reader", ("encode", "decode", "characters")),
        (
            "REVOKE SELECT ON llm_param FROM llm_reader;"
            " GRANT SELECT (model, name, token_id, step) ON llm_param TO llm_reader",
            ("weight", "generate"),
        ),
    ):
        fresh_conn.execute(statement)
        for name in queries:
            with pytest.raises(errors.InsufficientPrivilege):
                reader.execute(QUERIES[name])


def test_column_privileges_are_enough(fresh_conn: Connection, reader: Connection) -> None:
    plain = value(fresh_conn, QUERIES["encode"])
    for table in ("llm_bpe_vocab", "llm_bpe_merges"):
        columns = value(
            fresh_conn,
            "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0",
            (table,),
        )
        fresh_conn.execute(f"REVOKE SELECT ON {table} FROM llm_reader")
        fresh_conn.execute(f"GRANT SELECT ({columns}) ON {table} TO llm_reader")
    assert value(reader, QUERIES["encode"]) == plain


def test_a_tokenizer_fed_by_hand_deceives_only_who_fed_it(
    fresh_conn: Connection, connect: Connect, reader: Connection
) -> None:
    fresh_conn.execute(
        "CREATE FUNCTION ids(t text) RETURNS int[] LANGUAGE sql VOLATILE SECURITY DEFINER"
        " AS $$ SELECT llm_encode(t, 'bpe') $$"
    )
    # Whoever may not feed a tokenizer by hand cannot deceive anybody either: the owner does it as the role.
    session = connect()
    session.execute("SET ROLE llm_test_reader")
    plain = value(fresh_conn, QUERIES["encode"])
    with session.transaction():
        handle = value(
            session,
            "SELECT pg_llm_bpe_create('bpe', pg_llm_relation_version('{llm_bpe_vocab,llm_bpe_merges}'))",
        )
        session.execute(
            "SELECT count(pg_llm_bpe_put_token(%s, 7, set_byte('\\x00', 0, i), 0))"
            " FROM generate_series(0, 255) i",
            (handle,),
        )
        session.execute("SELECT pg_llm_bpe_seal(%s)", (handle,))
        assert value(session, "SELECT ids('secretword')") == plain
        session.execute("RESET ROLE")
        assert value(session, QUERIES["encode"]) == plain


def test_the_version_of_whole_tables_is_for_who_sees_them_whole(
    fresh_conn: Connection, reader: Connection
) -> None:
    query = "SELECT pg_llm_relation_version('{llm_bpe_vocab}')"
    assert value(reader, query)
    tenancy(fresh_conn, "llm_bpe_vocab")
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        reader.execute(query)
    with pytest.raises(errors.UndefinedObject):
        reader.execute("SELECT pg_llm_relation_version('{1}')")


# ---- what a role saw once ----

FINGERPRINT = "SELECT pg_llm_fingerprint({}) FROM llm_param WHERE model = 'names'"
# Columns that are left to one who lost `data`.
OPEN_COLUMNS = "model, name, token_id, grad, m, v, step, updated_at, tableoid, ctid, xmin"
FORGERIES = (
    FINGERPRINT.format("name, token_id, tableoid, ctid, xmin"),
    FINGERPRINT.format("name, token_id, tableoid, ctid, xmin, m"),
    FINGERPRINT.format("name, token_id, tableoid, ctid, xmin, '[1]'"),
    FINGERPRINT.format("name, token_id, tableoid, ctid, xmin, NULL::tensor"),
)


def opens(session: Connection, fingerprint: str) -> bool:
    """Whether a fingerprint, computed in the same statement, leads to a version in memory."""
    with session.transaction(force_rollback=True):
        found = value(session, f"SELECT pg_llm_arena_open('names', ({fingerprint}), false)")
        return found is True


def warm(session: Connection) -> str:
    """Memory holds the model; the fingerprint that leads there now, as a literal."""
    session.execute("SELECT llm_weight('names', 'wte.weight')")
    assert opens(session, "llm_fingerprint('names')")
    known = value(session, "SELECT quote_literal(llm_fingerprint('names')) || '::bytea'")
    assert isinstance(known, str)
    return known


def as_values(conn: Connection, data: str) -> str:
    """A query over VALUES that holds all that the rows of the model are known by."""
    rows = conn.execute(
        f"""SELECT format('(%L, %s, %s::oid, %L::tid, %L::xid, %L::tensor)',
            name, token_id, tableoid::oid, ctid, xmin, {data})
        FROM llm_param WHERE model = 'names'"""
    ).fetchall()
    return f"SELECT pg_llm_fingerprint(n, i, t, c, x, d) FROM (VALUES {', '.join(row[0] for row in rows)}) AS v (n, i, t, c, x, d)"  # noqa: E501


def memory_is_closed(session: Connection, known: str, *guesses: str) -> None:
    """Neither what named the rows, nor what is made from the outside of them, nor halves of both, open memory."""  # noqa: E501
    assert not opens(session, known)
    for guess in (*FORGERIES, *guesses):
        assert not opens(session, guess), guess
        assert not opens(session, f"substr(({guess}), 1, 24) || substr({known}, 25)")
        assert not opens(session, f"substr({known}, 1, 24) || substr(({guess}), 25)")


def nothing_is_shown(session: Connection) -> None:
    for query in ("SELECT llm_fingerprint('names')", "SELECT llm_weight('names', 'wte.weight')"):
        with pytest.raises(errors.InsufficientPrivilege), session.transaction():
            session.execute(query)


def test_who_lost_the_column_does_not_reach_memory(fresh_conn: Connection, reader: Connection) -> None:
    fresh_conn.execute("UPDATE llm_param SET m = data")
    known = warm(reader)
    guesses = [as_values(fresh_conn, data) for data in ("'[1]'", "NULL")]
    fresh_conn.execute("REVOKE SELECT ON llm_param FROM llm_reader")
    nothing_is_shown(reader)
    assert not opens(reader, known)
    fresh_conn.execute(f"GRANT SELECT ({OPEN_COLUMNS}) ON llm_param TO llm_test_reader")
    nothing_is_shown(reader)
    memory_is_closed(reader, known, *guesses)
    fresh_conn.execute("GRANT SELECT ON llm_param TO llm_reader")
    assert warm(reader) == known


@pytest.mark.parametrize("together", [True, False])
def test_who_lost_the_column_within_the_session(
    fresh_conn: Connection, reader: Connection, together: bool
) -> None:
    """The superuser's session turns to the reader and back, in one transaction and out of it."""
    conn = fresh_conn
    reader.close()
    with conn.transaction() if together else contextlib.nullcontext():
        conn.execute("SET ROLE llm_test_reader")
        known = warm(conn)
        conn.execute("RESET ROLE")
        memory_is_closed(conn, known)
        conn.execute("REVOKE SELECT ON llm_param FROM llm_reader")
        conn.execute(f"GRANT SELECT ({OPEN_COLUMNS}) ON llm_param TO llm_test_reader")
        conn.execute("SET ROLE llm_test_reader")
        nothing_is_shown(conn)
        memory_is_closed(conn, known)
        conn.execute("RESET ROLE")


def test_rows_that_a_policy_hides_do_not_reach_memory(fresh_conn: Connection, reader: Connection) -> None:
    known = warm(reader)
    guesses = [as_values(fresh_conn, "'[1]'"), "llm_fingerprint('names')"]
    fresh_conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
    fresh_conn.execute("CREATE POLICY most ON llm_param USING (name <> 'wte.weight')")
    # The rows that are seen, and the missing one as it is known from outside
    hidden = value(
        fresh_conn,
        """SELECT format('SELECT %L, %s, %s::oid, %L::tid, %L::xid, ''[1]''::tensor',
            name, token_id, tableoid::oid, ctid, xmin)
        FROM llm_param WHERE model = 'names' AND name = 'wte.weight'""",
    )
    row = "name, token_id, tableoid, ctid, xmin, data"
    guesses.append(
        f"SELECT pg_llm_fingerprint({row}) FROM"
        f" (SELECT {row} FROM llm_param WHERE model = 'names' UNION ALL {hidden}) AS p"
    )
    memory_is_closed(reader, known, *guesses)
    with pytest.raises(errors.NoDataFound):
        reader.execute("SELECT llm_weight('names', 'wte.weight')")


def test_a_fingerprint_opens_memory_in_its_session_and_statement(
    reader: Connection, connect: Connect
) -> None:
    known = warm(reader)
    other = connect(user="llm_test_reader")
    warm(other)
    for session in (reader, other):
        memory_is_closed(session, known)
        assert opens(session, "llm_fingerprint('names')")
