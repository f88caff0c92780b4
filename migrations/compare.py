"""What `alembic check` compares beyond tables: functions, views, triggers, roles, grants, storage, kernels.

A declared function, view or trigger is created a second time in pg_temp, inside a savepoint that is rolled
back, and both are read back from the catalog: PostgreSQL itself decides whether two texts mean the same, and
no lock is taken on what is in use. Rows of llm_model_config are users' data once seeded and are not compared.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import UpgradeOps
from alembic.runtime.plugins import Plugin
from alembic.util import PriorityDispatchResult
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from llm_sql.models import ARCHITECTURE_ROWS, Arch, SqlObject, declared_grants, declared_objects
from llm_sql.models.base import table_names, unqualified
from llm_sql.models.roles import PUBLIC, ROLES

from . import catalog, kernels
from .operations import EXTENSION
from .statements import insert_or_update, literal

_QUALIFIED = r"(?:public\.)?"
# Views use functions, and triggers are on views.
_ORDER = ("FUNCTION", "PROCEDURE", "VIEW", "TRIGGER")


class CatalogChange(MigrateOperation):
    """A difference alembic has no operation for, with the statements that remove it and bring it back."""

    def __init__(self, diff: tuple[Any, ...], upgrade: Sequence[str], downgrade: Sequence[str] = ()) -> None:
        self.diff = diff
        self.upgrade = list(upgrade)
        self.downgrade = list(downgrade)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return self.diff

    def reverse(self) -> CatalogChange:
        return CatalogChange(self.diff, self.downgrade, self.upgrade)


class KernelsChange(MigrateOperation):
    """The database has another version of the extension than this package."""

    def __init__(self, old: str, new: str) -> None:
        self.old = old
        self.new = new

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("modify_extension", EXTENSION, self.old, self.new)

    def reverse(self) -> KernelsChange:
        return KernelsChange(self.new, self.old)


def _in_temp(statement: str, kind: str, name: str) -> str:
    """The statement with its object moved from public to pg_temp."""
    return re.sub(
        rf"\b{kind}\s+{_QUALIFIED}{name}\b", f"{kind} pg_temp.{name}", statement, count=1, flags=re.I
    )


def _try(connection: Connection, statement: str) -> str | None:
    """Run it; the server's message when it refuses."""
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    except DBAPIError as error:
        return str(error.orig).splitlines()[0]
    return None


def _try_all(connection: Connection, statements: Sequence[tuple[SqlObject, str]]) -> dict[SqlObject, str]:
    """Run them in order, as many at once as the server takes: a savepoint for each is most of the time."""
    message = _try(connection, ";\n".join(statement for _, statement in statements)) if statements else None
    if message is None:
        return {}
    if len(statements) == 1:
        return {statements[0][0]: message}
    half = len(statements) // 2
    refused = _try_all(connection, statements[:half])
    return _try_all(connection, statements[half:]) | refused


def _create_in_temp(connection: Connection, objects: Sequence[SqlObject]) -> dict[SqlObject, str]:
    """Create the objects in pg_temp; those that the server refuses, with its message."""
    creates, comments = [], []
    for item in objects:
        if item.kind == "TRIGGER":
            create = re.sub(
                rf"\bON\s+{_QUALIFIED}{item.on}\b", f"ON pg_temp.{item.on}", item.create, flags=re.I
            )
        else:
            create = _in_temp(item.create, item.kind, item.name)
        creates.append((item, create))
        comments += [(item, _in_temp(comment, item.kind, item.name)) for comment in item.comments]
    refused = _try_all(connection, creates)
    # After all: a comment may be on an overload that comes later.
    return _try_all(connection, comments) | refused


def _replace(item: SqlObject) -> list[str]:
    create = re.sub(r"^CREATE\s+(?:OR\s+REPLACE\s+)?", "CREATE OR REPLACE ", item.create, flags=re.I)
    # PostgreSQL lets PUBLIC run every new function.
    closed = [f"REVOKE EXECUTE ON {item.kind} {item.identity} FROM PUBLIC"] if item.is_routine else []
    return [create, *item.comments, *closed]


def _declared_as(key: catalog.Key, items: Sequence[SqlObject]) -> list[str]:
    """The statements that make it as declared; of overloads only this one."""
    if not key.is_routine:
        return [statement for item in items for statement in _replace(item)]
    arguments = catalog.normalize_arguments(key.detail)

    def about(statement_or_identity: str) -> bool:
        """Whether these are its arguments, or, in a comment, only their types."""
        found = catalog.normalize_arguments(statement_or_identity.partition("(")[2].partition(")")[0])
        pairs = zip(found, arguments, strict=False)
        return len(found) == len(arguments) and all(a == b or b.endswith(f" {a}") for a, b in pairs)

    return [
        statement
        for item in items
        if about(item.identity)
        for statement in _replace(item)
        if not statement.startswith("COMMENT") or about(statement)
    ]


