"""AsyncLanguageModel: LanguageModel over an AsyncSession, statement for statement."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from llm_sql import conversations, embedding, functions, importing, weights
from llm_sql.client import BeamResult, StreamEvent, check_text
from llm_sql.connections import opens_connections, separate_engine
from llm_sql.errors import LLMSQLError
from llm_sql.keywords import Unpack, given, takes
from llm_sql.model import (
    BACKEND_PID,
    LAST_RUN,
    STREAMING,
    Evaluation,
    FineTuning,
    Recall,
    export_weights,
    import_weights,
    load_tokenizer,
    select_adapter,
    select_beams,
    select_embedding,
    select_evaluation,
    select_finetuning,
    select_perplexity,
    select_recall,
    select_saving,
    select_stream,
    stream_query,
)
from llm_sql.options import BeamSearch, Chat, Finetuning, Sampling, Training
from llm_sql.streaming import AsyncStream
from llm_sql.training import (
    BLOCKING,
    POLL_SECONDS,
    PROGRESS_QUERY,
    NoticeWatcher,
    Progress,
    ProgressCallback,
    check_nothing_blocks,
)


class AsyncLanguageModel:
    """LanguageModel over an AsyncSession."""

    def __init__(self, session: AsyncSession, model: str) -> None:
        self.session = session
        self.model = model

    def __repr__(self) -> str:
        return f"AsyncLanguageModel({self.model!r})"

    @classmethod
    async def create(
        cls,
        session: AsyncSession,
        model: str,
        *,
        n_layer: int,
        n_head: int,
        d_model: int,
        n_positions: int,
        vocab: int,
        arch: str = "gpt2",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> AsyncLanguageModel:
        await session.execute(
            select(
                functions.create_model(
                    model, arch, n_layer, n_head, d_model, n_positions, vocab, seed, dict(settings or {})
                )
            )
        )
        return cls(session, model)

    @classmethod
    async def import_model(
        cls,
        session: AsyncSession,
        model: str,
        source: str | os.PathLike[str],
        *,
        tokenizer: bool = True,
        settings: Mapping[str, Any] | None = None,
        progress: weights.Advance | None = None,
    ) -> AsyncLanguageModel:
        """As LanguageModel.import_model; files are read in the event loop's thread, between statements."""
        found = importing.read(source, tokenizer=tokenizer, settings=settings)

        def store(connection: Connection) -> int:
            return importing.store(connection, model, found, progress=progress).weights

        this = cls(session, model)
        await this._run(store)
        return this

    @takes(Sampling)
    async def generate(self, prompt: str, **options: Unpack[Sampling]) -> str:
        query = select(functions.generate(check_text(prompt), model=self.model, **given(Sampling, options)))
        return str(await self.session.scalar(query))

    @takes(Sampling)
    async def generate_many(self, prompts: Sequence[str], **options: Unpack[Sampling]) -> list[str]:
        query = select(functions.generate(list(prompts), model=self.model, **given(Sampling, options)))
        return list((await self.session.scalars(query)).one())

    @takes(Sampling)
    async def stream(self, prompt: str, **options: Unpack[Sampling]) -> AsyncIterator[StreamEvent]:
        """As LanguageModel.stream; close the iterator (aclose) to end the generation early."""
        dialect = self.session.get_bind().dialect
        if dialect.driver.startswith("psycopg"):
            events: AsyncGenerator[StreamEvent, None] = AsyncStream(
                self._driver, stream_query(prompt, self.model, options, dialect)
            )
        else:
            events = self._stream_rows(select_stream(prompt, self.model, options))
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    @takes(Chat)
    async def chat(self, messages: Sequence[Mapping[str, str]], **options: Unpack[Chat]) -> str:
        conversation = await self._ask(conversations.prepare(messages, self.model, options))
        return str(await self.session.scalar(conversations.select_chat(conversation, self.model, options)))

    @takes(Chat)
    async def chat_stream(
        self, messages: Sequence[Mapping[str, str]], **options: Unpack[Chat]
    ) -> AsyncIterator[StreamEvent]:
        """As LanguageModel.chat_stream; close the iterator (aclose) to end the answer early."""
        conversation = await self._ask(conversations.prepare(messages, self.model, options))
        dialect = self.session.get_bind().dialect
        if dialect.driver.startswith("psycopg"):
            events: AsyncGenerator[StreamEvent, None] = AsyncStream(
                self._driver, conversations.chat_query(conversation, self.model, options, dialect)
            )
        else:
            events = self._stream_rows(conversations.select_chat_stream(conversation, self.model, options))
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def _ask(self, asking: conversations.Asking) -> Any:
        return await (await self.session.connection()).run_sync(conversations.answered, asking)

    async def _driver(self) -> psycopg.AsyncConnection[Any]:
        raw = await (await self.session.connection()).get_raw_connection()
        return cast("psycopg.AsyncConnection[Any]", raw.driver_connection)

    async def _stream_rows(self, query: Select[Any]) -> AsyncGenerator[StreamEvent, None]:
        """By another driver: row by row where there is a transaction for a cursor, else all at once."""
        raw = await (await self.session.connection()).get_raw_connection()
        if getattr(raw.dbapi_connection, "autocommit", False):
            for row in (await self.session.execute(query)).all():
                yield StreamEvent(*row)
            return
        rows = await self.session.stream(query, execution_options=STREAMING)
        try:
            async for row in rows:
                yield StreamEvent(*row)
        finally:
            await rows.close()

    @takes(BeamSearch)
    async def beam_search(self, prompt: str, **options: Unpack[BeamSearch]) -> list[BeamResult]:
        query = select_beams(prompt, self.model, options)
        return [BeamResult(*row) for row in await self.session.execute(query)]

    async def loss(self, tokens: Sequence[int], targets: Sequence[int]) -> float:
        query = select(functions.loss(self.model, list(tokens), list(targets)))
        return float((await self.session.scalars(query)).one())

    async def perplexity(self, text: str, *, stride: int | None = None) -> float:
        return float((await self.session.scalars(select_perplexity(self.model, text, stride))).one())

    async def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        query = select(functions.encode(text, self.model, special, bos))
        return list((await self.session.scalars(query)).one())

    async def decode(self, tokens: Sequence[int]) -> str:
        return str((await self.session.scalars(select(functions.decode(list(tokens), self.model)))).one())

    async def embed(self, texts: str | Sequence[str], *, prompt: str | None = None) -> NDArray[np.float32]:
        embeddings: list[NDArray[np.float32]] = []
        for statement in embedding.statements(embedding.texts_of(texts), self.model, prompt):
            embeddings += await self.session.scalars(statement)
        found = None if embeddings else await self.session.scalars(embedding.WIDTH, {"model": self.model})
        return embedding.as_array(texts, embeddings, 0 if found is None else int(found.one()))

    async def embed_text(
        self, text: str, *, layer: int | None = None, pooling: str = "mean"
    ) -> NDArray[np.float32]:
        query = select_embedding(text, self.model, layer, pooling)
        return cast("NDArray[np.float32]", (await self.session.scalars(query)).one())

    async def evaluate(
        self,
        split: str = "validation",
        *,
        stride: int | None = None,
        query: str | None = None,
        log: bool = False,
    ) -> Evaluation:
        statement = select_evaluation(self.model, split, stride, query, log)
        return Evaluation(*(await self.session.execute(statement)).one())

    async def recall(self, split: str = "validation", k: int = 10) -> Recall:
        return Recall(*(await self.session.execute(select_recall(self.model, split, k))).one())

    async def import_weights(
        self,
        path: str | os.PathLike[str],
        *,
        tokenizer: bool = True,
        megatron_version: float | None = None,
        progress: weights.Advance | None = None,
    ) -> int:
        """As LanguageModel.import_weights; files are read in the event loop's thread, between statements."""
        return await self._run(import_weights, path, self.model, tokenizer, megatron_version, progress)

    async def load_tokenizer(
        self, vocab: str | os.PathLike[str], merges: str | os.PathLike[str] | None = None
    ) -> int:
        return await self._run(load_tokenizer, self.model, vocab, merges)

    async def export_weights(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        progress: weights.Advance | None = None,
    ) -> int:
        """As LanguageModel.export_weights; the file is written in the event loop's thread."""
        return await self._run(export_weights, self.model, path, format, progress)

    async def create_adapter(
        self,
        name: str,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        targets: str | Sequence[str] | None = None,
        seed: int = 0,
    ) -> AsyncLanguageModel:
        await self.session.execute(select_adapter(name, self.model, rank, alpha, targets, seed))
        return type(self)(self.session, name)

    async def rename(self, new_name: str) -> None:
        await self.session.execute(select(functions.rename_model(self.model, new_name)))
        self.model = new_name

    async def save_checkpoint(self, note: str | None = None, *, keep: int | None = None) -> int:
        return int((await self.session.scalars(select_saving(self.model, note, keep))).one())

    async def load_checkpoint(self, id: int) -> int:
        return int((await self.session.scalars(select(functions.checkpoint_load(self.model, id)))).one())

    async def _run(self, work: Callable[..., int], *arguments: Any) -> int:
        """Work that is written for a Connection, on the session's own."""
        connection = await self.session.connection()
        return await connection.run_sync(work, *arguments)

    @takes(Training)
    async def train(
        self,
        n_steps: int,
        *,
        commit: bool = False,
        commit_every: int | None = None,
        write_back_every: int | None = None,
        progress: ProgressCallback | None = None,
        **options: Unpack[Training],
    ) -> int:
        """As LanguageModel.train; `progress` is called in the event loop."""
        if not commit and commit_every is None and write_back_every is None:
            statement = select(functions.train(self.model, n_steps, **given(Training, options)))
            async with self._watching(progress):
                return int((await self.session.scalars(statement)).one())
        if self.session.in_transaction():
            check_nothing_blocks((await self.session.scalars(BLOCKING)).one())
        engine = AsyncEngine(separate_engine(self.session.get_bind().engine))
        try:
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                async with _watching(engine, progress, model=self.model):
                    loop = functions.train_loop(
                        self.model, n_steps, commit_every, write_back_every, **given(Training, options)
                    )
                    await connection.execute(loop)
                return int((await connection.scalars(LAST_RUN, {"model": self.model})).one())
        finally:
            await engine.dispose()

    @takes(Finetuning)
    async def finetune(
        self,
        query: str,
        steps: int,
        *,
        progress: ProgressCallback | None = None,
        **options: Unpack[Finetuning],
    ) -> FineTuning:
        """As LanguageModel.finetune; `progress` is called in the event loop."""
        statement = select_finetuning(self.model, query, steps, options)
        async with self._watching(progress):
            return FineTuning(*(await self.session.execute(statement)).one())

    @contextlib.asynccontextmanager
    async def _watching(self, progress: ProgressCallback | None) -> AsyncGenerator[None, None]:
        """Reports what the session's own connection trains."""
        if progress is None:
            yield
            return
        connection = await self.session.connection()
        if opens_connections(connection.engine.sync_engine):
            pid = (await self.session.scalars(BACKEND_PID)).one()
            async with _watching(connection.engine, progress, pid=pid):
                yield
            return
        driver = (await connection.get_raw_connection()).driver_connection
        with NoticeWatcher(driver, self.model, progress):
            yield


@contextlib.asynccontextmanager
async def _watching(
    engine: AsyncEngine,
    progress: ProgressCallback | None,
    *,
    pid: int | None = None,
    model: str | None = None,
) -> AsyncGenerator[None, None]:
    """Polls on a connection that is nobody else's. Without one the training goes on unseen; an error of the
    callback ends the reports and is raised at the end.
    """
    if progress is None:
        yield
        return
    errors: list[Exception] = []

    async def watch() -> None:
        last = None
        beside = AsyncEngine(separate_engine(engine.sync_engine))
        try:
            async with beside.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                while not errors:
                    await asyncio.sleep(POLL_SECONDS)
                    found = await connection.execute(PROGRESS_QUERY, {"pid": pid, "model": model})
                    row = found.one_or_none()
                    if row is not None and row != last:
                        report(Progress(*row))
                        last = row
        finally:
            await beside.dispose()

    def report(found: Progress) -> None:
        try:
            progress(found)
        except Exception as error:
            errors.append(error)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SQLAlchemyError, LLMSQLError):
            await task
    if errors:
        raise errors[0]
