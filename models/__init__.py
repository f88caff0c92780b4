"""The declared schema: every relation, function, view, trigger, role, grant and seed row of llm-sql.

`metadata` holds the tables; `declared_objects()` and `declared_grants()` hold what SQLAlchemy has no
construct for. Migrations are frozen copies of what stands here, and `alembic check` compares the two. Nothing
here opens a connection, and nothing here imports another part of the package.
"""

if __name__ != "llm_sql.models":
    raise ImportError(f"import this package as llm_sql.models, not as {__name__}")

from .base import Base, metadata
from .checkpoint import Checkpoint
from .config import Arch, ModelConfig
from .dataset import Dataset, DatasetLoad
from .objects import SqlObject, declared_objects
from .param import Param
from .roles import READER, TRAINER, Grant, declared_grants
from .seeds import ARCHITECTURE_ROWS, MODELS
from .tape import NamedTensor, RuntimeTensor, TapeEntry, TensorMap
from .tokenizer import BpeMerge, BpeToken
from .train import Clip, EvalLog, TrainLog, TrainRun
from .types import Tensor

__all__ = [
    "ARCHITECTURE_ROWS",
    "MODELS",
    "READER",
    "TRAINER",
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
    "SqlObject",
    "TapeEntry",
    "Tensor",
    "TensorMap",
    "TrainLog",
    "TrainRun",
    "declared_grants",
    "declared_objects",
    "metadata",
]