def _put_back(key: catalog.Key, old: catalog.Definition) -> list[str]:
    """What brings back an object as it was, but for the privileges on it that we declare."""
    comment = "NULL" if old.comment is None else literal(old.comment)
    closed = [f"REVOKE EXECUTE ON {key.kind} {key.identity} FROM PUBLIC"] if key.is_routine else []
    return [old.create, f"COMMENT ON {key.kind} {key.identity} IS {comment}", *closed]


def _replaceable(old: catalog.Definition, new: catalog.Definition) -> bool:
    """PostgreSQL replaces bodies, and gives a view more columns, never fewer."""
    return new.head[: len(old.head)] == old.head


def _modify(
    key: catalog.Key, items: Sequence[SqlObject], old: catalog.Definition, new: catalog.Definition
) -> CatalogChange:
    """Replace in place, or drop and create where the head differs."""
    targets = {key.identity, *(item.identity for item in items)}
    grants = [grant.grant for grant in declared_grants() if grant.target in targets]
    drop = [f"DROP {key.kind} {key.identity}"]
    there = _declared_as(key, items)
    if old.comment is not None and new.comment is None:
        there.append(f"COMMENT ON {key.kind} {key.identity} IS NULL")
    back = _put_back(key, old)
    return CatalogChange(
        (f"modify_{key.kind.lower()}", key.identity),
        there if _replaceable(old, new) else [*drop, *there, *grants],
        back if _replaceable(new, old) else [*drop, *back, *grants],
    )


def _invalid(item: SqlObject, actual: dict[catalog.Key, catalog.Definition], message: str) -> CatalogChange:
    """What the server refuses today: it may use what the rest of a revision brings."""
    before = [(key, old) for key, old in actual.items() if (key.kind, key.name) == (item.kind, item.name)]
    back = [statement for key, old in before for statement in _put_back(key, old)] or [item.drop]
    if item.kind == "VIEW" and before:  # perhaps with more columns
        back = [
            item.drop,
            *back,
            *(grant.grant for grant in declared_grants() if grant.target == item.identity),
        ]
    return CatalogChange((f"invalid_{item.kind.lower()}", item.identity, message), _replace(item), back)


def _compare_one(
    key: catalog.Key,
    items: Sequence[SqlObject],
    old: catalog.Definition | None,
    new: catalog.Definition | None,
) -> CatalogChange:
    kind, identity = key.kind.lower(), key.identity
    if new is None:
        assert old is not None
        grants = [f"GRANT EXECUTE ON {key.kind} {identity} TO {role}" for role in ROLES if key.is_routine]
        back = [*_put_back(key, old), *grants]
        return CatalogChange((f"remove_{kind}", identity), [f"DROP {key.kind} {identity}"], back)
    if old is None:
        return CatalogChange(
            (f"add_{kind}", identity), _declared_as(key, items), [f"DROP {key.kind} {identity}"]
        )
    return _modify(key, items, old, new)


def compare_objects(connection: Connection, objects: Sequence[SqlObject]) -> list[CatalogChange]:
    """Functions, procedures, views and triggers that are missing, stale or spare among the declared names."""
    scratch = connection.begin_nested()
    try:
        connection.execute(text("SET LOCAL check_function_bodies = off"))
        refused = _create_in_temp(connection, objects)
        names = sorted({item.name for item in objects})
        declared = catalog.definitions(connection, "pg_temp", names)
        actual = catalog.definitions(connection, "public", names)
    finally:
        scratch.rollback()
    changes = [(item.kind, _invalid(item, actual, message)) for item, message in refused.items()]
    not_compared = {(item.kind, item.name) for item in refused}
    # What goes comes first: a renamed parameter makes another key, but the same function to a CREATE.
    for key in sorted(declared.keys() | actual.keys(), key=lambda key: (key.name, key in declared, key)):
        items = [item for item in objects if (item.kind, item.name) == (key.kind, key.name)]
        if declared.get(key) != actual.get(key) and (key.kind, key.name) not in not_compared:
            changes.append((key.kind, _compare_one(key, items, actual.get(key), declared.get(key))))
    return [change for _, change in sorted(changes, key=lambda change: _ORDER.index(change[0]))]


