"""The embedded PostgreSQL server: nothing to install, nothing to configure.

`ensure()` gives the URL of a running server with an empty or provisioned database in it. The server stops
with the last process that uses it, unless it was started with `keep=True` (`llm-sql up`). Its files live in
`LLM_SQL_HOME`.
"""

from __future__ import annotations

from llm_sql.server.embedded import DEFAULT_DATABASE, EmbeddedServer, ensure
from llm_sql.server.install import Installation
from llm_sql.server.layout import default_home

__all__ = ["DEFAULT_DATABASE", "EmbeddedServer", "Installation", "default_home", "ensure"]
