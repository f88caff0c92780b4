"""The column type `tensor`: DDL, reflection, SQL operators, and values as NumPy arrays on the Python side.

What a driver has been taught about tensors (llm_sql.types) passes through as arrays; for any other, values
travel as text. Both wire forms are defined here, once: `to_text`, `from_text`, `to_binary`, `from_binary`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import (
    ARRAY,
    BinaryExpression,
    Boolean,
    ClauseElement,
    Double,
    Integer,
    Null,
    UnaryExpression,
    and_,
    event,
    false,
    func,
    literal,
    not_,
    or_,
)
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.operators import OperatorType

TensorValue = np.ndarray[Any, np.dtype[np.float32]]

MAX_NDIM = 8
_VERSION, _FLOAT32, _NO_FLAGS = 1, 1, 0
_LAST = 2**31 - 1
# What PostgreSQL gives every operator that is written with its schema: looser than + and *.
_PRECEDENCE = 6


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
        raise ValueError(f"values of type {np.asarray(value).dtype} cannot be made into a tensor") from None
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
        raise ValueError(f"unknown binary tensor format, beginning with {bytes(data[:4])!r}")
    start = 4 + 4 * data[2]
    if len(data) < start:
        raise ValueError("a binary tensor ends before the end of its dimensions")
    shape = tuple(int(n) for n in np.frombuffer(data, dtype=">i4", count=data[2], offset=4))
    elements = np.frombuffer(data, dtype="<f4", offset=start)
    return elements.reshape(shape).astype(np.float32)


def read_only(value: Any) -> Any:
    """An array that refuses to be changed in place: what it stands for in a row would not change with it."""
    if isinstance(value, np.ndarray) and value.flags.writeable:
        value = value.view()
        value.flags.writeable = False
    return value


# ---- operators, by schema: found whatever the search_path is, and nobody else's in their place ----


def _operator(symbol: str) -> Any:
    """The operator between tensors, as SQLAlchemy composes it."""
    is_comparison = symbol in ("=", "<>", "<", "<=", ">", ">=")
    return operators.custom_op(
        f"OPERATOR(public.{symbol})",
        precedence=_PRECEDENCE,
        is_comparison=is_comparison,
        return_type=Boolean() if is_comparison else Tensor(),
    )


class TensorEquality(BinaryExpression[bool]):
    """= and <>: SQLAlchemy compares columns by them when it looks for one in a set, so they stay what they
    are for Python.
    """

    inherit_cache = True

    def __init__(self, found: Any, op: Any) -> None:
        against = _operator("=")
        left, right = (side.self_group(against=against) for side in (found.left, found.right))
        super().__init__(left, right, op, type_=Boolean())
        self._orig = found._orig


@compiles(TensorEquality)
def _compile_equality(element: TensorEquality, compiler: SQLCompiler, **kw: Any) -> str:
    left, right = (compiler.process(side, **kw) for side in (element.left, element.right))
    return f"{left} OPERATOR(public.{'=' if element.operator is operators.eq else '<>'}) {right}"


def _membership(left: ColumnElement[Any], right: Any, inside: bool) -> ColumnElement[Any]:
    """IN and NOT IN, whose = PostgreSQL would look for along the search_path."""
    if isinstance(right, ClauseElement) or hasattr(right, "__clause_element__"):
        any_ = operators.custom_op("OPERATOR(public.=) ANY", is_comparison=True, return_type=Boolean())
        query = right.scalar_subquery() if hasattr(right, "scalar_subquery") else right
        found: ColumnElement[Any] = left.operate(any_, query)
    else:
        found = or_(false(), *(left == value for value in right))
    return found if inside else not_(found)


def _distinction(left: ColumnElement[Any], right: Any, distinct: bool) -> ColumnElement[Any]:
    """IS DISTINCT FROM and its negation, likewise."""
    other: ColumnElement[Any] = right if isinstance(right, ColumnElement) else literal(right, Tensor())
    same = func.coalesce(left == other, and_(left.is_(None), other.is_(None)))
    return not_(same) if distinct else same


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
            raise ValueError(f"a type modifier fixes at most two dimensions, not {len(self.shape)}")

    def get_col_spec(self, **_: Any) -> str:
        if not self.shape:
            return "public.TENSOR"
        return f"public.TENSOR({','.join(map(str, self.shape))})"

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
            if value is None:
                return value
            if not isinstance(value, np.ndarray):
                value = from_text(value) if isinstance(value, str) else from_binary(value)
            return read_only(value)

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

        def operate(self, op: OperatorType, *other: Any, **kwargs: Any) -> Any:
            if op in (operators.in_op, operators.not_in_op):
                return _membership(self.expr, other[0], op is operators.in_op)
            if op in (operators.is_distinct_from, operators.is_not_distinct_from):
                return _distinction(self.expr, other[0], op is operators.is_distinct_from)
            if op is operators.between_op:
                return and_(self.expr >= other[0], self.expr <= other[1])
            if op is operators.neg:
                negative = _operator("-")
                return UnaryExpression(
                    self.expr.self_group(against=negative), operator=negative, type_=Tensor()
                )
            found = super().operate(_OPERATORS.get(op, op), *other, **kwargs)
            if op in (operators.eq, operators.ne) and not isinstance(found.right, Null):
                return TensorEquality(found, op)
            return found

        def reverse_operate(self, op: OperatorType, other: Any, **kwargs: Any) -> Any:
            return super().reverse_operate(_OPERATORS.get(op, op), other, **kwargs)

        # SQLAlchemy has no @ for PostgreSQL.

        def __matmul__(self, other: Any) -> Any:
            return super().operate(_operator("@"), other)

        def __rmatmul__(self, other: Any) -> Any:
            return super().reverse_operate(_operator("@"), other)

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


_OPERATORS: dict[Any, Any] = {
    operators.add: _operator("+"),
    operators.sub: _operator("-"),
    operators.mul: _operator("*"),
    operators.truediv: _operator("/"),
    operators.lt: _operator("<"),
    operators.le: _operator("<="),
    operators.gt: _operator(">"),
    operators.ge: _operator(">="),
}


@event.listens_for(Mapper, "mapper_configured")
def _hold_read_only(mapper: Mapper[Any], class_: type) -> None:
    """What is assigned to an attribute of type tensor is held as it is: a new value takes an assignment."""

    def assigned(target: Any, value: Any, *_: Any) -> Any:
        return read_only(value)

    for attribute in mapper.column_attrs:
        if isinstance(attribute.columns[0].type, Tensor):
            event.listen(attribute.class_attribute, "set", assigned, retval=True, propagate=True)


def slices(index: Any) -> Iterator[tuple[int, int, int]]:
    """(axis, start, stop) of each axis that a subscript of slices cuts; IndexError for other subscripts."""
    for axis, part in enumerate(index if isinstance(index, tuple) else (index,)):
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise IndexError("a tensor expression supports only slices of step 1: t[1:3], t[:, -1:]")
        if part.start is not None or part.stop is not None:
            yield axis, part.start or 0, _LAST if part.stop is None else part.stop


ADAPTED = "llm_sql_adapts_tensors"
"""Set on a dialect whose connections take and give tensors as arrays (llm_sql.types.adapt_engine)."""

# The catalog prints the type with its schema where the search_path does not lead to it.
ischema_names.setdefault("tensor", Tensor)
ischema_names.setdefault("public.tensor", Tensor)
