"""Alembic's environment of llm-sql: env.py, the revisions in versions/, and their SQL in sql/.

A revision imports nothing from the declared schema, and never changes once a release has it. README.md says
how to add one.
"""

if __name__ != "llm_sql.migrations":
    raise ImportError(f"import this package as llm_sql.migrations, not as {__name__}")

VERSION_TABLE = "llm_sql_version"
EXTENSION = "pg_llm"
