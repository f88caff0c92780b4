"""PGLLMClient and AsyncPGLLMClient: text generation over a psycopg connection, without SQLAlchemy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from llm_sql.keywords import Unpack, given, takes
from llm_sql.options import DEFAULTS, AnyBeamSearch, AnySampling
from llm_sql.streaming import AsyncStream, Query, Stream, StreamEvent, as_text

__all__ = ["AsyncPGLLMClient", "BeamResult", "PGLLMClient", "StreamEvent"]


@dataclass(frozen=True)
class BeamResult:
    """One continuation that beam search found: `score` is the sum of its tokens' log-probabilities divided by
    their number to the power of length_penalty; `token_ids` include the end-of-text token it ended with.
    """

    score: float
    text: str
    token_ids: list[int]


_GENERATE = "SELECT public.llm_generate({})"
_STREAM = "SELECT step, token_id, token, text, is_complete FROM public.llm_generate_stream({})"
_BEAM_SEARCH = "SELECT score, text, token_ids FROM public.llm_beam_search({}) ORDER BY rank"
# Nothing is prepared: behind a pooler in transaction mode (PgBouncer) any statement may meet another server.


class PGLLMClient:
    """Generates text with the models of the database behind a psycopg connection.

    model None takes the default one (pg_llm.default_model, else the only model with weights, else
    gpt2-small); other options that are left out, or None, have the database's defaults. The connection may be
    in autocommit or not; nothing is written.
    """

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    @takes(AnySampling)
    def generate(self, prompt: str, **options: Unpack[AnySampling]) -> str:
        """The continuation of the prompt."""
        query = _query(_GENERATE, AnySampling, prompt, options)
        with self.conn.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute(*query, prepare=False).fetchone()
        assert row is not None
        return as_text(row[0])

    @takes(AnySampling)
    def stream(self, prompt: str, **options: Unpack[AnySampling]) -> Iterator[StreamEvent]:
        """The continuation token by token, each as soon as the server has made it.

        In autocommit a stream holds a transaction of its own while it is open, else it takes part in the
        connection's. Other statements may run on the connection meanwhile: the first of them completes the
        generation, and what is left of the events then comes from memory. Closing the iterator early, or
        leaving its loop, ends the generation.
        """
        query = _query(_STREAM, AnySampling, prompt, options)
        return Stream(lambda: self.conn, query)

    @takes(AnyBeamSearch)
    def beam_search(self, prompt: str, **options: Unpack[AnyBeamSearch]) -> list[BeamResult]:
        """The best continuations that beam search finds, at most `beam_width`, best first."""
        query = _query(_BEAM_SEARCH, AnyBeamSearch, prompt, options)
        with self.conn.cursor(row_factory=tuple_row) as cursor:
            return [_beam(row) for row in cursor.execute(*query, prepare=False)]


class AsyncPGLLMClient:
    """PGLLMClient over an asynchronous connection."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.conn = conn

    @takes(AnySampling)
    async def generate(self, prompt: str, **options: Unpack[AnySampling]) -> str:
        query = _query(_GENERATE, AnySampling, prompt, options)
        async with self.conn.cursor(row_factory=tuple_row) as cursor:
            row = await (await cursor.execute(*query, prepare=False)).fetchone()
        assert row is not None
        return as_text(row[0])

    @takes(AnySampling)
    async def stream(self, prompt: str, **options: Unpack[AnySampling]) -> AsyncIterator[StreamEvent]:
        """As PGLLMClient.stream; close the iterator (aclose) to end the generation early."""
        query = _query(_STREAM, AnySampling, prompt, options)

        async def connect() -> psycopg.AsyncConnection[Any]:
            return self.conn

        async with AsyncStream(connect, query) as events:
            async for event in events:
                yield event

    @takes(AnyBeamSearch)
    async def beam_search(self, prompt: str, **options: Unpack[AnyBeamSearch]) -> list[BeamResult]:
        query = _query(_BEAM_SEARCH, AnyBeamSearch, prompt, options)
        async with self.conn.cursor(row_factory=tuple_row) as cursor:
            found = await cursor.execute(*query, prepare=False)
            return [_beam(row) async for row in found]


def check_text(value: str) -> str:
    """The text itself. TypeError: bytes, which the database would take for their hexadecimal digits."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected a str, not {type(value).__name__}: decode it first, value.decode()")
    return value


def _beam(row: tuple[Any, ...]) -> BeamResult:
    score, text, token_ids = row
    return BeamResult(score, as_text(text), token_ids)


def _query(statement: str, kind: type, prompt: str, options: Mapping[str, Any]) -> Query:
    """The statement, with what is given of the arguments by name and type."""
    types = {"prompt": "text"} | {name: sql for name, (sql, _) in DEFAULTS[kind.__name__].items()}
    arguments = {"prompt": check_text(prompt), **given(kind, options)}
    for name, value in arguments.items():
        if types[name] == "text[]":
            arguments[name] = [value] if isinstance(value, str) else list(value)
    # Not whatever a search_path finds under the name of a type.
    casts = {name: types[name].replace("text", "pg_catalog.text") for name in arguments}
    call = ", ".join(f"{name} => %({name})s::{sql}" for name, sql in casts.items())
    return statement.format(call), arguments
