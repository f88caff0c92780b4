"""The asynchronous classes have what the synchronous ones have, with the same arguments and results."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from llm_sql import AsyncLanguageModel, AsyncPGLLMClient, LanguageModel, PGLLMClient
from llm_sql.client import BeamResult, StreamEvent

PAIRS = [(LanguageModel, AsyncLanguageModel), (PGLLMClient, AsyncPGLLMClient)]


def public(cls: type) -> dict[str, Callable[..., Any]]:
    return {
        name: member
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize(("ours", "twin"), PAIRS, ids=lambda cls: cls.__name__)
def test_methods_and_arguments_are_the_same(ours: type, twin: type) -> None:
    assert set(public(ours)) == set(public(twin))
    for name, method in public(ours).items():
        other = public(twin)[name]
        parameters, others = (inspect.signature(m).parameters for m in (method, other))
        assert [(p.name, p.kind, p.default) for p in parameters.values()] == [
            (p.name, p.kind, p.default) for p in others.values()
        ], name
        hints, other_hints = get_type_hints(method), get_type_hints(other)
        for argument in set(parameters) - {"self", "session", "conn"}:
            assert hints[argument] == other_hints[argument], (name, argument)
        if name == "__init__":
            continue
        if re.search("Iterator", str(hints["return"])):
            assert inspect.isasyncgenfunction(other), name
        else:
            assert inspect.iscoroutinefunction(other), name
            returned = other_hints["return"]
            assert (ours if returned is twin else returned) == hints["return"], name


def test_what_the_contract_names_is_there() -> None:
    methods = """generate stream beam_search loss perplexity encode decode train evaluate finetune
        save_checkpoint load_checkpoint create import_weights export_weights"""
    assert set(methods.split()) <= set(public(LanguageModel))
    sampling = (
        "prompt: str, *, max_tokens: int = 64, temperature: float = 1.0, top_k: int = 50, "
        "top_p: float = 0.95, model: str | None = None, seed: int | None = None, "
        "stop: str | collections.abc.Sequence[str] | None = None"
    )
    for name in ("generate", "stream"):
        found = str(inspect.signature(getattr(PGLLMClient, name), eval_str=True))
        assert found.startswith(f"(self, {sampling}, "), found
    beams = list(inspect.signature(PGLLMClient.beam_search).parameters.values())
    assert [p.name for p in beams[:4]] == ["self", "prompt", "beam_width", "max_tokens"]
    assert [p.default for p in beams[2:4]] == [3, 64]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in beams[2:])
    assert list(StreamEvent.__dataclass_fields__) == ["step", "token_id", "token", "text", "is_complete"]
    assert list(BeamResult.__dataclass_fields__) == ["score", "text", "token_ids"]


@pytest.mark.parametrize("autocommit", [True, False])
def test_the_async_client_gives_the_same(
    tiny: LanguageModel, server: Any, dbname: str, autocommit: bool
) -> None:
    options: dict[str, Any] = {"max_tokens": 12, "seed": 3, "model": "tiny"}
    with psycopg.connect(server.url(dbname), autocommit=True) as conn:
        client = PGLLMClient(conn)
        expected = (
            client.generate("the ", **options),
            list(client.stream("the ", **options)),
            client.beam_search("the ", beam_width=2, max_tokens=5, model="tiny"),
        )

    async def run() -> Any:
        async with await psycopg.AsyncConnection.connect(server.url(dbname), autocommit=autocommit) as conn:
            client = AsyncPGLLMClient(conn)
            stream = client.stream("the ", **options)
            first = await anext(stream)
            if autocommit:
                assert conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
            await stream.aclose()
            assert first == expected[1][0]
            if autocommit:
                assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            return (
                await client.generate("the ", **options),
                [event async for event in client.stream("the ", **options)],
                await client.beam_search("the ", beam_width=2, max_tokens=5, model="tiny"),
            )

    assert asyncio.run(run()) == expected


def test_weights_and_checkpoints_sync_and_async(tiny: LanguageModel, db_url: str, tmp_path: Path) -> None:
    """Export, change, import: the same weights; save, train, load: the same again."""
    text = tiny.generate("the ", max_tokens=12, temperature=0.0)
    count = tiny.export_weights(tmp_path / "sync.safetensors")
    first = tiny.save_checkpoint("first", keep=2)
    tiny.session.commit()

    async def run() -> None:
        engine = create_async_engine(db_url)
        seen: list[tuple[int, int]] = []
        async with AsyncSession(engine) as session:
            lm = AsyncLanguageModel(session, "tiny")
            path = tmp_path / "async.npz"
            assert await lm.export_weights(path, progress=lambda *done: seen.append(done)) == count
            assert seen[-1] == (count, count)
            await lm.train(20, batch_size=2, lr_max=1e-2)
            second = await lm.save_checkpoint(keep=2)
            assert second > first
            trained = await lm.encode("the"), await lm.loss([1, 2], [2, 3])
            assert (
                await lm.import_weights(path, tokenizer=False, progress=lambda *done: seen.append(done))
                == count
            )
            assert await lm.generate("the ", max_tokens=12, temperature=0.0) == text
            assert await lm.load_checkpoint(second) == 20
            assert (await lm.encode("the"), await lm.loss([1, 2], [2, 3])) == trained
            assert await lm.load_checkpoint(first) == 0
            assert await lm.generate("the ", max_tokens=12, temperature=0.0) == text
            await session.commit()
        await engine.dispose()

    asyncio.run(run())
    with np.load(tmp_path / "async.npz") as arrays:
        assert sum(arrays[name].size for name in arrays.files) == count
    tiny.session.expire_all()
    assert tiny.load_checkpoint(first) == 0
    assert tiny.import_weights(tmp_path / "sync.safetensors") == count
    assert tiny.generate("the ", max_tokens=12, temperature=0.0) == text
