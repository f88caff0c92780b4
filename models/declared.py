"""All that models/ declares, imported: whoever reads `metadata` has every table in it."""

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
