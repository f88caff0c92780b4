"""The column type `tensor`: DDL, reflection, SQL operators, and values as NumPy arrays on the Python side.

What a driver has been taught about tensors (llm_sql.types) passes through as arrays; for any other, values
travel as text. Both wire forms are defined here, once: `to_text`, `from_text`, `to_binary`, `from_binary`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sqlalchemy import ARRAY, Double, Integer, func, literal
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.operators import OperatorType

TensorValue = np.ndarray[Any, np.dtype[np.float32]]

MAX_NDIM = 8
_VERSION, _FLOAT32, _NO_FLAGS = 1, 1, 0
_LAST = 2**31 - 1
_DIV = 8  # binds like * and /


# ---- wire forms ----


def as_array(value: Any) -> TensorValue:
    """`value` as a contiguous float32 array.

    ValueError for what is no array of numbers, for more than 8 dimensions, and for numbers beyond float32's
    range.
    """
    try:
        with np.errstate(over="raise"):
            array = np.asarray(value).astype(np.float32, order="C", casting="same_kind", copy=False)
    except TypeError:
        raise ValueError(f"values of type {np.asarray(value).dtype} do not make a tensor") from None
    except FloatingPointError:
        raise ValueError("a number is out of float32's range") from None
    if array.ndim > MAX_NDIM:
        raise ValueError(f"a tensor has at most {MAX_NDIM} dimensions, not {array.ndim}")
    return array


def to_text(value: Any) -> str:
    """A tensor as the server reads it: `[[1.0,2.0],[3.0,4.0]]`, a bare number for 0 dimensions.

    One without elements has its shape in front where lists would not show it: `{0,3}[]`.
    """
    array = as_array(value)
    if array.size == 0 and array.ndim > 1:
        return "{" + ",".join(map(str, array.shape)) + "}[]"
    return json.dumps(array.tolist(), separators=(",", ":"))


def from_text(text: str) -> TensorValue:
    """An array from the server's text."""
    if text.startswith("{"):
        shape = text[1 : text.index("}")].split(",")
        return np.empty([int(dimension) for dimension in shape], dtype=np.float32)
    # parse_int: an integer zero would lose its sign.
    return np.array(json.loads(text, parse_int=float), dtype=np.float32)


def to_binary(value: Any) -> bytes:
    """A tensor in the binary protocol: version, element type, number of dimensions and flags in a byte each,
    int32 dimensions in network order, float32 elements in little-endian order.
    """
    array = as_array(value)
    head = bytes((_VERSION, _FLOAT32, array.ndim, _NO_FLAGS)) + np.array(array.shape, dtype=">i4").tobytes()
    return head + array.astype("<f4", copy=False).tobytes()


def from_binary(data: bytes | bytearray | memoryview) -> TensorValue:
    """An array, of its own memory, from the binary protocol. ValueError when the bytes are no tensor."""
    if len(data) < 4 or (data[0], data[1], data[3]) != (_VERSION, _FLOAT32, _NO_FLAGS) or data[2] > MAX_NDIM:
        raise ValueError(f"no tensor of a known format begins with {bytes(data[:4])!r}")
    start = 4 + 4 * data[2]
    if len(data) < start:
        raise ValueError("a binary tensor ends within its dimensions")
    shape = tuple(int(n) for n in np.frombuffer(data, dtype=">i4", count=data[2], offset=4))
    elements = np.frombuffer(data, dtype="<f4", offset=start)
    return elements.reshape(shape).astype(np.float32)


# ---- the type ----


