"""GPT models whose weights, training, tokenizer and text generation live inside PostgreSQL.

LanguageModel, AsyncLanguageModel   a model over a SQLAlchemy session
PGLLMClient, AsyncPGLLMClient       text generation over a psycopg connection
llm_sql.functions                   the database's functions as SQLAlchemy expressions
llm_sql.graph                       architectures as expression trees
llm_sql.models                      the declared schema
llm_sql.server                      the embedded PostgreSQL
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_sql.aio import AsyncLanguageModel
    from llm_sql.client import AsyncPGLLMClient, BeamResult, PGLLMClient, StreamEvent
    from llm_sql.model import Evaluation, FineTuning, LanguageModel, Recall
    from llm_sql.training import Progress

    __version__: str

# Loaded on first use: the command line and Alembic import this package and should start quickly.
_HOME = {
    "AsyncLanguageModel": "llm_sql.aio",
    "AsyncPGLLMClient": "llm_sql.client",
    "BeamResult": "llm_sql.client",
    "Evaluation": "llm_sql.model",
    "FineTuning": "llm_sql.model",
    "LanguageModel": "llm_sql.model",
    "PGLLMClient": "llm_sql.client",
    "Progress": "llm_sql.training",
    "Recall": "llm_sql.model",
    "StreamEvent": "llm_sql.client",
}

__all__ = [
    "AsyncLanguageModel",
    "AsyncPGLLMClient",
    "BeamResult",
    "Evaluation",
    "FineTuning",
    "LanguageModel",
    "PGLLMClient",
    "Progress",
    "Recall",
    "StreamEvent",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'llm_sql' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llm-sql")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"
