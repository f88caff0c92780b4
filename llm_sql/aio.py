"""AsyncLanguageModel: LanguageModel over an AsyncSession, statement for statement."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from llm_sql import functions, weights
from llm_sql.client import BeamResult, StreamEvent
from llm_sql.model import (
    BACKEND_PID,
    LAST_RUN,
    STREAMING,
    Evaluation,
    FineTuning,
    import_weights,
    load_tokenizer,
    select_beams,
    select_embedding,
    select_evaluation,
    select_finetuning,
    select_perplexity,
    select_saving,
    select_stream,
)
from llm_sql.training import (
    POLL_SECONDS,
    PROGRESS_QUERY,
    Progress,
    ProgressCallback,
    TrainingOptions,
    train_loop_statement,
    train_statement,
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
    ) -> AsyncLanguageModel:
        await session.execute(
            select(functions.create_model(model, arch, n_layer, n_head, d_model, n_positions, vocab, seed))
        )
        return cls(session, model)

    async def generate(self, prompt: str, **options: Any) -> str:
        return str(await self.session.scalar(select(functions.generate(prompt, model=self.model, **options))))

    async def generate_many(self, prompts: Sequence[str], **options: Any) -> list[str]:
        query = select(functions.generate(list(prompts), model=self.model, **options))
        return list((await self.session.scalars(query)).one())

    async def stream(self, prompt: str, **options: Any) -> AsyncIterator[StreamEvent]:
        query = select_stream(prompt, {"model": self.model, **options})
        rows = await self.session.stream(query, execution_options=STREAMING)
        try:
            async for row in rows:
                yield StreamEvent(*row)
        finally:
            await rows.close()

    async def beam_search(self, prompt: str, **options: Any) -> list[BeamResult]:
        query = select_beams(prompt, {"model": self.model, **options})
        return [BeamResult(*row) for row in await self.session.execute(query)]

    async def loss(self, tokens: Sequence[int], targets: Sequence[int]) -> float:
        query = select(functions.loss(self.model, list(tokens), list(targets)))
        return float((await self.session.scalars(query)).one())

    async def perplexity(self, text: str, *, stride: int | None = None) -> float:
        return float((await self.session.scalars(select_perplexity(self.model, text, stride))).one())

    async def encode(self, text: str, *, special: bool = True, bos: bool = False) -> list[int]:
        query = select(functions.encode(text, self.model, special, bos))
        return list((await self.session.scalars(query)).one())

    async def decode(self, tokens: Sequence[int]) -> str:
        return str((await self.session.scalars(select(functions.decode(list(tokens), self.model)))).one())

    async def embed(
        self, text: str, *, layer: int | None = None, pooling: str = "mean"
    ) -> NDArray[np.float32]:
        query = select_embedding(text, self.model, layer, pooling)
        return cast("NDArray[np.float32]", (await self.session.scalars(query)).one())

    async def evaluate(
        self, split: str = "validation", *, stride: int | None = None, query: str | None = None
    ) -> Evaluation:
        statement = select_evaluation(self.model, split, stride, query)
        return Evaluation(*(await self.session.execute(statement)).one())

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

        def export(connection: Connection) -> int:
            return weights.export_weights(connection, self.model, path, format=format, progress=progress)

        return await self._run(export)

    async def save_checkpoint(self, note: str | None = None, *, keep: int | None = None) -> int:
        return int((await self.session.scalars(select_saving(self.model, note, keep))).one())

    async def load_checkpoint(self, id: int) -> int:
        return int((await self.session.scalars(select(functions.checkpoint_load(self.model, id)))).one())

    async def _run(self, work: Callable[..., int], *arguments: Any) -> int:
        """Work that is written for a Connection, on the session's own."""
        connection = await self.session.connection()
        return await connection.run_sync(work, *arguments)

    async def train(
        self,
        n_steps: int,
        *,
        commit_every: int | None = None,
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> int:
        """As LanguageModel.train; `progress` is called in the event loop."""
        arguments = TrainingOptions.of(**options)
        engine = (await self.session.connection()).engine
        if commit_every is None:
            pid = (await self.session.scalars(BACKEND_PID)).one()
            async with _watching_async(engine, pid, progress):
                return int(
                    (await self.session.scalars(train_statement(self.model, n_steps, arguments))).one()
                )
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            pid = (await connection.scalars(BACKEND_PID)).one()
            async with _watching_async(engine, pid, progress):
                await connection.execute(train_loop_statement(self.model, n_steps, commit_every, arguments))
            return int((await connection.scalars(LAST_RUN, {"model": self.model})).one())

    async def finetune(
        self, query: str, steps: int, *, progress: ProgressCallback | None = None, **options: Any
    ) -> FineTuning:
        """As LanguageModel.finetune; `progress` is called in the event loop."""
        statement = select_finetuning(self.model, query, steps, options)
        engine = (await self.session.connection()).engine
        pid = (await self.session.scalars(BACKEND_PID)).one()
        async with _watching_async(engine, pid, progress):
            return FineTuning(*(await self.session.execute(statement)).one())


@contextlib.asynccontextmanager
async def _watching_async(
    engine: AsyncEngine, pid: int, progress: ProgressCallback | None
) -> AsyncIterator[None]:
    if progress is None:
        yield
        return

    async def watch() -> None:
        last = None
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            while True:
                await asyncio.sleep(POLL_SECONDS)
                row = (await connection.execute(PROGRESS_QUERY, {"pid": pid})).one_or_none()
                if row is not None and row != last:
                    progress(Progress(*row))
                    last = row

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
