"""`from pg_llm_client import PGLLMClient`: the client under the name that scripts use."""

from llm_sql.client import AsyncPGLLMClient, BeamResult, PGLLMClient, StreamEvent

__all__ = ["AsyncPGLLMClient", "BeamResult", "PGLLMClient", "StreamEvent"]
