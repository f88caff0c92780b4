"""Imports, exports and training beside what a session holds: every pool, every isolation level."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, pool, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from llm_sql import AsyncLanguageModel, LanguageModel, Progress
from llm_sql.corpus import FileSource, LoadOptions, QuerySource, load
from llm_sql.errors import UsageError

ENGINES: dict[str, dict[str, Any]] = {
    "default": {},
    "AUTOCOMMIT": {"isolation_level": "AUTOCOMMIT"},
    "SERIALIZABLE": {"isolation_level": "SERIALIZABLE"},
    "StaticPool": {"poolclass": pool.StaticPool},
    "SingletonThreadPool": {"poolclass": pool.SingletonThreadPool},
    "AssertionPool": {"poolclass": pool.AssertionPool},
    "NullPool": {"poolclass": pool.NullPool},
    "pool of one": {"pool_size": 1, "max_overflow": 0, "pool_timeout": 2},
}
FIND = text("SELECT n FROM note ORDER BY n")


@pytest.fixture(params=ENGINES)
def held(request: Any, tiny: LanguageModel, db_url: str) -> Iterator[Session]:
    """A session with work that is not committed yet (in AUTOCOMMIT there is none such)."""
    tiny.session.execute(text("CREATE TABLE note (n int)"))
    tiny.session.commit()
    engine = create_engine(db_url, **ENGINES[request.param])
    with Session(engine) as session:
        session.execute(text("INSERT INTO note VALUES (1)"))
        yield session
        session.rollback()
    engine.dispose()
    tiny.session.execute(text("DROP TABLE note"))
    tiny.session.commit()


def is_autocommit(session: Session) -> bool:
    return bool(session.connection().connection.dbapi_connection.autocommit)  # type: ignore[union-attr]


def seen_by_others(tiny: LanguageModel) -> list[int]:
    tiny.session.rollback()
    return list(tiny.session.scalars(FIND))


# Progress is looked at now and then: a run may be over before the other connection is open. Each is twice as
# long as the one before, in the end longer than any connection takes to open.
LENGTHS = [300 * 2**n for n in range(10)]


def test_training_leaves_the_sessions_work_alone(held: Session, tiny: LanguageModel) -> None:
    lm = LanguageModel(held, "tiny")
    reports: list[Progress] = []
    for length in LENGTHS:
        lm.train(length, batch_size=2, log_every=0, progress=reports.append)
        if reports:
            break
    assert reports[-1].model == "tiny"
    assert list(held.scalars(FIND)) == [1]
    assert seen_by_others(tiny) == ([1] if is_autocommit(held) else [])
    held.commit()
    assert seen_by_others(tiny) == [1]


def test_training_that_commits_uses_a_connection_of_its_own(held: Session, tiny: LanguageModel) -> None:
    LanguageModel(held, "tiny").train(4, commit_every=2, log_every=0, progress=lambda _: None)
    if not is_autocommit(held):
        assert seen_by_others(tiny) == []
    held.commit()
    assert seen_by_others(tiny) == [1]
    logged = text("SELECT count(*) FROM llm_train_log WHERE model = 'tiny'")
    assert tiny.session.scalar(logged) == 4


def test_an_import_is_all_or_nothing(held: Session, tiny: LanguageModel, tmp_path: Path) -> None:
    lm = LanguageModel(held, "tiny")
    lm.export_weights(tmp_path / "before.safetensors")
    tiny.session.execute(text("SELECT llm_init_model('tiny', 99)"))
    tiny.session.commit()
    if not is_autocommit(held):
        held.rollback()
        held.execute(text("INSERT INTO note VALUES (1)"))
    expected = tiny.generate("the ", max_tokens=12, temperature=1.0, seed=2)
    calls = []

    def third_time(done: int, total: int) -> None:
        calls.append(done)
        with pytest.raises(UsageError, match="another"):
            held.connection().exec_driver_sql("INSERT INTO note VALUES (2)")
        if len(calls) == 3:
            raise KeyError("third")

    with pytest.raises(KeyError, match="third"):
        lm.import_weights(tmp_path / "before.safetensors", progress=third_time)
    assert len(calls) == 3
    held.commit()
    assert seen_by_others(tiny) == [1]
    assert tiny.generate("the ", max_tokens=12, temperature=1.0, seed=2) == expected
    lm.import_weights(tmp_path / "before.safetensors")
    held.rollback()
    lm.import_weights(tmp_path / "before.safetensors")
    held.commit()
    lm.export_weights(tmp_path / "after.safetensors")
    assert (tmp_path / "after.safetensors").read_bytes() == (tmp_path / "before.safetensors").read_bytes()


def test_an_export_holds_one_version(held: Session, tiny: LanguageModel, tmp_path: Path) -> None:
    def change_once(done: int, total: int) -> None:
        if done < total and not changes:
            changes.append(done)
            tiny.session.execute(text("SELECT llm_init_model('tiny', 5)"))
            tiny.session.commit()

    changes: list[int] = []
    lm = LanguageModel(held, "tiny")
    lm.export_weights(tmp_path / "calm.safetensors")
    held.commit()
    lm.export_weights(tmp_path / "disturbed.safetensors", progress=change_once)
    assert changes
    assert (tmp_path / "calm.safetensors").read_bytes() == (tmp_path / "disturbed.safetensors").read_bytes()


def test_loading_a_corpus_leaves_the_sessions_work_alone(
    held: Session, tiny: LanguageModel, tmp_path: Path
) -> None:
    engine: Any = held.get_bind()
    (tmp_path / "text").write_text("the cat sat the dog ran " * 20)
    options = LoadOptions(block_size=8, stride=8)
    assert load(engine, "tiny", FileSource([tmp_path / "text"]), options).train_rows > 0
    query = QuerySource(engine, "SELECT 'the cat ran ' || repeat('a', n) FROM generate_series(1, 9) n")
    assert load(engine, "tiny", query, options).train_rows > 0
    held.rollback()
    assert seen_by_others(tiny) == ([1] if is_autocommit(held) else [])


def test_an_error_of_the_callback_is_raised_when_the_run_has_ended(tiny: LanguageModel) -> None:
    def fails(_: Progress) -> None:
        raise KeyError("mine")

    def train() -> None:
        for length in LENGTHS:
            tiny.train(length, batch_size=2, log_every=0, progress=fails)

    with pytest.raises(KeyError, match="mine"):
        train()
    steps: int = tiny.session.scalars(text("SELECT count(*) FROM llm_train_log")).one()
    assert steps > 0
    assert steps % 300 == 0


def test_a_connection_of_the_users_own_reports_by_notices(tiny: LanguageModel, connect: Any) -> None:
    mine = connect(autocommit=False)
    engine = create_engine("postgresql+psycopg://", creator=lambda: mine, poolclass=pool.StaticPool)
    reports: list[Progress] = []
    with Session(engine) as session:
        session.execute(text("CREATE TEMP TABLE kept (n int)"))
        LanguageModel(session, "tiny").train(4, progress=reports.append)
        assert [(r.step, r.total) for r in reports] == [(n, 4) for n in (1, 2, 3, 4)]
        assert session.scalar(text("SELECT count(*) FROM kept")) == 0
        session.rollback()
        with pytest.raises(UsageError, match="creator"):
            LanguageModel(session, "tiny").train(4, commit_every=2)


def test_a_session_that_changed_the_model_does_not_wait_for_itself(tiny: LanguageModel) -> None:
    tiny.session.execute(text("UPDATE llm_param SET step = step WHERE model = 'tiny'"))
    with pytest.raises(UsageError, match="wait"):
        tiny.train(4, commit_every=2)


@pytest.mark.parametrize("name", ["default", "AUTOCOMMIT", "StaticPool", "pool of one"])
def test_asynchronous_sessions(tiny: LanguageModel, db_url: str, name: str, tmp_path: Path) -> None:
    async def run() -> list[Progress]:
        engine = create_async_engine(db_url, **ENGINES[name])
        reports: list[Progress] = []
        async with AsyncSession(engine) as session:
            lm = AsyncLanguageModel(session, "tiny")
            await session.execute(text("CREATE TEMP TABLE kept (n int)"))
            for length in LENGTHS:
                await lm.train(length, batch_size=2, log_every=0, progress=reports.append)
                if reports:
                    break
            assert await session.scalar(text("SELECT count(*) FROM kept")) == 0
            await lm.export_weights(tmp_path / "w.safetensors")

            def fails(done: int, total: int) -> None:
                raise KeyError("mine")

            with pytest.raises(KeyError):
                await lm.import_weights(tmp_path / "w.safetensors", progress=fails)
            assert await session.scalar(text("SELECT count(*) FROM llm_param WHERE model = 'tiny'")) > 3  # type: ignore[operator]
            await session.commit()
            await lm.train(4, commit_every=2, progress=lambda _: None)
        await engine.dispose()
        return reports

    assert asyncio.run(run())


def test_arrays_do_not_pretend_to_be_written(tiny: LanguageModel) -> None:
    from llm_sql.models import Param

    parameter = tiny.session.get(Param, ("tiny", "wpe.weight", 0))
    assert parameter is not None
    with pytest.raises(ValueError, match="read-only"):
        parameter.data[0] = 7
    mine = parameter.data + np.float32(1)
    parameter.data = mine
    with pytest.raises(ValueError, match="read-only"):
        parameter.data[0] = 7
    tiny.session.commit()
    np.testing.assert_array_equal(parameter.data, mine)