def compare_kernels(connection: Connection) -> list[KernelsChange]:
    """The extension's version beside the one that this package's control file names."""
    old, new = catalog.extension_version(connection, EXTENSION), kernels.version()
    return [KernelsChange(old, new)] if old is not None and old != new else []


def compare_roles(connection: Connection) -> list[CatalogChange]:
    """Missing roles (where we may create them) and privileges that are missing or too many."""
    existing = catalog.roles(connection, ROLES)
    missing = [role for role in ROLES if role not in existing]
    changes = []
    if missing and catalog.may_create_roles(connection):
        changes = [
            CatalogChange(("add_role", role), [f"CREATE ROLE {role}"], [f"DROP ROLE {role}"])
            for role in missing
        ]
    declared = {
        (grant.role, grant.kind, grant.target, privilege)
        for grant in declared_grants()
        for privilege in grant.privileges
        if grant.role == PUBLIC or grant.role in existing
    }
    targets = {(kind, target) for _, kind, target, _ in declared}
    targets |= {("TABLE", f"public.{name}") for name in table_names()}
    actual = catalog.grants(connection, targets, (*existing, PUBLIC))
    for role in existing:
        for routine in catalog.missing_on_extension(connection, role):
            grant, revoke = (
                f"{verb} {role}"
                for verb in (
                    f"GRANT EXECUTE ON ROUTINE {routine} TO",
                    f"REVOKE EXECUTE ON ROUTINE {routine} FROM",
                )
            )
            changes.append(
                CatalogChange(("add_grant", role, "ROUTINE", routine, "EXECUTE"), [grant], [revoke])
            )
    for sign, entries in (("add", declared - actual), ("remove", actual - declared)):
        for role, kind, target, privilege in sorted(entries):
            grant = f"GRANT {privilege} ON {kind} {target} TO {role}"
            revoke = f"REVOKE {privilege} ON {kind} {target} FROM {role}"
            statements = ([grant], [revoke]) if sign == "add" else ([revoke], [grant])
            changes.append(CatalogChange((f"{sign}_grant", role, kind, target, privilege), *statements))
    return changes


def compare_tables(connection: Connection) -> list[CatalogChange]:
    """What alembic does not compare of a table: storage parameters, storage, CHECKs, generated columns."""
    scratch = connection.begin_nested()
    try:
        catalog.create_in_temp(connection, unqualified())
        declared = catalog.table_details(connection, "pg_temp", table_names())
        actual = catalog.table_details(connection, "public", table_names())
    finally:
        scratch.rollback()
    changes = []
    for key in sorted(declared.keys() & actual.keys()):
        if declared[key] != actual[key]:
            changes.append(
                CatalogChange(
                    ("modify_table", *key, actual[key], declared[key]),
                    catalog.alter_table(key, actual[key], declared[key]),
                    catalog.alter_table(key, declared[key], actual[key]),
                )
            )
    return changes


def compare_architectures(connection: Connection) -> list[CatalogChange]:
    """Built-in rows of llm_arch: they name functions, so they are schema rather than data."""
    table = Arch.__table__
    rows = {row["arch"]: dict(row) for row in connection.execute(table.select()).mappings()}
    changes = []
    for declared in ARCHITECTURE_ROWS:
        old = rows.get(declared["arch"])
        if old != declared:
            changes.append(
                CatalogChange(("modify_row", "llm_arch", declared["arch"]), *_upsert(declared, old))
            )
    return changes


def _upsert(new: dict[str, Any], old: dict[str, Any] | None) -> tuple[list[str], list[str]]:
    way_back = (
        insert_or_update("llm_arch", old)
        if old
        else f"DELETE FROM public.llm_arch WHERE arch = '{new['arch']}'"
    )
    return [insert_or_update("llm_arch", new)], [way_back]


def _compare(
    context: AutogenContext, upgrade_ops: UpgradeOps, _: Iterable[str | None]
) -> PriorityDispatchResult:
    connection = context.connection
    assert connection is not None
    tables = catalog.existing_tables(connection, table_names())
    if set(table_names()) <= tables:
        upgrade_ops.ops.extend(compare_tables(connection))
        upgrade_ops.ops.extend(compare_architectures(connection))
    upgrade_ops.ops[:0] = compare_kernels(connection)
    upgrade_ops.ops.extend(compare_objects(connection, declared_objects()))
    upgrade_ops.ops.extend(compare_roles(connection))
    return PriorityDispatchResult.CONTINUE


def setup(plugin: Plugin) -> None:
    plugin.add_autogenerate_comparator(_compare, "schema", "llm_sql")


Plugin.setup_plugin_from_module(sys.modules[__name__], __name__)
