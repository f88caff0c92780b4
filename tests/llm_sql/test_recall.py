"""LanguageModel.recall, and its asynchronous twin."""

from __future__ import annotations

import asyncio

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from llm_sql import AsyncLanguageModel, LanguageModel, Recall
from llm_sql.url import libpq_url

from ..support.encoder_pairs import add_pairs, make_bert


def test_recall_sync_and_async(db_url: str) -> None:
    with psycopg.connect(libpq_url(db_url), autocommit=True) as conn:
        make_bert(conn)
        add_pairs(conn, "bert", rows=8)
    engine = create_engine(db_url)
    with Session(engine) as session:
        found = LanguageModel(session, "bert").recall("train", 3)
    engine.dispose()
    assert isinstance(found, Recall)
    assert (found.pairs, found.candidates) == (8, 8)
    assert 0 <= found.recall <= 1

    async def run() -> Recall:
        engine = create_async_engine(db_url)
        async with AsyncSession(engine) as session:
            again = await AsyncLanguageModel(session, "bert").recall("train", 3)
        await engine.dispose()
        return again

    assert asyncio.run(run()) == found
