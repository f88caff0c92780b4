"""Tensors as NumPy arrays without a server: both wire forms, psycopg's dumpers and loaders, SQL operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.pq import Format
from psycopg.types import TypeInfo
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

from llm_sql.models.types import Tensor, as_array, from_binary, from_text, to_binary, to_text
from llm_sql.types.psycopg import adapt

OID = 4711
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=5, max_side=4))


def same(a: Any, b: Any) -> bool:
    """Equal shape, type and bits, any NaN equal to any other."""
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and np.array_equal(a, b, equal_nan=True)
        and np.array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))
    )


def adapters() -> AdaptersMap:
    import psycopg

    own = AdaptersMap(psycopg.adapters)
    adapt(own, TypeInfo("tensor", OID, OID + 1))
    return own


@given(ARRAYS)
def test_both_wire_forms_keep_every_value(array: Any) -> None:
    assert same(from_text(to_text(array)), array)
    assert same(from_binary(to_binary(array)), array)


def test_text_is_the_servers() -> None:
    assert to_text([[1, 2], [3, 4]]) == "[[1.0,2.0],[3.0,4.0]]"
    assert to_text(2.5) == "2.5"
    assert to_text([float("nan"), float("inf"), -float("inf")]) == "[NaN,Infinity,-Infinity]"
    assert same(from_text("[[1,2],[3,4e-10]]"), np.array([[1, 2], [3, 4e-10]], dtype=np.float32))
    assert np.signbit(from_text("-0"))


def test_binary_is_version_type_dimensions_flags_sizes_elements() -> None:
    assert to_binary([[1.0, -2.0]]) == (
        b"\x01\x01\x02\x00" + b"\x00\x00\x00\x01\x00\x00\x00\x02" + b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    )
    assert to_binary(0.0) == b"\x01\x01\x00\x00" + b"\x00" * 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02\x01\x00\x00" + b"\x00" * 4,
        b"\x01\x01\x00\x01" + b"\x00" * 4,
        b"\x01\x01\x09\x00" + b"\x00" * 40,
        b"\x01\x01\x02\x00" + b"\x00\x00\x00\x01",
        b"\x01\x01\x01\x00" + b"\x00\x00\x00\x02" + b"\x00" * 4,
    ],
    ids=["empty", "version", "flags", "dimensions", "cut", "short"],
)
def test_bytes_that_are_no_tensor_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whatever is wrong with them
        from_binary(data)


@pytest.mark.parametrize("value", ["abc", [1, [2]], [1 + 2j], [1e300], np.zeros((1,) * 9), object()])
def test_values_that_are_no_tensor_are_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  as above
        as_array(value)


@pytest.mark.parametrize(
    "value", [3, 2.5, [1, 2], [[True, False]], np.arange(6).reshape(2, 3).T, np.float64(1.5)]
)
def test_values_of_other_types_become_float32(value: Any) -> None:
    array = as_array(value)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert np.array_equal(array, np.asarray(value))


@pytest.mark.parametrize("format", [PyFormat.TEXT, PyFormat.BINARY, PyFormat.AUTO])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_psycopg_dumps_floating_arrays_as_tensors(format: PyFormat, dtype: Any) -> None:
    transformer = Transformer(adapters())
    array = np.array([[1, 2.5]], dtype=dtype)
    dumper = transformer.get_dumper(array, format)
    assert dumper.oid == OID
    assert dumper.format == (Format.TEXT if format is PyFormat.TEXT else Format.BINARY)
    assert dumper.dump(array) == (to_text(array).encode() if format is PyFormat.TEXT else to_binary(array))


@pytest.mark.parametrize("format", [PyFormat.TEXT, PyFormat.BINARY])
@pytest.mark.parametrize(
    "array", [np.array([1, 2, 70000]), np.array([[1], [2]], dtype=np.int8), np.array([True])]
)
def test_psycopg_dumps_other_arrays_as_lists(format: PyFormat, array: Any) -> None:
    transformer = Transformer(adapters())
    expected = transformer.get_dumper(array.tolist(), format)
    dumper = transformer.get_dumper(array, format)
    assert dumper.oid == expected.oid
    assert dumper.dump(array) == expected.dump(array.tolist())
    assert dumper.quote(array) == expected.quote(array.tolist())


@pytest.mark.parametrize("format", [Format.TEXT, Format.BINARY])
def test_psycopg_loads_tensors_as_arrays(format: Format) -> None:
    transformer = Transformer(adapters())
    array = np.array([[1, -0.0], [np.nan, np.inf]], dtype=np.float32)
    data = to_text(array).encode() if format is Format.TEXT else to_binary(array)
    loaded = transformer.get_loader(OID, format).load(data)
    assert same(loaded, array)
    loaded[0, 0] = 5  # memory of its own


def test_before_the_type_exists_values_go_out_as_text_without_a_type() -> None:
    import psycopg

    own = AdaptersMap(psycopg.adapters)
    adapt(own, None)
    dumper = Transformer(own).get_dumper(np.ones(2), PyFormat.AUTO)
    assert (dumper.oid, dumper.format) == (0, Format.TEXT)


# ---- SQL ----

DIALECT = psycopg_dialect.dialect()  # type: ignore[attr-defined]
T = sa.table("t", sa.column("a", Tensor(3)), sa.column("b", Tensor()))


@pytest.mark.parametrize(
    ("expression", "sql"),
    [
        (T.c.a + T.c.b, "t.a OPERATOR(public.+) t.b"),
        (T.c.a - 1, "t.a OPERATOR(public.-) %(a_1)s::public.TENSOR"),
        (2 * T.c.a, "%(a_1)s::public.TENSOR OPERATOR(public.*) t.a"),
        (T.c.a / T.c.b, "t.a OPERATOR(public./) t.b"),
        (T.c.a / (T.c.b / 2), "t.a OPERATOR(public./) (t.b OPERATOR(public./) %(b_1)s::public.TENSOR)"),
        (1 / T.c.a, "%(a_1)s::public.TENSOR OPERATOR(public./) t.a"),
        ((T.c.a + T.c.b) / T.c.b, "(t.a OPERATOR(public.+) t.b) OPERATOR(public./) t.b"),
        (T.c.a @ T.c.b, "t.a OPERATOR(public.@) t.b"),
        ([[1.0]] @ T.c.a, "%(a_1)s::public.TENSOR OPERATOR(public.@) t.a"),
        (T.c.a @ T.c.b + T.c.b, "(t.a OPERATOR(public.@) t.b) OPERATOR(public.+) t.b"),
        (T.c.a + T.c.b * 2, "t.a OPERATOR(public.+) (t.b OPERATOR(public.*) %(b_1)s::public.TENSOR)"),
        (-T.c.a, "OPERATOR(public.-) t.a"),
        (-T.c.a + T.c.b, "(OPERATOR(public.-) t.a) OPERATOR(public.+) t.b"),
        (T.c.a == T.c.b, "t.a OPERATOR(public.=) t.b"),
        (T.c.a != T.c.b, "t.a OPERATOR(public.<>) t.b"),
        (T.c.a < T.c.b, "t.a OPERATOR(public.<) t.b"),
        (T.c.a == None, "t.a IS NULL"),  # noqa: E711
        (T.c.a.in_([T.c.b]), "t.a OPERATOR(public.=) t.b"),
        (T.c.a.in_(sa.select(T.c.b)), "t.a OPERATOR(public.=) ANY (SELECT t.b \nFROM t)"),
        (T.c.a.between(T.c.b, T.c.b), "t.a OPERATOR(public.>=) t.b AND t.a OPERATOR(public.<=) t.b"),
        (
            T.c.a.is_not_distinct_from(T.c.b),
            "coalesce(t.a OPERATOR(public.=) t.b, t.a IS NULL AND t.b IS NULL)",
        ),
        (T.c.a[1:], "public.pg_llm_slice(t.a, %(pg_llm_slice_1)s::INTEGER, %(pg_llm_slice_2)s::INTEGER, "
                    "%(pg_llm_slice_3)s::INTEGER)"),
        (T.c.a.shape(), "public.shape(t.a)"),
        (T.c.a.ndims(), "public.ndims(t.a)"),
        (T.c.a.norm(), "public.norm(t.a)"),
        (T.c.a.item(), "public.pg_llm_item(t.a)"),
        (T.c.a.transpose(), "public.pg_llm_transpose(t.a)"),
        (T.c.a.reshape(1, -1), "public.pg_llm_reshape(t.a, %(param_1)s::INTEGER[])"),
    ],
)  # fmt: skip
def test_operators_and_methods_of_columns(expression: Any, sql: str) -> None:
    assert str(expression.compile(dialect=DIALECT)) == sql


def test_results_of_operators_are_tensors_of_any_shape() -> None:
    for expression in (T.c.a + T.c.b, 2 * T.c.a, T.c.a @ T.c.b, T.c.a[1:]):
        assert isinstance(expression.type, Tensor)
        assert expression.type.shape == ()


def test_literals_are_written_with_their_type() -> None:
    written = sa.literal(np.array([[1, 2]]), Tensor()).compile(
        dialect=DIALECT, compile_kwargs={"literal_binds": True}
    )
    assert str(written) == "'[[1.0,2.0]]'::public.tensor"


def test_values_that_are_no_tensor_are_refused_before_they_are_sent() -> None:
    process = Tensor().bind_processor(DIALECT)
    assert process(None) is None
    assert process([1, 2]) == "[1.0,2.0]"
    with pytest.raises(ValueError, match="range"):
        process([1e39])


def test_results_of_drivers_that_do_not_know_tensors_become_arrays() -> None:
    process = Tensor().result_processor(DIALECT, None)
    assert process(None) is None
    assert same(process("[1,2]"), np.array([1, 2], dtype=np.float32))
    assert same(process(to_binary([1, 2])), np.array([1, 2], dtype=np.float32))


def test_columns_in_ddl() -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("a", Tensor()), sa.Column("b", Tensor(3, 4)))
    ddl = str(sa.schema.CreateTable(table).compile(dialect=DIALECT))
    assert "a public.TENSOR" in ddl
    assert "b public.TENSOR(3,4)" in ddl


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=2))
def test_slices_read_as_in_python(bounds: list[int]) -> None:
    from llm_sql.models.types import slices

    array = np.arange(4)
    [(axis, start, stop)] = slices(slice(*bounds))
    assert axis == 0
    assert np.array_equal(array[start:stop], array[bounds[0] : bounds[1]])
