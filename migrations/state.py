"""What a database has of ours beside what this package declares: looked at object by object.

`examine` only reads (what it creates for comparison is temporary and rolled back); `mend.py` acts on what it
finds. Whether the revision is the newest one says nothing about what somebody dropped since.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate import produce_migrations
from alembic.operations import MigrateOperation, ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from llm_sql.models import declared_objects
from llm_sql.models.base import pass_sequence, unqualified
from llm_sql.models.roles import ROLES

from . import EXTENSION, VERSION_TABLE, catalog, compare
from .noted import version_table_exists

# The declared tables as Alembic compares them.
TABLES = unqualified()


def include_name(name: str | None, kind: str, _: Any) -> bool:
    """Only relations of ours are compared: an application's tables may stand beside them."""
    return kind != "table" or name in TABLES.tables


# What every environment of these migrations is configured with.
SETTINGS: dict[str, Any] = {
    "target_metadata": TABLES,
    "version_table": VERSION_TABLE,
    "include_name": include_name,
    "compare_type": True,
    "compare_server_default": True,
}
TABLE_PLUGINS = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"]
PRELOAD = """
SELECT 'pg_llm' = ANY (string_to_array(regexp_replace(
    coalesce(
        (SELECT split_part(entry, '=', 2) FROM pg_catalog.pg_db_role_setting AS s
        INNER JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase AND d.datname = current_database()
        CROSS JOIN unnest(s.setconfig) AS entry
        WHERE s.setrole = 0 AND split_part(entry, '=', 1) = 'session_preload_libraries'),
        (SELECT g.setting FROM pg_catalog.pg_settings AS g WHERE g.name = 'session_preload_libraries'), ''),
    '[[:space:]"'']', '', 'g'), ','))
"""
_MAY_PRELOAD = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
NOT_PRELOADED = "session_preload_libraries of the database does not name pg_llm"


@dataclass(frozen=True)
class Finding:
    """One difference: what it is in words, and the operation that removes it where there is one.

    `foreign`: somebody added or allowed it; it prevents nothing and is left as it is.
    """

    what: str
    operation: MigrateOperation | None = None
    foreign: bool = False
    hint: str | None = None


UPGRADE_LOCK = int.from_bytes(b"llmsql_v", "big")
UPGRADE_PATIENCE_SECONDS = 300.0


def lock_upgrades(connection: Connection) -> str | None:
    """Take the lock of this transaction's end; who holds it, when he does not give it back in time."""
    deadline = time.monotonic() + UPGRADE_PATIENCE_SECONDS
    query = text("SELECT pg_try_advisory_xact_lock(:key)")
    while not connection.scalar(query, {"key": UPGRADE_LOCK}):
        if time.monotonic() > deadline:
            holder = text(
                "SELECT string_agg('process ' || pid, ', ') FROM pg_catalog.pg_locks"
                " WHERE locktype = 'advisory' AND granted"
                " AND ((classid::bigint << 32) | objid::bigint) = :key AND objsubid = 1"
            )
            return str(connection.scalar(holder, {"key": UPGRADE_LOCK}) or "another session")
        time.sleep(0.05)
    return None


def prepare(connection: Connection) -> None:
    """For this transaction: our names are found in public, whatever the path of the user or database is."""
    connection.execute(text("SET LOCAL search_path = public"))
    connection.dialect.default_schema_name = "public"


def extension_version(connection: Connection) -> str | None:
    return catalog.extension_version(connection, EXTENSION)


def tables_present(connection: Connection) -> set[str]:
    return catalog.existing_tables(connection, list(TABLES.tables))


def strangers(connection: Connection) -> list[str]:
    """Tables of our names that are not ours: they lack columns that DROP EXTENSION would not have taken."""
    query = text(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(:table) AND attnum > 0"
        " AND NOT attisdropped"
    )
    found = []
    for name in sorted(tables_present(connection)):
        present = set(connection.scalars(query, {"table": f"public.{name}"}))
        columns = [c for c in TABLES.tables[name].columns if "tensor" not in str(c.type).lower()]
        missing = [column.name for column in columns if column.name not in present]
        if missing:
            found.append(f"{name} has no column {', '.join(missing)}")
    return found


def preloaded(connection: Connection) -> bool:
    return bool(connection.scalar(text(PRELOAD)))


def examine(connection: Connection) -> list[Finding]:
    """Every difference in tables, functions, views, triggers, roles, grants, built-in rows, preload.

    Needs the extension (its types) and the right to make temporary objects. In the order in which they can
    be mended.
    """
    prepare(connection)
    findings = [*_sequence(connection), *_tables(connection)]
    complete = set(TABLES.tables) <= tables_present(connection)
    if complete:
        findings += [_of_catalog(change) for change in compare.compare_tables(connection)]
    findings += [_of_catalog(change) for change in compare.compare_objects(connection, declared_objects())]
    findings += _roles(connection)
    if complete and not any(isinstance(f.operation, ops.AddColumnOp) for f in findings):
        findings += [_of_catalog(change) for change in compare.compare_architectures(connection)]
        findings += _seeds(connection)
    findings += _version_grants(connection)
    if not preloaded(connection):
        findings.append(
            Finding(
                NOT_PRELOADED,
                ops.ExecuteSQLOp("preload"),
                foreign=not connection.scalar(text(_MAY_PRELOAD)),
                hint="changing it takes a superuser; without it pg_settings shows pg_llm's settings only "
                "after the first call of a session",
            )
        )
    return findings


