"""The declared schema: every relation, function, view, trigger, role, grant and seed row of llm-sql.

`metadata` holds the tables; `declared_objects()` and `declared_grants()` hold what SQLAlchemy has no
construct for. Migrations are frozen copies of what stands here, and `alembic check` compares the two. Nothing
here opens a connection, and nothing here imports another part of the package. The names are loaded together
on first use (declared.py): who needs the arguments or the type alone does not wait for the tables.
"""

if __name__ != "llm_sql.models":
    raise ImportError(f"import this package as llm_sql.models, not as {__name__}")

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .declared import *

__all__ = [
    "ARCHITECTURE_ROWS",
    "MODELS",
    "READER",
    "TRAINER",
    "Adapter",
    "Arch",
    "Base",
    "BpeMerge",
    "BpeToken",
    "Checkpoint",
    "Clip",
    "Dataset",
    "DatasetLoad",
    "EvalLog",
    "Grant",
    "ModelConfig",
    "NamedTensor",
    "Param",
    "RuntimeTensor",
    "Setting",
    "SqlObject",
    "TapeEntry",
    "Tensor",
    "TensorMap",
    "Tokenizer",
    "TrainLog",
    "TrainRun",
    "declared_grants",
    "declared_objects",
    "metadata",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(".declared", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
