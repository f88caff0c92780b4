"""Keeps an application's own Alembic from proposing to drop llm-sql's tables when both live in one database.

Alembic loads this module through the entry point `alembic.autogenerate.llm_sql` (group `alembic.plugins`);
the name lies in the namespace that every environment includes by default. An environment that lists its
`autogenerate_plugins` itself either includes `alembic.autogenerate.*` or passes `include_name`,
`include_object` and `render_item` from here to `context.configure`. Imported whenever Alembic is: it must
stay cheap and must not fail. docs/guide/alembic.md tells users of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult
    from sqlalchemy import Table

SCHEMA = "public"
VERSION_TABLE = "llm_sql_version"


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Alembic's include_name hook: False for the tables of llm-sql in the default schema."""
    if kind != "table" or parents.get("schema_name") not in (None, SCHEMA):
        return True
    return name != VERSION_TABLE and name not in _our_tables()


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Alembic's render_item hook: columns of type tensor, and the import that a revision needs for them."""
    if kind != "type":
        return False
    from .models.types import Tensor

    if not isinstance(item, Tensor):
        return False
    context.imports.add("import llm_sql.types")
    return f"llm_sql.types.{item!r}"


def include_object(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Alembic's include_object hook: False for foreign keys to our tables, whose schema reflection leaves
    out. Only for environments that do without this plugin: it compares them.
    """
    if kind != "foreign_key_constraint" or not item.elements:
        return True
    *_, table, _ = item.elements[0].target_fullname.split(".")
    return table not in _our_tables()


def _our_tables() -> list[str]:
    from .models.base import table_names

    return table_names()


def hide_relations(context: AutogenContext, _: UpgradeOps) -> PriorityDispatchResult:
    """Before anything is compared: our tables are not there, for everybody but us.

    An application that has put llm_sql.models' tables into its own metadata keeps them in sight.
    """
    from alembic.util import PriorityDispatchResult

    default = context.dialect.default_schema_name if context.dialect is not None else None
    own = {(None if t.schema == default else t.schema, t.name) for t in context.sorted_tables}

    def visible(name: str | None, kind: Any, parents: Any) -> bool:
        return include_name(name, kind, parents) or (parents.get("schema_name"), name) in own

    if context.migration_context.version_table != VERSION_TABLE:
        context._name_filters.append(visible)
        _render_tensors(context)
        _qualify_references(context)
    return PriorityDispatchResult.CONTINUE


def _render_tensors(context: AutogenContext) -> None:
    theirs = context.opts.get("render_item")

    def render(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
        rendered: str | Literal[False] = theirs(kind, item, context) if theirs else False
        return render_item(kind, item, context) if rendered is False else rendered

    context.opts["render_item"] = render


def _qualify_references(context: AutogenContext) -> None:
    """Foreign keys to our tables are reflected with the schema in which these are declared.

    Reflection leaves out a schema that is the connection's default; a ForeignKey(ModelConfig.model) has it.
    """
    inspector: Any = context.inspector
    without_schema = {t.name for t in context.sorted_tables if t.schema is None}
    ours = set(_our_tables()) - without_schema

    def qualified(found: Any) -> Any:
        for keys in found.values() if isinstance(found, dict) else [found]:
            for key in keys:
                if key["referred_schema"] is None and key["referred_table"] in ours:
                    key["referred_schema"] = SCHEMA
        return found

    for name in ("get_foreign_keys", "get_multi_foreign_keys"):
        reflect = getattr(inspector, name)
        setattr(inspector, name, lambda *args, reflect=reflect, **kw: qualified(reflect(*args, **kw)))


def qualify_table(
    context: AutogenContext, _: Any, __: str | None, name: str, found: Table | None, declared: Table | None
) -> PriorityDispatchResult:
    """One of our tables in an application's own metadata is reflected with its schema, too."""
    from alembic.util import PriorityDispatchResult

    if found is not None and declared is not None and declared.schema == SCHEMA and name in _our_tables():
        found.schema = SCHEMA
    return PriorityDispatchResult.CONTINUE


def setup(plugin: Plugin) -> None:
    """Called by Alembic."""
    from alembic.util import DispatchPriority

    plugin.add_autogenerate_comparator(
        hide_relations, "autogenerate", "llm_sql", priority=DispatchPriority.FIRST
    )
    plugin.add_autogenerate_comparator(
        qualify_table, "table", "llm_sql_table", priority=DispatchPriority.FIRST
    )
