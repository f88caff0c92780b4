"""SQL functions as data: a name, signatures and a doc, from which calls for use inside select() are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Double,
    Executable,
    Function,
    Integer,
    LargeBinary,
    Text,
    cast,
    column,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB, REGCLASS
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement, ColumnElement
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import NullType, TypeEngine

from llm_sql.models.types import Tensor

TYPES: dict[str, TypeEngine[Any]] = {
    "bigint": BigInteger(),
    "boolean": Boolean(),
    "bytea": LargeBinary(),
    "double precision": Double(),
    "integer": Integer(),
    "integer[]": ARRAY(Integer),
    "jsonb": JSONB(),
    "regclass": REGCLASS(),
    "tensor": Tensor(),
    "tensor[]": ARRAY(Tensor()),
    "text": Text(),
    "text[]": ARRAY(Text),
    "void": NullType(),
}


class HasClause(Protocol):
    """What SQLAlchemy takes for a column: a mapped attribute, for example."""

    def __clause_element__(self) -> Any: ...


Expression: TypeAlias = ColumnElement[Any] | HasClause


@dataclass(frozen=True)
class Parameter:
    """One parameter of a signature; an optional one has its default in the database."""

    name: str
    type: str
    optional: bool


@dataclass(frozen=True)
class Signature:
    """What an overload takes and returns: one type, or named columns."""

    parameters: tuple[Parameter, ...]
    returns: str

    @classmethod
    def read(cls, parameters: str, returns: str) -> Signature:
        """From text such as ("model text, seed bigint?", "bigint"); ? marks optional parameters."""
        read = []
        for part in filter(None, (part.strip() for part in parameters.split(","))):
            name, type_ = part.split(" ", 1)
            read.append(Parameter(name, type_.removesuffix("?"), type_.endswith("?")))
        return cls(tuple(read), returns)

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Name and type of each column of a result in rows, else nothing."""
        if not self.returns.startswith("("):
            return []
        parts = (part.strip().split(" ", 1) for part in self.returns[1:-1].split(","))
        return [(name, type_) for name, type_ in parts]

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[Parameter, Any] | None:
        """The arguments by parameter, or None when they do not fit."""
        if len(args) > len(self.parameters):
            return None
        by_name = {parameter.name: parameter for parameter in self.parameters}
        given = dict(zip(self.parameters, args, strict=False))
        for name, value in kwargs.items():
            if name not in by_name or by_name[name] in given:
                return None
            given[by_name[name]] = value
        if any(parameter not in given for parameter in self.parameters if not parameter.optional):
            return None
        return given if all(_fits(value, parameter.type) for parameter, value in given.items()) else None


class NamedArgument(ColumnElement[Any]):
    """`name => value`."""

    __visit_name__ = "llm_sql_named_argument"
    _traverse_internals = [  # noqa: RUF012
        ("name", visitors.InternalTraversal.dp_string),
        ("value", visitors.InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, name: str, value: ColumnElement[Any]) -> None:
        self.name = name
        self.value = value
        self.type = value.type

    @property
    def _from_objects(self) -> list[Any]:
        return self.value._from_objects

    def self_group(self, against: Any = None) -> NamedArgument:
        return self


@compiles(NamedArgument)
def _compile_named_argument(element: NamedArgument, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{compiler.preparer.quote(element.name)} => {compiler.process(element.value, **kw)}"


class SqlFunction:
    """A function of the database. A call takes Python values or columns, by position or by name.

    What is not given takes the database's default. Arguments that fit no signature: TypeError.
    """

    def __init__(self, name: str, *signatures: tuple[str, str], doc: str) -> None:
        self.name = name
        self.signatures = tuple(Signature.read(*signature) for signature in signatures)
        self.__doc__ = doc

    def __repr__(self) -> str:
        return f"<SQL function {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Function[Any]:
        signature, call = self._call(args, kwargs)
        built: Function[Any] = getattr(func.public, self.name)(*call, type_=TYPES[signature.returns])
        return built

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Signature, list[NamedArgument]]:
        for signature in self.signatures:
            given = signature.bind(args, kwargs)
            if given is not None:
                return signature, [NamedArgument(p.name, _typed(value, p.type)) for p, value in given.items()]
        raise TypeError(self._refusal(args, kwargs))

    def _refusal(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Why the arguments fit no signature."""
        forms = " or ".join(
            f"{self.name}({', '.join(p.name + ('?' if p.optional else '') for p in s.parameters)})"
            for s in self.signatures
        )
        known = {parameter.name for signature in self.signatures for parameter in signature.parameters}
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            return f"{self.name} has no parameter {', '.join(map(repr, unknown))}: call {forms}"
        is_bytes = any(isinstance(value, (bytes, bytearray)) for value in (*args, *kwargs.values()))
        advice = ": decode bytes first, value.decode()" if is_bytes else ""
        return f"the arguments do not fit {forms}{advice}"


class RowsFunction(SqlFunction):
    """A function whose result is rows: a call stands in FROM, with the columns under `.c`."""

    def __call__(self, *args: Any, **kwargs: Any) -> TableValuedAlias:  # type: ignore[override]
        signature, call = self._call(args, kwargs)
        columns = [column(name, TYPES[type_]) for name, type_ in signature.columns]
        rows: TableValuedAlias = getattr(func.public, self.name)(*call).table_valued(*columns)
        return rows


class Call(Executable, ClauseElement):
    """CALL of a procedure, to be executed as it is."""

    inherit_cache = False

    def __init__(self, name: str, arguments: Sequence[NamedArgument]) -> None:
        self.name = name
        self.arguments = arguments


@compiles(Call)
def _compile_call(element: Call, compiler: SQLCompiler, **kw: Any) -> str:
    arguments = ", ".join(compiler.process(argument, **kw) for argument in element.arguments)
    return f"CALL public.{compiler.preparer.quote(element.name)}({arguments})"


class Procedure(SqlFunction):
    """A procedure: a call of it is a statement, for a connection in autocommit if it commits."""

    def __call__(self, *args: Any, **kwargs: Any) -> Call:  # type: ignore[override]
        return Call(self.name, self._call(args, kwargs)[1])


def _fits(value: Any, type_: str) -> bool:
    """Whether a value may go where this type is wanted, as far as arrays and text tell; the server checks."""
    is_array = type_.endswith("[]")
    if isinstance(value, ColumnElement):
        return value.type._isnull or isinstance(value.type, ARRAY) == is_array
    if value is None or hasattr(value, "__clause_element__"):
        return True
    if type_ == "jsonb":
        return not isinstance(value, (bytes, bytearray))
    if isinstance(value, str):
        return type_ in ("text", "text[]", "regclass")
    if isinstance(value, (bytes, bytearray)):
        return type_ in ("bytea", "tensor")
    return hasattr(value, "__len__") == (is_array or type_ in ("tensor", "bytea"))


def _typed(value: Any, type_: str) -> ColumnElement[Any]:
    """A column stays as it is; a value is sent with its type, so that overloads and NULL resolve."""
    if hasattr(value, "__clause_element__"):
        value = value.__clause_element__()
    if isinstance(value, ColumnElement):
        return value
    if type_.endswith("[]"):
        value = [value] if isinstance(value, str) else value
        value = value.tolist() if hasattr(value, "tolist") else value
        value = list(value) if isinstance(value, tuple) else value
    return cast(value, TYPES[type_])
