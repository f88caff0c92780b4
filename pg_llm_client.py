"""`from pg_llm_client import PGLLMClient`: the client under the name that scripts outside this package use."""

from llm_sql.client import PGLLMClient

__all__ = ["PGLLMClient"]
