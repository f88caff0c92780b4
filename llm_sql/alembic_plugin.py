"""Keeps an application's own Alembic from proposing to drop llm-sql's tables when both live in one database.

Alembic loads this module through the entry point `alembic.autogenerate.llm_sql` (group `alembic.plugins`);
the name lies in the namespace that every environment includes by default. An environment that lists its
`autogenerate_plugins` itself either includes `alembic.autogenerate.*` or passes `include_name` from here to
`context.configure`. Imported whenever Alembic is: it must stay cheap and must not fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult

VERSION_TABLE = "llm_sql_version"


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Alembic's include_name hook: False for the tables of llm-sql in the default schema."""
    if kind != "table" or parents.get("schema_name") not in (None, "public"):
        return True
    from .models import metadata

    return name != VERSION_TABLE and name not in metadata.tables


def hide_relations(context: AutogenContext, _: UpgradeOps) -> PriorityDispatchResult:
    """Before anything is compared: our tables are not there, for everybody but us.

    An application that has put llm_sql.models' tables into its own metadata keeps them in sight.
    """
    from alembic.util import PriorityDispatchResult

    own = {(table.schema, table.name) for table in context.sorted_tables}

    def visible(name: str | None, kind: Any, parents: Any) -> bool:
        return include_name(name, kind, parents) or (parents.get("schema_name"), name) in own

    if context.migration_context.version_table != VERSION_TABLE:
        context._name_filters.append(visible)
    return PriorityDispatchResult.CONTINUE


def setup(plugin: Plugin) -> None:
    """Called by Alembic."""
    from alembic.util import DispatchPriority

    plugin.add_autogenerate_comparator(
        hide_relations, "autogenerate", "llm_sql", priority=DispatchPriority.FIRST
    )