class Tensor(UserDefinedType[TensorValue]):
    """An n-dimensional float32 array, row-major, with its shape in the value.

    `Tensor(768)` and `Tensor(768, 768)` fix one or two dimensions by typmod; with more, or none, the column
    takes any shape and a CHECK on `shape(x)` is the way to fix it.

    Expressions of this type have `+ - * /` with NumPy's broadcasting, `@`, unary `-`, comparisons, slices of
    leading axes (`t[1:3]`, `t[:, -1:]`) and the methods of `Tensor.Comparator`. An operand may be a column,
    an array, or a number; an array on the left of a column is NumPy's to interpret, so write the column
    first.
    """

    cache_ok = True
    render_bind_cast = True

    def __init__(self, *shape: int | str) -> None:
        # Reflection passes the typmod as the catalog prints it, in strings.
        self.shape = tuple(int(dimension) for dimension in shape)
        if len(self.shape) > 2:
            raise ValueError(f"a typmod fixes at most two dimensions, not {len(self.shape)}")

    def get_col_spec(self, **_: Any) -> str:
        if not self.shape:
            return "TENSOR"
        return f"TENSOR({','.join(map(str, self.shape))})"

    @property
    def python_type(self) -> type[Any]:
        return np.ndarray

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        def process(value: Any) -> Any:
            if value is None or isinstance(value, str):
                return value
            # Asked for each value: a dialect may compile statements before its first connection.
            return as_array(value) if getattr(dialect, ADAPTED, False) else to_text(value)

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        def process(value: Any) -> Any:
            if value is None or isinstance(value, np.ndarray):
                return value
            return from_text(value) if isinstance(value, str) else from_binary(value)

        return process

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        def process(value: Any) -> str:
            text = value if isinstance(value, str) else to_text(value)
            quoted = text.replace("'", "''")
            return f"'{quoted}'::public.tensor"

        return process

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> Tensor:
        return Tensor()  # the other operand's shape is its own

    class Comparator(UserDefinedType.Comparator[TensorValue]):
        """Operators and methods of expressions of type tensor."""

        def _adapt_expression(self, op: OperatorType, other_comparator: Any) -> tuple[OperatorType, Any]:
            return op, Tensor()  # broadcasting: not this operand's typmod

        # SQLAlchemy has no @ for PostgreSQL, and casts what stands behind its own / to numeric.

        def __matmul__(self, other: Any) -> ColumnElement[Any]:
            return cast("ColumnElement[Any]", self.op("@", return_type=Tensor())(other))

        def __rmatmul__(self, other: Any) -> ColumnElement[Any]:
            return cast(
                "ColumnElement[Any]", literal(other, Tensor()).op("@", return_type=Tensor())(self.expr)
            )

        def __truediv__(self, other: Any) -> ColumnElement[Any]:
            return cast("ColumnElement[Any]", self.op("/", precedence=_DIV, return_type=Tensor())(other))

        def __rtruediv__(self, other: Any) -> ColumnElement[Any]:
            divide = literal(other, Tensor()).op("/", precedence=_DIV, return_type=Tensor())
            return cast("ColumnElement[Any]", divide(self.expr))

        def __getitem__(self, index: Any) -> ColumnElement[Any]:
            sliced = self.expr
            for axis, start, stop in slices(index):
                sliced = func.public.pg_llm_slice(sliced, axis, start, stop, type_=Tensor())
            return sliced

        def shape(self) -> ColumnElement[list[int]]:
            """The dimensions, int[]."""
            return func.public.shape(self.expr, type_=ARRAY(Integer))

        def ndims(self) -> ColumnElement[int]:
            """The number of dimensions."""
            return func.public.ndims(self.expr, type_=Integer())

        def norm(self) -> ColumnElement[float]:
            """The square root of the sum of squares of all elements."""
            return func.public.norm(self.expr, type_=Double())

        def item(self) -> ColumnElement[float]:
            """The number in a tensor of one element."""
            return func.public.pg_llm_item(self.expr, type_=Double())

        def transpose(self) -> ColumnElement[Any]:
            """The last two axes exchanged."""
            return func.public.pg_llm_transpose(self.expr, type_=Tensor())

        def reshape(self, *shape: int) -> ColumnElement[Any]:
            """The same elements in another shape of the same size; one size may be -1."""
            return func.public.pg_llm_reshape(self.expr, literal(list(shape), ARRAY(Integer)), type_=Tensor())

    comparator_factory = Comparator


def slices(index: Any) -> Iterator[tuple[int, int, int]]:
    """(axis, start, stop) of each axis that a subscript of slices cuts; IndexError for other subscripts."""
    for axis, part in enumerate(index if isinstance(index, tuple) else (index,)):
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise IndexError("a tensor expression takes slices of step 1: t[1:3], t[:, -1:]")
        if part.start is not None or part.stop is not None:
            yield axis, part.start or 0, _LAST if part.stop is None else part.stop


ADAPTED = "llm_sql_adapts_tensors"
"""Set on a dialect whose connections take and give tensors as arrays (llm_sql.types.adapt_engine)."""

ischema_names.setdefault("tensor", Tensor)
