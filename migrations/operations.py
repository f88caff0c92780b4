"""Alembic operations of our own: verbatim SQL, and the kernels' extension.

op.run_sql(text)              statements as they stand, no parameter or colon of theirs interpreted
op.run_scripts(path)          the same from a file or a folder below migrations/sql
op.install_kernels(version)   CREATE EXTENSION pg_llm, after a check that the server has that version
op.update_kernels(version)    ALTER EXTENSION pg_llm UPDATE, upwards and downwards
op.remove_kernels()           DROP EXTENSION pg_llm; refuses while columns of type tensor remain elsewhere

and Tensor, the type of a column, by its name alone: revisions import nothing from models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.operations import MigrateOperation, Operations
from sqlalchemy.types import UserDefinedType

from llm_sql.models.objects import split_statements

from . import EXTENSION as EXTENSION

SQL_DIRECTORY = Path(__file__).parent / "sql"


class Tensor(UserDefinedType[Any]):
    """The type `tensor`, or `tensor(768, 768)`."""

    cache_ok = True

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def get_col_spec(self, **_: Any) -> str:
        return "public.tensor" + (f"({', '.join(map(str, self.shape))})" if self.shape else "")


# Both leave alone what needs no change: only the extension's owner may alter or drop it, and that may be
# somebody else than the owner of the database.
_UPDATE = """DO $update$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = '{extension}' AND {outdated}) THEN
        ALTER EXTENSION {extension} UPDATE TO '{version}';
    END IF;
END
$update$"""
_REMOVE = """DO $remove$
BEGIN
    DROP EXTENSION IF EXISTS {extension};
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'extension {extension} is left in place: another role owns it';
END
$remove$"""


@Operations.register_operation("run_sql")
@Operations.register_operation("run_scripts")
class RunSQL(MigrateOperation):
    """Statements to run as they are written."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def run_sql(cls, operations: Operations, text: str) -> None:
        """Run `text`, one statement or several."""
        operations.invoke(cls(text))

    @classmethod
    def run_scripts(cls, operations: Operations, path: str) -> None:
        """Run a file below migrations/sql, or all .sql files of a folder there by name."""
        entry = SQL_DIRECTORY / path
        for script in sorted(entry.glob("*.sql")) if entry.is_dir() else [entry]:
            operations.invoke(cls(script.read_text(encoding="utf-8")))


@Operations.register_operation("install_kernels")
@Operations.register_operation("update_kernels")
@Operations.register_operation("remove_kernels")
class Kernels(MigrateOperation):
    """Install, update or remove the extension."""

    def __init__(self, action: str, version: str | None = None) -> None:
        self.action = action
        self.version = version

    @classmethod
    def install_kernels(cls, operations: Operations, version: str) -> None:
        operations.invoke(cls("install", version))

    @classmethod
    def update_kernels(cls, operations: Operations, version: str) -> None:
        operations.invoke(cls("update", version))

    @classmethod
    def remove_kernels(cls, operations: Operations) -> None:
        operations.invoke(cls("remove"))

    def statements(self) -> list[str]:
        if self.action == "remove":
            return [_REMOVE.format(extension=EXTENSION)]
        if self.action == "update":
            update = self._update(f"extversion <> '{self.version}'")
            return [require_kernels(self.version), update]
        # An administrator may have installed it, in any version there is a way from. A newer one stays.
        create = f"CREATE EXTENSION IF NOT EXISTS {EXTENSION} SCHEMA public VERSION '{self.version}'"
        update = self._update(
            f"string_to_array(extversion, '.')::int[] < string_to_array('{self.version}', '.')::int[]"
        )
        return [require_kernels(self.version), create, update]

    def _update(self, outdated: str) -> str:
        return _UPDATE.format(extension=EXTENSION, version=self.version, outdated=outdated)


def require_kernels(version: str | None = None) -> str:
    """Fails, saying how to install it, unless the server has the extension (in that version)."""
    wanted = f"name = '{EXTENSION}'" + (f" AND version = '{version}'" if version else "")
    called = f'extension "{EXTENSION}"' + (f" version {version}" if version else "")
    return f"""DO $require$
DECLARE
    pg_config text := '/path/to/pg_config';
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions WHERE {wanted}) THEN
        RETURN;
    END IF;
    IF has_function_privilege('pg_catalog.pg_config()', 'EXECUTE') THEN
        SELECT setting || '/pg_config' INTO pg_config FROM pg_catalog.pg_config() WHERE name = 'BINDIR';
    END IF;
    RAISE EXCEPTION '{called} is not installed on this server'
        USING ERRCODE = 'feature_not_supported',
        HINT = 'On the server''s machine, in the source of llm-sql: make install PG_CONFIG=' || pg_config;
END
$require$"""


def _run(operations: Operations, text: str) -> None:
    context = operations.migration_context
    if context.as_sql:
        text = text.rstrip()
        context.impl.static_output(text if text.endswith(";") else f"{text};")
    else:
        # no_parameters: else the driver would look for placeholders behind every percent sign.
        operations.get_bind().exec_driver_sql(text, execution_options={"no_parameters": True})


@Operations.implementation_for(RunSQL)
def _run_sql(operations: Operations, operation: RunSQL) -> None:
    if operations.migration_context.as_sql:
        _run(operations, operation.text)
        return
    # One at a time: an error then shows the statement that failed, not the whole file.
    for statement in split_statements(operation.text):
        _run(operations, statement)


@Operations.implementation_for(Kernels)
def _run_kernels(operations: Operations, operation: Kernels) -> None:
    for statement in operation.statements():
        _run(operations, statement)
