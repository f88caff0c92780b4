"""Texts that a command is given: a query, or files sent to the database for a query to read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from llm_sql.cli.database import open_session
from llm_sql.corpus import find_files
from llm_sql.errors import UsageError
from llm_sql.sources import BOM, FileSource

NEITHER = "give either --query or --input"


def check_one_source(query: str | None, inputs: list[str] | None) -> None:
    if (query is None) == (not inputs):
        raise UsageError(NEITHER)
    if query is not None and not query.strip():
        raise UsageError("--query is empty", hint="give SQL whose first column holds the texts")


@contextlib.contextmanager
def open_texts(
    url: str | None, query: str | None, inputs: list[str] | None, lines: bool
) -> Iterator[tuple[Session, str]]:
    """A session, and the query in it that reads the texts: the one given, or one over the files."""
    check_one_source(query, inputs)
    with open_session(url) as session:
        yield session, send_documents(session, find_files(inputs), lines) if inputs else str(query)


def send_documents(session: Session, files: list[Path], lines: bool = False) -> str:
    """The files, or their lines, as a temporary table of the session; the query that reads it in order."""
    source = FileSource(files, lines=lines)
    source.check()
    session.execute(text("CREATE TEMP TABLE llm_sql_documents (n bigint, document text) ON COMMIT DROP"))
    documents = (
        (piece.text for piece in source.pieces(None, 0.0))
        if lines
        else (path.read_text(encoding="utf-8").removeprefix(BOM) for path in files)
    )
    driver = cast("psycopg.Connection[Any]", session.connection().connection.driver_connection)
    with driver.cursor() as cursor, cursor.copy("COPY pg_temp.llm_sql_documents FROM STDIN") as copy:
        for row in enumerate(documents):
            copy.write_row(row)
    return "SELECT document FROM pg_temp.llm_sql_documents ORDER BY n"