def _sequence(connection: Connection) -> Iterator[Finding]:
    if connection.scalar(text(f"SELECT to_regclass('public.{pass_sequence.name}')")) is None:
        statement = f"CREATE SEQUENCE public.{pass_sequence.name}"
        yield Finding(
            f"sequence {pass_sequence.name} is missing", compare.CatalogChange(("add_sequence",), [statement])
        )


def _tables(connection: Connection) -> list[Finding]:
    settings = {name: value for name, value in SETTINGS.items() if name != "target_metadata"}
    context = MigrationContext.configure(
        connection, opts={**settings, "target_metadata": TABLES, "autogenerate_plugins": TABLE_PLUGINS}
    )
    found = produce_migrations(context, TABLES).upgrade_ops
    operations = list(_flat(found.ops if found else []))
    remade = {_name(o) for o in operations if isinstance(o, (ops.CreateIndexOp, ops.AddConstraintOp))}
    return [_of_table(operation, remade) for operation in operations]


def _flat(operations: Sequence[MigrateOperation]) -> Iterator[MigrateOperation]:
    for operation in operations:
        if isinstance(operation, ops.OpContainer):
            yield from _flat(operation.ops)
        else:
            yield operation


def _name(operation: Any) -> str:
    return str(getattr(operation, "constraint_name", None) or getattr(operation, "index_name", ""))


def _on(operation: Any) -> str:
    """The table an operation is about; foreign keys call it otherwise."""
    return str(getattr(operation, "table_name", None) or getattr(operation, "source_table", ""))


def _of_table(operation: MigrateOperation, remade: set[str]) -> Finding:
    o: Any = operation
    if isinstance(operation, ops.CreateTableOp):
        return Finding(f"table {o.table_name} is missing", operation)
    if isinstance(operation, ops.AddColumnOp):
        return Finding(f"column {o.table_name}.{o.column.name} is missing", operation)
    if isinstance(operation, ops.AlterColumnOp):
        column = f"column {o.table_name}.{o.column_name}"
        if o.modify_type is not None:
            return Finding(f"{column} is {o.existing_type}, not {o.modify_type}", hint=_REBUILD)
        return Finding(f"{column} differs in its default, NOT NULL or comment", operation)
    if isinstance(operation, (ops.CreateIndexOp, ops.AddConstraintOp)):
        return Finding(f"{_name(o)} of {_on(o)} is missing or differs", operation)
    if isinstance(operation, ops.CreateTableCommentOp):
        return Finding(f"the comment on {o.table_name} differs", operation)
    if isinstance(operation, (ops.DropIndexOp, ops.DropConstraintOp)) and _name(o) in remade:
        return Finding(f"{_name(o)} of {_on(o)} differs", operation)
    if isinstance(operation, ops.DropColumnOp):
        return Finding(f"column {o.table_name}.{o.column_name} is not llm-sql's", foreign=True)
    return Finding(f"{_name(o)} of {_on(o)} is not llm-sql's", foreign=True)


_REBUILD = (
    "export the models, or save checkpoints; `alembic downgrade base` (or an empty database), provision"
)
_WORDS = {"add": "is missing", "modify": "differs", "invalid": "cannot be made", "remove": "is not llm-sql's"}


def _of_catalog(change: compare.CatalogChange) -> Finding:
    verb, _, kind = str(change.diff[0]).partition("_")
    if kind == "grant":
        _, role, _, target, privilege = change.diff
        if verb == "remove":
            return Finding(f"{role} has {privilege} on {target}", foreign=True, hint=change.upgrade[0])
        return Finding(f"{role} lacks {privilege} on {target}", change)
    if kind in ("role", "row"):
        return Finding(f"{kind} {' '.join(map(str, change.diff[1:]))} {_WORDS[verb]}", change)
    if kind == "table":
        table, aspect, name = change.diff[1:4]
        return Finding(f"{aspect} {name} of {table} differs".replace("  ", " "), change)
    words = f"{kind} {change.diff[1]} {_WORDS[verb]}"
    if verb == "remove":
        return Finding(words, foreign=True, hint=f"rename it, or {change.upgrade[0]}")
    if verb == "invalid":
        return Finding(f"{words}: {change.diff[2]}", change)
    return Finding(words, change)


def _roles(connection: Connection) -> list[Finding]:
    existing = catalog.roles(connection, ROLES)
    findings = [_of_catalog(change) for change in compare.compare_roles(connection)]
    if not catalog.may_create_roles(connection):
        findings += [
            Finding(
                f"role {role} is missing", foreign=True,
                hint=f"CREATE ROLE {role}, as a role with CREATEROLE; then llm-sql provision",
            )
            for role in ROLES if role not in existing
        ]  # fmt: skip
    return findings


def _seeds(connection: Connection) -> Iterator[Finding]:
    if not connection.scalar(text("SELECT EXISTS (SELECT FROM public.llm_model_config)")):
        yield Finding("llm_model_config is empty", ops.ExecuteSQLOp("seeds"))


def _version_grants(connection: Connection) -> Iterator[Finding]:
    if not version_table_exists(connection):
        return
    for role in catalog.roles(connection, ROLES):
        query = text(f"SELECT has_table_privilege(:role, 'public.{VERSION_TABLE}', 'SELECT')")
        if not connection.scalar(query, {"role": role}):
            grant = f"GRANT SELECT ON TABLE public.{VERSION_TABLE} TO {role}"
            yield Finding(
                f"{role} lacks SELECT on public.{VERSION_TABLE}",
                compare.CatalogChange(("add_grant", role, "TABLE", VERSION_TABLE, "SELECT"), [grant]),
            )
