"""psycopg's dumpers and loaders for tensors, and their registration on a connection."""

from __future__ import annotations

from typing import Any

import numpy as np
from psycopg import AsyncConnection, Connection, ProgrammingError
from psycopg.abc import AdaptContext, Buffer, DumperKey
from psycopg.abc import Dumper as AnyDumper
from psycopg.adapt import Dumper, Loader, PyFormat, Transformer
from psycopg.pq import Format
from psycopg.types import TypeInfo

from llm_sql.models.types import TensorValue, from_binary, from_text, to_binary, to_text

TYPE_NAME = "public.tensor"


class ArrayDumper(Dumper):
    """Arrays of floating-point numbers as tensors; others as psycopg dumps the list of their elements."""

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self._transformer = Transformer.from_context(context)

    def get_key(self, obj: Any, format: PyFormat) -> DumperKey:
        if obj.dtype.kind == "f":
            return self.cls
        elements = obj.tolist()
        return (self.cls, self._transformer.get_dumper(elements, format).get_key(elements, format))

    def upgrade(self, obj: Any, format: PyFormat) -> Any:
        return (
            self
            if obj.dtype.kind == "f"
            else ElementsDumper(self._transformer.get_dumper(obj.tolist(), format))
        )

    def dump(self, obj: Any) -> Buffer | None:
        return to_text(obj).encode("ascii")


class ArrayBinaryDumper(ArrayDumper):
    """The same in the binary protocol."""

    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer | None:
        return to_binary(obj)


class ElementsDumper:
    """An array through the dumper of the (nested) list of its elements."""

    def __init__(self, inner: AnyDumper) -> None:
        self.inner = inner
        self.format = inner.format
        self.oid = inner.oid

    def get_key(self, obj: Any, format: PyFormat) -> DumperKey:
        return (np.ndarray, self.inner.get_key(obj.tolist(), format))

    def upgrade(self, obj: Any, format: PyFormat) -> AnyDumper:
        return self

    def dump(self, obj: Any) -> Buffer | None:
        return self.inner.dump(obj.tolist())

    def quote(self, obj: Any) -> Buffer:
        return self.inner.quote(obj.tolist())


class TensorLoader(Loader):
    """A tensor's text as an array."""

    def load(self, data: Buffer) -> TensorValue:
        return from_text(bytes(data).decode("ascii"))


class TensorBinaryLoader(Loader):
    """A tensor from the binary protocol as an array."""

    format = Format.BINARY

    def load(self, data: Buffer) -> TensorValue:
        return from_binary(data)


def register_tensor(connection: Connection[Any]) -> None:
    """Let `connection` give and take tensors as arrays. ProgrammingError without the extension pg_llm."""
    adapt(connection, required(TypeInfo.fetch(connection, TYPE_NAME)))


async def register_tensor_async(connection: AsyncConnection[Any]) -> None:
    """`register_tensor` for an asynchronous connection."""
    adapt(connection, required(await TypeInfo.fetch(connection, TYPE_NAME)))


def required(info: TypeInfo | None) -> TypeInfo:
    if info is None:
        raise ProgrammingError(
            f"this database has no type {TYPE_NAME}: `alembic upgrade head` creates the extension pg_llm"
        )
    return info


def adapt(context: AdaptContext, info: TypeInfo | None) -> None:
    """Register dumpers and loaders; without `info`, the type's name, only what works in front of a cast."""
    oid = 0 if info is None else info.oid
    adapters = context.adapters
    for base in (ArrayBinaryDumper, ArrayDumper) if info is None else (ArrayDumper, ArrayBinaryDumper):
        # The last one registered is the one that psycopg chooses for %s.
        adapters.register_dumper(np.ndarray, type(base.__name__, (base,), {"oid": oid}))
    if info is not None:
        info.register(context)
        adapters.register_loader(oid, TensorLoader)
        adapters.register_loader(oid, TensorBinaryLoader)
