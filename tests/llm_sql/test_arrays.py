"""Tensors as NumPy arrays through a server: psycopg and SQLAlchemy, text and binary, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as hnp
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from llm_sql.models import NamedTensor, Param
from llm_sql.models.types import Tensor
from llm_sql.types import adapt_engine, register_tensor, register_tensor_async

from .test_types import same

VALUES = np.array([[1.5, -0.0, np.nan], [np.inf, -np.inf, 1e-45]], dtype=np.float32)
A = np.array([[1, 2, 3], [4, 5, 7]], dtype=np.float32)
B = np.array([2, -4, 8], dtype=np.float32)
FORMATS = pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
PLACEHOLDERS = pytest.mark.parametrize("placeholder", ["%s", "%t", "%b"])

# ---- psycopg ----


@FORMATS
@PLACEHOLDERS
def test_a_value_goes_out_and_comes_back(
    conn: psycopg.Connection[Any], binary: bool, placeholder: str
) -> None:
    cursor = conn.cursor(binary=binary)
    for prepare in (None, True):
        [found] = cursor.execute(f"SELECT {placeholder}", (VALUES,), prepare=prepare).fetchone() or ()
        assert same(found, VALUES)


@FORMATS
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=8, max_side=3)))
def test_any_array_does(conn: psycopg.Connection[Any], binary: bool, array: Any) -> None:
    placeholder = "%b" if binary else "%t"
    row = conn.execute(f"SELECT {placeholder}::tensor, shape({placeholder})", (array, array), binary=binary)
    found, shape = row.fetchone() or (None, None)
    assert same(found, array)
    assert tuple(shape) == array.shape


@FORMATS
def test_empty_arrays_keep_their_shape(conn: psycopg.Connection[Any], binary: bool) -> None:
    for shape in ((0,), (2, 0)):
        empty = np.zeros(shape, dtype=np.float32)
        [found] = conn.execute("SELECT %s", (empty,), binary=binary).fetchone() or ()
        assert same(found, empty)


@FORMATS
def test_null_is_none(conn: psycopg.Connection[Any], binary: bool) -> None:
    assert conn.execute("SELECT NULL::tensor", binary=binary).fetchone() == (None,)


@FORMATS
def test_arrays_of_tensors_are_lists(conn: psycopg.Connection[Any], binary: bool) -> None:
    [found] = conn.execute("SELECT %s::tensor[]", ([VALUES, VALUES[0]],), binary=binary).fetchone() or ()
    assert same(found[0], VALUES)
    assert same(found[1], VALUES[0])


def test_integers_are_token_ids(conn: psycopg.Connection[Any]) -> None:
    ids = np.array([[3, 1], [0, 2]])
    assert conn.execute("SELECT pg_llm_positions(%s)", (ids,)).fetchone() == ([[0, 1], [0, 1]],)


def test_a_client_cursor_interpolates_arrays(conn: psycopg.Connection[Any]) -> None:
    cursor = psycopg.ClientCursor(conn)
    [found] = cursor.execute("SELECT %s::tensor", (VALUES,)).fetchone() or ()
    assert same(found, VALUES)


@FORMATS
def test_copy_takes_and_gives_arrays(conn: psycopg.Connection[Any], binary: bool) -> None:
    conn.execute("CREATE TEMP TABLE copied (i int, t tensor)")
    form = "(FORMAT binary)" if binary else ""
    with conn.cursor().copy(f"COPY copied FROM STDIN {form}") as copy:
        copy.set_types(["int4", "tensor"])
        copy.write_row((1, VALUES))
    with conn.cursor().copy(f"COPY copied TO STDOUT {form}") as copy:
        copy.set_types(["int4", "tensor"])
        [(_, found)] = list(copy.rows())
    assert same(found, VALUES)


def test_a_database_without_the_extension_is_an_error_with_a_way_out(server: Any) -> None:
    name = server.create_database()
    try:
        with (
            psycopg.connect(server.url(name)) as connection,
            pytest.raises(psycopg.ProgrammingError, match="alembic upgrade head"),
        ):
            register_tensor(connection)
    finally:
        server.drop_database(name)


@FORMATS
def test_asynchronous_connections(server: Any, dbname: str, binary: bool) -> None:
    async def round_trip() -> Any:
        async with await psycopg.AsyncConnection.connect(server.url(dbname)) as connection:
            await register_tensor_async(connection)
            cursor = connection.cursor(binary=binary)
            await cursor.execute("SELECT %s", (VALUES,))
            return await cursor.fetchone()

    [found] = asyncio.run(round_trip())
    assert same(found, VALUES)


# ---- SQLAlchemy ----


@pytest.fixture(params=["adapted", "plain"])
def any_session(request: pytest.FixtureRequest, db_url: str) -> Iterator[Session]:
    """Over an engine that has been taught about tensors, and over one that has not."""
    engine = sa.create_engine(db_url)
    if request.param == "adapted":
        adapt_engine(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_a_mapped_column_takes_and_gives_arrays(any_session: Session) -> None:
    any_session.add(NamedTensor(model="m", name="t", data=VALUES, shape=list(VALUES.shape)))
    any_session.flush()
    any_session.expire_all()
    assert same(any_session.scalars(sa.select(NamedTensor)).one().data, VALUES)
    any_session.execute(sa.update(NamedTensor).values(data=[[1, 2]], shape=[1, 2]))
    any_session.expire_all()
    assert same(any_session.scalars(sa.select(NamedTensor.data)).one(), np.array([[1, 2]], dtype=np.float32))


def test_many_rows_in_one_insert(any_session: Session) -> None:
    rows = [{"model": "m", "name": str(i), "data": A * i, "shape": [2, 3]} for i in range(50)]
    any_session.execute(sa.insert(NamedTensor), rows)
    found = any_session.execute(sa.select(NamedTensor.name, NamedTensor.data)).all()
    assert len(found) == 50
    assert all(same(data, A * np.float32(name)) for name, data in found)


OPERATIONS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "matmul": lambda a, b: a @ b.reshape(3, 1),
    "constant matmul": lambda a, b: [[1.0, -2.0]] @ a,
    "neg": lambda a, b: -a,
    "scalar": lambda a, b: 2 * a - 1,
    "quotient": lambda a, b: 1 / a / (b / 2),
    "slice": lambda a, b: a[1:],
    "slices": lambda a, b: a[:, -2:],
    "reshape": lambda a, b: a.reshape(3, -1),
    "transpose": lambda a, b: a.transpose(),
    "mixed": lambda a, b: -(a + b) * a / 2 + a,
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_operators_compute_what_numpys_do(any_session: Session, operation: Any) -> None:
    table = sa.table("v", sa.column("a", Tensor()), sa.column("b", Tensor()))
    any_session.execute(sa.text("CREATE TEMP TABLE v (a tensor, b tensor(3)) ON COMMIT DROP"))
    any_session.execute(sa.insert(table).values(a=A, b=B))
    found = any_session.execute(sa.select(operation(table.c.a, table.c.b))).scalar_one()
    assert same(found, np.ascontiguousarray(operation(A, B), dtype=np.float32))


def test_accessors_and_comparisons(any_session: Session) -> None:
    value = sa.literal(A, Tensor())
    row = any_session.execute(
        sa.select(value.shape(), value.ndims(), value.norm(), sa.literal(3.0, Tensor()).item(), value == A)
    ).one()
    assert row[:2] == ([2, 3], 2)
    assert row[2] == pytest.approx(np.linalg.norm(A))
    assert row[3:] == (3.0, True)


def test_literals_and_casts(any_session: Session) -> None:
    written = sa.select(sa.literal(VALUES, Tensor()).label("x")).compile(
        any_session.connection().engine, compile_kwargs={"literal_binds": True}
    )
    assert same(any_session.execute(sa.text(str(written)).columns(x=Tensor())).scalar_one(), VALUES)
    cast = sa.cast(sa.literal([1.0, 2.0], sa.ARRAY(sa.Double)), Tensor(2))
    assert same(any_session.execute(sa.select(cast)).scalar_one(), np.array([1, 2], dtype=np.float32))


def test_a_typmod_is_enforced(any_session: Session) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        any_session.execute(sa.select(sa.cast(sa.literal(A, Tensor()), Tensor(4))))


def test_columns_are_reflected(engine: sa.Engine) -> None:
    columns = {c["name"]: c["type"] for c in sa.inspect(engine).get_columns("llm_param")}
    assert isinstance(columns["data"], Tensor)
    assert Param.__table__.c.data.type.shape == columns["data"].shape


def test_an_engine_may_be_adapted_before_the_type_exists(server: Any) -> None:
    name = server.create_database()
    engine = sa.create_engine(server.sqlalchemy_url(name))
    adapt_engine(engine)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("CREATE EXTENSION pg_llm"))
            assert same(connection.execute(sa.select(sa.literal(VALUES, Tensor()))).scalar_one(), VALUES)
            connection.commit()
        engine.dispose()
        with engine.connect() as connection:
            assert same(connection.execute(sa.select(sa.literal(VALUES, Tensor()))).scalar_one(), VALUES)
    finally:
        engine.dispose()
        server.drop_database(name)


def test_asynchronous_sessions(db_url: str) -> None:
    async def round_trip() -> Any:
        engine = create_async_engine(db_url)
        adapt_engine(engine)
        async with AsyncSession(engine) as session:
            session.add(NamedTensor(model="m", name="t", data=VALUES, shape=[2, 3]))
            await session.flush()
            found = (await session.execute(sa.select(NamedTensor.data + 0.0))).scalar_one()
        await engine.dispose()
        return found

    assert np.array_equal(asyncio.run(round_trip()), VALUES, equal_nan=True)


def test_other_drivers_are_refused() -> None:
    with pytest.raises(sa.exc.ArgumentError, match="pysqlite"):
        adapt_engine(sa.create_engine("sqlite://"))
