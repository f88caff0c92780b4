"""Alembic's environment of llm-sql: env.py, the revisions in versions/, and their frozen SQL in sql/.

A landed revision never changes and imports nothing from the declared schema. README.md says how to add one.
"""

if __name__ != "llm_sql.migrations":
    raise ImportError(f"import this package as llm_sql.migrations, not as {__name__}")

VERSION_TABLE = "llm_sql_version"
