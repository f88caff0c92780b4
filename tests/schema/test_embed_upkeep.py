"""llm_embed_missing and the triggers: what is filled, by whom, beside whom, and what is refused by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..support.small_models import NAMES, Connection, make_names
from ..support.tensors import value

MISSING = "SELECT count(*) FROM {} WHERE embedding IS NULL AND body IS NOT NULL"


@pytest.fixture
def docs(conn: Connection) -> Iterator[Connection]:
    """A model, and a table of 60 texts with a NULL and an empty one among them, without embeddings."""
    make_names(conn)
    conn.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, body text, embedding tensor, filled int NOT NULL DEFAULT 0)"
    )
    conn.execute(
        "INSERT INTO docs SELECT i, (%s::text[])[1 + i %% 29] FROM generate_series(1, 58) i", (NAMES,)
    )
    conn.execute("INSERT INTO docs VALUES (59, NULL), (60, '')")
    # Counts what the procedure does to each row.
    conn.execute(
        "CREATE FUNCTION count_fills() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.filled := OLD.filled + 1; RETURN NEW; END'"
    )
    conn.execute(
        "CREATE TRIGGER fills BEFORE UPDATE OF embedding ON docs FOR EACH ROW EXECUTE FUNCTION count_fills()"
    )
    yield conn
    conn.execute("DROP TABLE IF EXISTS docs CASCADE")
    conn.execute("DROP FUNCTION count_fills CASCADE")


def fill(conn: Connection, table: str = "docs", **arguments: Any) -> list[str]:
    """Calls the procedure; what it says."""
    arguments = {"model": "names"} | arguments
    said: list[str] = []
    handler = lambda diagnostic: said.append(diagnostic.message_primary)  # noqa: E731
    conn.add_notice_handler(handler)
    named = "".join(f", {name} => %({name})s" for name in arguments)
    try:
        conn.execute(f"CALL llm_embed_missing('{table}', 'body', 'embedding'{named})", arguments)
    finally:
        conn.remove_notice_handler(handler)
    return said


def is_right(conn: Connection, table: str = "docs") -> None:
    """Every text has its embedding, each was filled once, and what has no text has none."""
    rows = conn.execute(
        f"SELECT body, embedding, filled, llm_embed(body, 'names') FROM {table} ORDER BY id"
    ).fetchall()
    for body, embedding, filled, expected in rows:
        if body is None:
            assert embedding is None
            assert filled == 0
        else:
            np.testing.assert_array_equal(embedding, expected)
            assert filled == 1


@pytest.mark.parametrize("batch_rows", [1, 7, 59, 256])
def test_it_fills_what_is_missing_once(docs: Connection, batch_rows: int) -> None:
    said = fill(docs, batch_rows=batch_rows)
    assert said == ["59 rows of public.docs filled"]
    is_right(docs)
    assert fill(docs) == ["0 rows of public.docs filled"]
    docs.execute("UPDATE docs SET embedding = NULL, filled = -1 WHERE id IN (3, 60)")
    docs.execute("UPDATE docs SET filled = 0 WHERE id IN (3, 60)")
    assert fill(docs) == ["2 rows of public.docs filled"]
    is_right(docs)


@pytest.mark.parametrize("type_", ["tensor(16)", "real[]", "double precision[]", "vector_like"])
def test_types_of_the_column(docs: Connection, type_: str) -> None:
    if type_ == "vector_like":
        docs.execute("CREATE DOMAIN vector_like AS real[] CHECK (cardinality(VALUE) = 16)")
    docs.execute("DROP TRIGGER fills ON docs")
    docs.execute(f'ALTER TABLE docs DROP COLUMN embedding, ADD COLUMN "the ""embedding" {type_}')
    docs.execute('ALTER TABLE docs RENAME COLUMN body TO "the %I body"')
    docs.execute("CALL llm_embed_missing('docs', 'the %I body', 'the \"embedding', 'names', batch_rows => 9)")
    rows = docs.execute(
        'SELECT "the ""embedding"::tensor, llm_embed("the %I body", \'names\') FROM docs'
    ).fetchall()
    assert len(rows) == 60
    for found, expected in rows:
        np.testing.assert_array_equal(found, expected)
    docs.execute("DROP TABLE docs CASCADE")
    docs.execute("DROP DOMAIN IF EXISTS vector_like")


def test_partitions(docs: Connection) -> None:
    docs.execute(
        "CREATE TABLE parts (id int, body text, embedding tensor, filled int DEFAULT 0)"
        " PARTITION BY RANGE (id)"
    )
    docs.execute("CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (20)")
    # Another order of columns, and one that was dropped.
    docs.execute("CREATE TABLE parts_b (gone int, filled int DEFAULT 0, embedding tensor, body text, id int)")
    docs.execute("ALTER TABLE parts_b DROP COLUMN gone")
    docs.execute("ALTER TABLE parts ATTACH PARTITION parts_b FOR VALUES FROM (20) TO (100)")
    docs.execute("INSERT INTO parts (id, body) SELECT id, body FROM docs")
    docs.execute(
        "CREATE TRIGGER fills BEFORE UPDATE OF embedding ON parts FOR EACH ROW EXECUTE FUNCTION count_fills()"
    )
    assert fill(docs, "parts", batch_rows=8) == ["59 rows of public.parts filled"]
    is_right(docs, "parts")
    docs.execute("DROP TABLE parts")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ("'aview', 'body', 'embedding'", errors.WrongObjectType, "view"),
        ("'docs_pkey', 'body', 'embedding'", errors.WrongObjectType, "index"),
        ("'pg_description', 'description', 'objoid'", errors.WrongObjectType, "system table"),
        ("'docs', 'nobody', 'embedding'", errors.UndefinedColumn, "nobody"),
        ("'docs', 'body', 'nothing'", errors.UndefinedColumn, "nothing"),
        ("'docs', 'ctid', 'embedding'", errors.UndefinedColumn, "ctid"),
        ("'docs', 'body', 'id'", errors.DatatypeMismatch, "integer"),
        ("'docs', NULL, 'embedding'", errors.NullValueNotAllowed, "text_column"),
        ("NULL, 'body', 'embedding'", errors.NullValueNotAllowed, "relation"),
        ("'docs', 'body', 'embedding', 'nobody'", errors.UndefinedObject, "nobody"),
        ("'docs', 'body', 'embedding', 'names', 'query'", errors.InvalidParameterValue, "no prompt"),
        ("'docs', 'body', 'embedding', batch_rows => 0", errors.InvalidParameterValue, "batch_rows"),
        ("'docs', 'body', 'embedding', batch_rows => NULL", errors.InvalidParameterValue, "batch_rows"),
        ("'no_such_table', 'body', 'embedding'", errors.UndefinedTable, "no_such_table"),
        ("0, 'body', 'embedding'", errors.UndefinedTable, "0"),
    ],
)
def test_what_is_refused(docs: Connection, arguments: str, error: type[Exception], message: str) -> None:
    docs.execute("CREATE VIEW aview AS SELECT * FROM docs")
    with pytest.raises(error, match=message):
        docs.execute(f"CALL llm_embed_missing({arguments})")
    assert value(docs, MISSING.format("docs")) == 59
    docs.execute("DROP VIEW aview")


def test_not_inside_of_a_transaction(docs: Connection) -> None:
    with pytest.raises(errors.InvalidTransactionTermination), docs.transaction():
        docs.execute("CALL llm_embed_missing('docs', 'body', 'embedding', 'names')")


def test_it_takes_the_callers_rights(docs: Connection) -> None:
    docs.execute("CREATE ROLE embedder")
    try:
        docs.execute("GRANT llm_reader TO embedder")
        docs.execute("GRANT SELECT ON docs TO embedder")
        docs.execute("SET ROLE embedder")
        with pytest.raises(errors.InsufficientPrivilege):
            fill(docs)
        docs.execute("RESET ROLE")
        docs.execute("GRANT UPDATE (embedding) ON docs TO embedder")
        docs.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
        docs.execute("CREATE POLICY first_ten ON docs TO embedder USING (id <= 10)")
        docs.execute("SET ROLE embedder")
        assert fill(docs) == ["10 rows of public.docs filled"]
        docs.execute("RESET ROLE")
        assert value(docs, MISSING.format("docs")) == 49
    finally:
        docs.execute("RESET ROLE")
        docs.execute("DROP TABLE docs CASCADE")
        docs.execute("DROP OWNED BY embedder")
        docs.execute("DROP ROLE embedder")


def test_rows_that_others_hold_are_passed_over(docs: Connection, connect: Callable[[], Connection]) -> None:
    with connect() as other, other.transaction():
        other.execute("SELECT FROM docs WHERE id IN (5, 6) FOR UPDATE")
        said = fill(docs, batch_rows=10)
        assert said[0] == "57 rows of public.docs filled"
        assert said[1].startswith("2 rows of public.docs were not to be had")
    assert fill(docs) == ["2 rows of public.docs filled"]
    is_right(docs)


def test_what_a_trigger_empties_again_does_not_go_on_for_ever(docs: Connection) -> None:
    docs.execute(
        "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.embedding := NULL; RETURN NEW; END'"
    )
    docs.execute(
        "CREATE TRIGGER undo BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION undo()"
    )
    said = fill(docs, batch_rows=20)
    assert said[0] == "58 rows of public.docs filled"
    docs.execute("DROP TABLE docs CASCADE")
    docs.execute("DROP FUNCTION undo")


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_several_workers_beside_writers(
    docs: Connection, connect: Callable[[], Connection], isolation: str
) -> None:
    """Three fill the table while texts change, rows come and go; at the end every text has its embedding."""
    docs.execute("TRUNCATE docs")
    docs.execute(
        "INSERT INTO docs SELECT i, (%s::text[])[1 + i %% 29] FROM generate_series(1, 600) i", (NAMES,)
    )
    docs.execute(
        "CREATE TRIGGER later BEFORE INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION"
        " llm_embed_later('body', 'embedding')"
    )
    problems: list[BaseException] = []

    def work() -> None:
        try:
            with connect() as conn:
                conn.execute(f"SET default_transaction_isolation = '{isolation}'")
                fill(conn, batch_rows=16)
        except BaseException as problem:
            problems.append(problem)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for step in range(1, 61):
        docs.execute("UPDATE docs SET body = body || 'a' WHERE id %% 40 = %s", (step % 40,))
        docs.execute("DELETE FROM docs WHERE id = %s", (step,))
        docs.execute("INSERT INTO docs VALUES (%s, 'emma')", (1000 + step,))
        docs.execute("VACUUM docs")
        time.sleep(0.01)
    for worker in workers:
        worker.join()
    assert problems == []
    fill(docs)
    assert value(docs, MISSING.format("docs")) == 0
    wrong = "SELECT count(*) FROM docs WHERE embedding IS DISTINCT FROM llm_embed(body, 'names')"
    assert value(docs, wrong) == 0


# ---- triggers ----


def test_the_trigger_keeps_the_column_right(docs: Connection) -> None:
    docs.execute(
        "ALTER TABLE docs DROP COLUMN filled CASCADE,"
        " ADD COLUMN twice text GENERATED ALWAYS AS (body || body) STORED"
    )
    docs.execute("DROP TRIGGER IF EXISTS fills ON docs")
    docs.execute(
        "CREATE TRIGGER keep BEFORE INSERT OR UPDATE ON docs FOR EACH ROW"
        " EXECUTE FUNCTION llm_embed_column('body', 'embedding', 'names')"
    )
    docs.execute("INSERT INTO docs VALUES (100, 'emma'), (101, NULL), (102, '')")
    same = "SELECT embedding IS NOT DISTINCT FROM llm_embed(body, 'names') FROM docs WHERE id = %s"
    for row in (100, 101, 102):
        assert value(docs, same, (row,))
    docs.execute("UPDATE docs SET body = 'mia' WHERE id IN (1, 100)")
    assert value(docs, same, (1,))
    assert value(docs, same, (100,))
    assert value(docs, "SELECT twice FROM docs WHERE id = 1") == "miamia"
    # A row whose text stays keeps what it has, be that nothing.
    docs.execute("UPDATE docs SET body = body, embedding = '[1]' WHERE id = 2")
    docs.execute("UPDATE docs SET id = -3 WHERE id = 3")
    assert docs.execute("SELECT embedding::text FROM docs WHERE id IN (2, -3) ORDER BY id").fetchall() == [
        (None,),
        ("[1]",),
    ]
    docs.execute("UPDATE docs SET body = NULL WHERE id = 1")
    assert value(docs, "SELECT embedding IS NULL FROM docs WHERE id = 1")


def test_the_other_trigger_empties_it(docs: Connection) -> None:
    fill(docs)
    docs.execute(
        "CREATE TRIGGER later BEFORE INSERT OR UPDATE ON docs FOR EACH ROW"
        " EXECUTE FUNCTION llm_embed_later('body', 'embedding')"
    )
    docs.execute("INSERT INTO docs VALUES (100, 'emma', '[1]')")
    docs.execute("UPDATE docs SET body = 'mia' WHERE id <= 2")
    docs.execute("UPDATE docs SET body = body WHERE id = 3")
    assert value(docs, MISSING.format("docs")) == 3
    assert fill(docs) == ["3 rows of public.docs filled"]


@pytest.mark.parametrize(
    "definition",
    [
        "AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION {}('body', 'embedding')",
        "BEFORE INSERT ON docs FOR EACH STATEMENT EXECUTE FUNCTION {}('body', 'embedding')",
        "BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION {}('body')",
        "BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION {}()",
        "BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION {}('body', 'embedding', 'names', '', 'more')",
    ],
)
def test_triggers_of_other_kinds(docs: Connection, definition: str) -> None:
    for function in ("llm_embed_column", "llm_embed_later"):
        docs.execute(f"CREATE OR REPLACE TRIGGER wrong {definition.format(function)}")
        with pytest.raises(errors.TriggerProtocolViolated, match=function):
            docs.execute("INSERT INTO docs VALUES (100, 'emma')")


@pytest.mark.parametrize(
    ("columns", "message"), [("'nobody', 'embedding'", "nobody"), ("'body', 'nothing'", "nothing")]
)
def test_triggers_of_columns_that_are_not_there(docs: Connection, columns: str, message: str) -> None:
    docs.execute(
        "CREATE TRIGGER wrong BEFORE INSERT ON docs FOR EACH ROW"
        f" EXECUTE FUNCTION llm_embed_column({columns})"
    )
    with pytest.raises(errors.UndefinedColumn, match=message):
        docs.execute("INSERT INTO docs VALUES (100, 'emma')")
    with pytest.raises(psycopg.Error):
        docs.execute("SELECT llm_embed_column()")
