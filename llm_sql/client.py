"""PGLLMClient and its async twin: text generation over a psycopg connection, without SQLAlchemy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from llm_sql.streaming import AsyncStream, Stream, StreamEvent, as_text

__all__ = ["AsyncPGLLMClient", "BeamResult", "PGLLMClient", "StreamEvent"]


@dataclass(frozen=True)
class BeamResult:
    """One continuation that beam search found: `score` is the sum of its tokens' log-probabilities divided by
    their number to the power of length_penalty; `token_ids` include the end-of-text token it ended with.
    """

    score: float
    text: str
    token_ids: list[int]


_ARGUMENTS = """(prompt => %(prompt)s::pg_catalog.text, max_tokens => %(max_tokens)s::integer,
    temperature => %(temperature)s::double precision, top_k => %(top_k)s::integer,
    top_p => %(top_p)s::double precision, model => %(model)s::pg_catalog.text, seed => %(seed)s::bigint,
    stop => %(stop)s::pg_catalog.text[])"""
_GENERATE = f"SELECT public.llm_generate{_ARGUMENTS}"
_STREAM = f"SELECT step, token_id, token, text, is_complete FROM public.llm_generate_stream{_ARGUMENTS}"

_BEAM_SEARCH = """SELECT score, text, token_ids FROM public.llm_beam_search(
    prompt => %(prompt)s::pg_catalog.text, beam_width => %(beam_width)s::integer,
    max_tokens => %(max_tokens)s::integer, model => %(model)s::pg_catalog.text,
    length_penalty => %(length_penalty)s::double precision, early_stopping => %(early_stopping)s::boolean)
    ORDER BY rank"""
# Nothing is prepared: behind a pooler in transaction mode (PgBouncer) any statement may meet another server.


class PGLLMClient:
    """Generates text with the models of the database behind a psycopg connection.

    model None takes the default one (pg_llm.default_model, else the only model with weights, else
    gpt2-small). The connection may be in autocommit or not; nothing is written.
    """

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 0.95,
        model: str | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
    ) -> str:
        """The continuation of the prompt."""
        parameters = _parameters(prompt, max_tokens, temperature, top_k, top_p, model, seed, stop)
        with self.conn.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute(_GENERATE, parameters, prepare=False).fetchone()
        assert row is not None
        return as_text(row[0])

    def stream(
        self,
        prompt: str,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 0.95,
        model: str | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
    ) -> Iterator[StreamEvent]:
        """The continuation token by token, each as soon as the server has made it.

        In autocommit a stream holds a transaction of its own while it is open, else it takes part in the
        connection's. Other statements may run on the connection meanwhile: the first of them completes the
        generation, and what is left of the events then comes from memory. Closing the iterator early, or
        leaving its loop, ends the generation.
        """
        parameters = _parameters(prompt, max_tokens, temperature, top_k, top_p, model, seed, stop)
        return Stream(lambda: self.conn, (_STREAM, parameters))

    def beam_search(
        self,
        prompt: str,
        *,
        beam_width: int = 3,
        max_tokens: int = 64,
        model: str | None = None,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
    ) -> list[BeamResult]:
        """The best continuations that beam search finds, at most `beam_width`, best first."""
        parameters = _beam_parameters(prompt, beam_width, max_tokens, model, length_penalty, early_stopping)
        with self.conn.cursor(row_factory=tuple_row) as cursor:
            return [_beam(row) for row in cursor.execute(_BEAM_SEARCH, parameters, prepare=False)]


class AsyncPGLLMClient:
    """PGLLMClient over an asynchronous connection."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.conn = conn

    async def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 0.95,
        model: str | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
    ) -> str:
        parameters = _parameters(prompt, max_tokens, temperature, top_k, top_p, model, seed, stop)
        async with self.conn.cursor(row_factory=tuple_row) as cursor:
            row = await (await cursor.execute(_GENERATE, parameters, prepare=False)).fetchone()
        assert row is not None
        return as_text(row[0])

    async def stream(
        self,
        prompt: str,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 0.95,
        model: str | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
    ) -> AsyncIterator[StreamEvent]:
        """As PGLLMClient.stream; close the iterator (aclose) to end the generation early."""
        parameters = _parameters(prompt, max_tokens, temperature, top_k, top_p, model, seed, stop)

        async def connect() -> psycopg.AsyncConnection[Any]:
            return self.conn

        async with AsyncStream(connect, (_STREAM, parameters)) as events:
            async for event in events:
                yield event

    async def beam_search(
        self,
        prompt: str,
        *,
        beam_width: int = 3,
        max_tokens: int = 64,
        model: str | None = None,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
    ) -> list[BeamResult]:
        parameters = _beam_parameters(prompt, beam_width, max_tokens, model, length_penalty, early_stopping)
        async with self.conn.cursor(row_factory=tuple_row) as cursor:
            found = await cursor.execute(_BEAM_SEARCH, parameters, prepare=False)
            return [_beam(row) async for row in found]


def check_text(value: str) -> str:
    """The text itself. TypeError: bytes, which the database would take for their hexadecimal digits."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected a str, not {type(value).__name__}: decode it first, value.decode()")
    return value


def _beam(row: tuple[Any, ...]) -> BeamResult:
    score, text, token_ids = row
    return BeamResult(score, as_text(text), token_ids)


def _parameters(
    prompt: str,
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    model: str | None,
    seed: int | None,
    stop: str | Sequence[str] | None,
) -> dict[str, Any]:
    return {
        "prompt": check_text(prompt),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "model": model,
        "seed": seed,
        "stop": [stop] if isinstance(stop, str) else (None if stop is None else list(stop)),
    }


def _beam_parameters(
    prompt: str,
    beam_width: int,
    max_tokens: int,
    model: str | None,
    length_penalty: float,
    early_stopping: bool,
) -> dict[str, Any]:
    return {
        "prompt": check_text(prompt),
        "beam_width": beam_width,
        "max_tokens": max_tokens,
        "model": model,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
    }
