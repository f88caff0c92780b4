"""Tensors as NumPy arrays: for psycopg connections, sync and async, and for SQLAlchemy engines over them.

    register_tensor(conn)                # psycopg.Connection
    await register_tensor_async(conn)    # psycopg.AsyncConnection
    adapt_engine(engine)                 # every connection a SQLAlchemy Engine or AsyncEngine opens

From then on a value of type tensor arrives as a float32 array, in text and binary results alike. Arrays of
floating-point numbers go out as tensors, arrays of integers (token ids) as int[].
"""

from llm_sql.models.types import Tensor, TensorValue

from .psycopg import register_tensor, register_tensor_async
from .sqlalchemy import adapt_engine

__all__ = ["Tensor", "TensorValue", "adapt_engine", "register_tensor", "register_tensor_async"]
