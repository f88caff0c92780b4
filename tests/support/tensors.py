"""Values of the type tensor on the client's side, without any adapter in between."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

Connection = psycopg.Connection[Any]
Array = NDArray[np.float32]

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=5, max_side=5), elements=FLOATS)
RELAXED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def value(conn: Connection, query: str, parameters: Any = None) -> Any:
    row = conn.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def number(x: np.float32) -> str:
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "Infinity" if x > 0 else "-Infinity"
    return repr(float(x)) if x != 0 else ("-0" if np.signbit(x) else "0")


def text_of(a: Array) -> str:
    """The text form; a float32's own double has digits enough to read back as the same float32."""
    if a.ndim == 0:
        return number(a[()])
    return "[" + ",".join(text_of(row) for row in a) + "]"


def binary_of(a: Array) -> bytes:
    """int8 version, dtype, ndim, flags; int32 dimensions in network order; little-endian float32."""
    return (
        struct.pack("!4B", 1, 1, a.ndim, 0) + struct.pack(f"!{a.ndim}i", *a.shape) + a.astype("<f4").tobytes()
    )


def array_of(binary: bytes) -> Array:
    version, dtype, ndim, flags = binary[:4]
    assert (version, dtype, flags) == (1, 1, 0)
    shape = struct.unpack(f"!{ndim}i", binary[4 : 4 + 4 * ndim])
    return np.frombuffer(binary[4 + 4 * ndim :], "<f4").reshape(shape)


def receive(conn: Connection, payload: bytes, column_type: str = "tensor") -> bytes:
    """Sends one value through the type's receive function by binary COPY, and gives what its send returns."""
    conn.execute(f"CREATE TEMP TABLE received (x {column_type})")
    try:
        with conn.cursor() as cursor, cursor.copy("COPY received FROM STDIN (FORMAT binary)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
            copy.write(struct.pack("!hi", 1, len(payload)) + payload + struct.pack("!h", -1))
        return bytes(value(conn, "SELECT pg_llm_tensor_send(x) FROM received"))
    finally:
        conn.execute("DROP TABLE received")
