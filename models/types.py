"""The column type `tensor`: its name and typmod in DDL, and its reflection from the catalog.

Operators and the conversion to NumPy arrays are llm_sql.types' business; it fills `comparator_factory` and
the processors of this class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    import numpy as np

    TensorValue = np.ndarray[Any, np.dtype[np.float32]]
else:
    TensorValue = Any


class Tensor(UserDefinedType[TensorValue]):
    """An n-dimensional float32 array, row-major, with its shape in the value.

    `Tensor(768)` and `Tensor(768, 768)` fix one or two dimensions by typmod; with more, or none, the column
    takes any shape and a CHECK on `shape(x)` is the way to fix it.
    """

    cache_ok = True

    def __init__(self, *shape: int | str) -> None:
        # Reflection passes the typmod as the catalog prints it, in strings.
        self.shape = tuple(int(dimension) for dimension in shape)
        if len(self.shape) > 2:
            raise ValueError(f"a typmod fixes at most two dimensions, not {len(self.shape)}")

    def get_col_spec(self, **_: Any) -> str:
        if not self.shape:
            return "TENSOR"
        return f"TENSOR({','.join(map(str, self.shape))})"


ischema_names.setdefault("tensor", Tensor)
