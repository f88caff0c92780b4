"""How `alembic revision --autogenerate` writes what compare.py found: as SQL files beside the revision.

sql/REVISION/upgrade.sql and downgrade.sql hold functions, views, triggers, rows and grants; grants.sql gives
the roles the functions of a new version of the extension. The revision runs these files in an order in which
they find what they need: the extension, the tables, the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import MigrationScript, OpContainer

from llm_sql.models.roles import ROLES
from llm_sql.models.types import Tensor

from . import operations
from .compare import CatalogChange, KernelsChange
from .statements import extension_of_role, for_role, script

_GRANT = re.compile(r"(?:GRANT|REVOKE) .* (?:TO|FROM) (\w+)")


class Script(OpContainer):
    """Changes of the catalog that one file holds, as a path below migrations/sql."""

    def __init__(self, path: str, changes: Sequence[MigrateOperation]) -> None:
        super().__init__(changes)
        self.path = path


class KernelsUpdate(OpContainer):
    """Another version of the extension, and the file that grants its functions."""

    def __init__(self, path: str, change: KernelsChange) -> None:
        super().__init__([change])
        self.path = path
        self.version = change.new


def into_files(_: Any, __: Any, directives: list[MigrationScript]) -> None:
    """Alembic's hook process_revision_directives; `alembic check` calls it, too, and writes nothing."""
    for directive in directives:
        for container, name in ((directive.upgrade_ops, "upgrade"), (directive.downgrade_ops, "downgrade")):
            if container is not None:
                container.ops = _arrange(container.ops, str(directive.rev_id), name)


def _arrange(found: Sequence[MigrateOperation], revision: str, name: str) -> list[MigrateOperation]:
    kernels: list[MigrateOperation] = [
        KernelsUpdate(f"{revision}/grants.sql", o) for o in found if isinstance(o, KernelsChange)
    ]
    changes = [o for o in found if isinstance(o, CatalogChange)]
    scripts: list[MigrateOperation] = [Script(f"{revision}/{name}.sql", changes)] if changes else []
    tables = [o for o in found if not isinstance(o, (KernelsChange, CatalogChange))]
    return [*kernels, *tables, *scripts] if name == "upgrade" else [*scripts, *tables, *kernels]


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Alembic's hook render_item: columns of type tensor, as operations.py has it."""
    if kind != "type" or not isinstance(item, Tensor):
        return False
    context.imports.add(f"from {operations.__name__} import {operations.Tensor.__name__}")
    return f"{operations.Tensor.__name__}({', '.join(map(str, item.shape))})"


# Rendering is the moment at which Alembic writes a revision: the files are written then.
@renderers.dispatch_for(Script)
def _render_script(_: AutogenContext, operation: Script) -> list[str]:
    statements = []
    for change in operation.ops:
        assert isinstance(change, CatalogChange)
        if not change.upgrade:
            return [f"raise NotImplementedError({'write the way back: ' + repr(change.diff)!r})"]
        statements += change.upgrade
    return [_write(operation.path, _any_order(_where_roles_are(statements)))]


@renderers.dispatch_for(KernelsUpdate)
def _render_kernels(_: AutogenContext, operation: KernelsUpdate) -> list[str]:
    grants = [extension_of_role(role, "GRANT EXECUTE ON ROUTINE %s TO") for role in ROLES]
    return [f'op.update_kernels("{operation.version}")', _write(operation.path, grants)]


def _write(path: str, statements: Iterable[str]) -> str:
    file = operations.SQL_DIRECTORY / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script(statements), encoding="utf-8")
    return f'op.run_scripts("{path}")'


def _where_roles_are(statements: Iterable[str]) -> Iterator[str]:
    """Grants in one block for each role, which may be missing: creating it took CREATEROLE."""

    def role(statement: str) -> str | None:
        found = _GRANT.fullmatch(statement)
        return found[1] if found and found[1] in ROLES else None

    for name, group in groupby(statements, role):
        found = list(group)
        yield from found if name is None else [for_role(name, found)]


def _any_order(statements: Iterable[str]) -> list[str]:
    """Functions may call later ones."""
    found = list(statements)
    if not any(re.match(r"CREATE OR REPLACE (FUNCTION|PROCEDURE)", statement) for statement in found):
        return found
    return ["SET LOCAL check_function_bodies = off", *found, "SET LOCAL check_function_bodies = on"]
