"""What is ours is found whatever the search_path is, and nobody else's in its place: the Python surface."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from llm_sql import AsyncLanguageModel, LanguageModel, functions, models
from llm_sql.client import PGLLMClient
from llm_sql.types import Tensor, adapt_engine, register_tensor

from ..amount import extended
from ..cli.test_settings import LOOK_ALIKES

PATHS = {"empty": "", "elsewhere": "app", "in front": "app,public", "catalog last": "app,pg_catalog"}


@pytest.fixture(params=PATHS)
def path(request: Any, tiny: LanguageModel, db_url: str) -> Iterator[Engine]:
    """An engine whose connections have a foreign path, with look-alikes of ours on it."""
    with tiny.session.connection().engine.connect() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS app CASCADE")
        connection.exec_driver_sql(LOOK_ALIKES)
        connection.commit()
    engine = create_engine(db_url, connect_args={"options": f"-csearch_path={PATHS[request.param]}"})
    adapt_engine(engine)
    yield engine
    engine.dispose()


def test_mapped_classes_and_methods(path: Engine, tiny: LanguageModel, tmp_path: Path) -> None:
    with Session(path) as session:
        for mapper in models.Base.registry.mappers:
            session.execute(select(mapper.class_).limit(1)).all()
        assert session.get(models.ModelConfig, "tiny") is not None
        parameter = session.get(models.Param, ("tiny", "wpe.weight", 0))
        assert parameter is not None
        parameter.data = parameter.data * np.float32(1)
        session.flush()
        lm = LanguageModel(session, "tiny")
        greedy = {"max_tokens": 5, "temperature": 0.0}
        expected = tiny.generate("the ", **greedy)
        assert lm.generate("the ", **greedy) == expected != "stranger"
        assert [event.text for event in lm.stream("the ", **greedy)][-1] == expected
        np.testing.assert_array_equal(lm.embed("the cat"), tiny.embed("the cat"))
        assert lm.beam_search("the ", max_tokens=3)
        assert lm.decode(lm.encode("the cat")) == "the cat"
        assert lm.loss([1, 2], [2, 3]) > 0
        assert lm.perplexity("the cat") > 1
        assert lm.evaluate("train").tokens > 0
        lm.export_weights(tmp_path / "w.safetensors")
        lm.import_weights(tmp_path / "w.safetensors")
        lm.train(2, log_every=0, progress=lambda _: None)
        lm.finetune(
            "SELECT 'the cat ran' || n FROM pg_catalog.unnest('{\" \", a}'::text[]) n", 2, log_every=0
        )
        lm.load_checkpoint(lm.save_checkpoint())
        session.commit()
        lm.train(2, commit_every=1, log_every=0)


def test_clients_and_expressions(path: Engine, tiny: LanguageModel) -> None:
    with path.connect() as connection:
        raw: Any = connection.connection.driver_connection
        client = PGLLMClient(raw)
        options: dict[str, Any] = {"max_tokens": 5, "temperature": 0.0, "model": "tiny"}
        assert client.generate("the ", **options) == tiny.generate("the ", max_tokens=5, temperature=0.0)
        assert list(client.stream("the ", **options))
        assert client.beam_search("the ", model="tiny", max_tokens=2)
        register_tensor(raw)
        one = sa.literal(np.ones(3, np.float32), Tensor())
        two = np.full(3, 2, np.float32)
        rows = [
            (one + one, two), (one - 1, two - 2), (one * 2, two), (2 / one, two), (-one, -two / 2),
            (one @ one, np.float32(3)), (one == one, True), (one < two, True), (one.in_([two]), False),
            (one.is_distinct_from(two), True), (one.between(one, two), True), (one.norm(), 3**0.5),
            (one[1:], two[1:] / 2), (one.reshape(3, 1).shape(), [3, 1]),
        ]  # fmt: skip
        for expression, value in rows:
            found = connection.execute(select(expression)).scalar_one()
            np.testing.assert_allclose(found, value, rtol=1e-6, err_msg=str(expression))
        assert connection.execute(select(functions.loss("tiny", [1, 2], [2, 3]))).scalar_one() > 0


class Base(DeclarativeBase):
    pass


class Document(Base):
    """An application's table, with a foreign key of its own to one of ours."""

    __tablename__ = "app_document"
    __table_args__ = {"schema": "mine"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(sa.ForeignKey(models.ModelConfig.model))
    embedding: Mapped[Any] = mapped_column(Tensor(3))
    other: Mapped[Any | None] = mapped_column(Tensor())


def test_ddl_and_reflection(path: Engine) -> None:
    with path.connect() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS mine CASCADE"))
        connection.execute(text("CREATE SCHEMA mine"))
        Base.metadata.create_all(connection)
        session = Session(connection)
        session.add(Document(id=1, model="tiny", embedding=[1, 2, 3]))
        session.flush()
        session.expire_all()
        assert session.get(Document, 1).embedding.tolist() == [1, 2, 3]  # type: ignore[union-attr]
        reflected = sa.Table("app_document", sa.MetaData(), schema="mine", autoload_with=connection)
        for column, shape in (("embedding", (3,)), ("other", ())):
            assert isinstance(reflected.c[column].type, Tensor)
            assert reflected.c[column].type.shape == shape
        connection.rollback()


def test_lists_and_arrays_go_into_tensor_columns(tiny: LanguageModel, connect: Any) -> None:
    raw: psycopg.Connection[Any] = connect(autocommit=False)
    raw.execute("CREATE TEMP TABLE kept (x public.tensor)")
    values: list[Any] = [np.ones((2, 2), np.float32), np.ones(2), [1.5, 2.5], [[1.0], [2.0]]]
    for value in values:
        raw.execute("INSERT INTO kept VALUES (%s::public.tensor)", (value,))
    found = [x for (x,) in raw.execute("SELECT x FROM kept").fetchall()]
    for value, x in zip(values, found, strict=True):
        np.testing.assert_array_equal(x, np.asarray(value, np.float32))


def test_frames_hold_arrays(tiny: LanguageModel) -> None:
    pandas = pytest.importorskip("pandas")
    connection = tiny.session.connection()
    frame = pandas.read_sql("SELECT data FROM llm_param WHERE model = 'tiny'", connection)
    assert all(isinstance(value, np.ndarray) for value in frame["data"])


def test_asynchronous_methods(tiny: LanguageModel, db_url: str) -> None:
    async def run() -> None:
        engine = create_async_engine(db_url, connect_args={"options": "-csearch_path="})
        async with AsyncSession(engine) as session:
            lm = AsyncLanguageModel(session, "tiny")
            assert [event async for event in lm.stream("the ", max_tokens=3, seed=1)]
            await lm.train(2, log_every=0, progress=lambda _: None)
        await engine.dispose()

    asyncio.run(run())


USER = """
import psycopg
from pg_llm_client import PGLLMClient
from sqlalchemy.orm import Session
from llm_sql import AsyncLanguageModel, LanguageModel, PGLLMClient as Same
from llm_sql.models import Param
from llm_sql.types import Tensor

def text(connection: psycopg.Connection, session: Session) -> str:
    for event in PGLLMClient(connection).stream("a"):
        reveal_type(event.token)
    reveal_type(LanguageModel(session, "m").generate("a"))
    reveal_type(Param.step)
    return Same(connection).generate("a")
"""


@extended
def test_a_users_file_is_checked_against_our_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(root / ".mypy_cache"), "user.py"],
        cwd=tmp_path, capture_output=True, text=True,
        env={"MYPYPATH": f"{root}:{root / 'build' / 'typing'}", "PATH": ""},
    )  # fmt: skip
    assert 'Revealed type is "str"' in done.stdout or "builtins.str" in done.stdout, done.stdout
    assert "Any" not in done.stdout, done.stdout
    assert (root / "llm_sql" / "py.typed").exists()
