"""Writes the SQL of the first revisions from what models/ declares: `python -m llm_sql.migrations.freeze`.
It writes the Python that comes from the same declarations, too (models/codegen.py).

Until 0.1.0 is tagged they are written anew whenever a declaration changes; a test holds them current. Later
revisions come from `alembic revision --autogenerate`, which writes their text into the revision.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import (
    CreateIndex,
    CreateSequence,
    CreateTable,
    DDLElement,
    SetColumnComment,
    SetTableComment,
    Table,
)

from llm_sql.models import (
    ARCHITECTURE_ROWS,
    MODELS,
    SqlObject,
    codegen,
    declared_grants,
    declared_objects,
    functions,
    metadata,
    views,
)
from llm_sql.models.base import SCHEMA, pass_sequence
from llm_sql.models.forms import wrapped
from llm_sql.models.objects import ROUTINE_KINDS
from llm_sql.models.roles import ROLES, relation_names

from .operations import SQL_DIRECTORY
from .statements import extension_of_role, for_role, literal, script, storage_statements

# paramstyle named: the others double percent signs.
_DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


def _compile(element: DDLElement) -> str:
    text = str(element.compile(dialect=_DIALECT)).replace("\t", "    ")
    return "\n".join(line.rstrip() for line in text.splitlines())


def _table_statements(table: Table) -> list[str]:
    statements = [_compile(CreateTable(table))]
    statements += [
        _compile(CreateIndex(index)) for index in sorted(table.indexes, key=lambda index: str(index.name))
    ]
    statements += storage_statements(table)
    if table.comment:
        statements.append(_compile(SetTableComment(table)))
    return statements + [_compile(SetColumnComment(column)) for column in table.columns if column.comment]


def relations() -> dict[str, str]:
    tables = metadata.sorted_tables
    create = [_compile(CreateSequence(pass_sequence))]
    create += [statement for table in tables for statement in _table_statements(table)]
    drop = [f"DROP TABLE IF EXISTS {table.fullname}" for table in reversed(tables)]
    return {
        "upgrade.sql": script(create),
        "downgrade.sql": script([*drop, f"DROP SEQUENCE IF EXISTS {SCHEMA}.{pass_sequence.name}"]),
    }


def _drop(item: SqlObject) -> str:
    """Also where somebody dropped it, or what it needs, before: the way down must be open then too."""
    return item.drop.replace(f"DROP {item.kind} ", f"DROP {item.kind} IF EXISTS ", 1)


def routines() -> dict[str, str]:
    files = {f"functions/{name}": text for name, text in functions.sources()}
    files |= {f"views/{name}": text for name, text in views.sources()}
    return files | {"downgrade.sql": script(map(_drop, reversed(declared_objects())))}


_CREATE_ROLE = """\
DO $role$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN
        CREATE ROLE {role};
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role {role} is not created: this takes CREATEROLE';
    WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database's migration was faster
END
$role$"""

# What somebody dropped has no privileges left to take back.
_REVOKE = """\
DO $grants$
DECLARE
    statement text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN
        RETURN;
    END IF;
    FOREACH statement IN ARRAY ARRAY[
{statements}
    ] LOOP
        BEGIN
            EXECUTE statement;
        EXCEPTION
            WHEN undefined_function OR undefined_table OR undefined_object THEN
                NULL;
        END;
    END LOOP;
END
$grants$"""

_DROP_ROLE = """\
DO $role$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_auth_members AS m
        INNER JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
        WHERE r.rolname = '{role}' AND m.member <> current_user::regrole
    ) THEN
        RAISE NOTICE 'role {role} is left in place: it has members';
        RETURN;
    END IF;
    DROP ROLE IF EXISTS {role};
EXCEPTION
    WHEN dependent_objects_still_exist THEN
        RAISE NOTICE 'role {role} is left in place: another database or object uses it';
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role {role} is left in place: dropping it takes CREATEROLE';
END
$role$"""


def _revoke(role: str, statements: Iterable[str]) -> str:
    return _REVOKE.format(
        role=role, statements=",\n".join(f"        '{statement}'" for statement in statements)
    )


# Both roles may run all that is declared, nobody else may run any of it.
_ROUTINES = """\
DO $grants$
DECLARE
    declared CONSTANT text[] := ARRAY[
{declared}
    ];
    routine text;
    role name;
BEGIN
    FOREACH routine IN ARRAY declared LOOP
{first}        FOR role IN SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.rolname IN ({roles}) LOOP
{each}
        END LOOP;
    END LOOP;
END
$grants$"""
_REVOKE_PUBLIC = """\
        EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE public.%s FROM PUBLIC', routine);
"""
_GRANT_EACH = """\
            EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE public.%s TO %I', routine, role);"""
# What somebody dropped has no privileges left to take back.
_REVOKE_EACH = """\
            BEGIN
                EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE public.%s FROM %I', routine, role);
            EXCEPTION
                WHEN undefined_function OR undefined_object THEN
                    NULL;
            END;"""


def _signature(identity: str) -> str:
    """A routine's name with the types that it takes, from what a DROP takes: name, modes and types of all."""
    name, _, arguments = identity.removeprefix(f"{SCHEMA}.").rstrip(")").partition("(")
    words = (argument.split() for argument in re.split(r", (?![^(]*\))", arguments) if argument)
    taken = (w[1:] if w[0] in ("INOUT", "VARIADIC") else w for w in words if w[0] != "OUT")
    return f"{name}({', '.join(' '.join(w[1:]) for w in taken)})"


def _routines(first: str, each: str) -> str:
    signatures = (literal(_signature(o.identity)) for o in declared_objects() if o.is_routine)
    return _ROUTINES.format(
        declared=textwrap.indent(wrapped(signatures, indent=8), " " * 8),
        roles=", ".join(map(literal, ROLES)),
        first=first,
        each=each,
    )


def roles() -> dict[str, str]:
    create = [f"REVOKE ALL ON TABLE public.{name} FROM PUBLIC" for name in relation_names()]
    drop = [_routines("", _REVOKE_EACH)]
    for role in ROLES:
        own = [grant for grant in declared_grants() if grant.role == role and grant.kind not in ROUTINE_KINDS]
        create += [_CREATE_ROLE.format(role=role), for_role(role, (grant.grant for grant in own))]
        create.append(extension_of_role(role, "GRANT EXECUTE ON ROUTINE %s TO"))
        drop += [_revoke(role, (grant.revoke for grant in own))]
        drop += [extension_of_role(role, "REVOKE EXECUTE ON ROUTINE %s FROM"), _DROP_ROLE.format(role=role)]
    create.append(_routines(_REVOKE_PUBLIC, _GRANT_EACH))
    return {"roles.sql": script(create), "drop_roles.sql": script(drop)}


def _insert(table: str, rows: list[dict[str, Any]]) -> str:
    values = ",\n".join(f"    ({', '.join(map(literal, row.values()))})" for row in rows)
    return f"INSERT INTO public.{table} ({', '.join(rows[0])}) VALUES\n{values}\nON CONFLICT DO NOTHING"


def _where_tables_are(statements: Iterable[str]) -> str:
    body = "\n".join(f"{statement};" for statement in statements)
    return f"""DO $unseed$
BEGIN
    IF to_regclass('public.llm_arch') IS NULL OR to_regclass('public.llm_model_config') IS NULL
        OR to_regclass('public.llm_param') IS NULL THEN
        RETURN;
    END IF;
{textwrap.indent(body, "    ")}
END
$unseed$"""


def seeds() -> dict[str, str]:
    # Models that somebody gave weights, and the architectures they have, are no seeds any more.
    models = ", ".join(literal(row["model"]) for row in MODELS)
    architectures = ", ".join(literal(row["arch"]) for row in ARCHITECTURE_ROWS)
    delete_models = (
        f"DELETE FROM public.llm_model_config AS c\nWHERE c.model IN ({models})\n"
        "    AND NOT EXISTS (SELECT FROM public.llm_param AS p WHERE p.model = c.model)"
    )
    delete_architectures = (
        f"DELETE FROM public.llm_arch AS a\nWHERE a.arch IN ({architectures})\n"
        "    AND NOT EXISTS (SELECT FROM public.llm_model_config AS c WHERE c.arch = a.arch)"
    )
    return {
        "seeds.sql": script([_insert("llm_arch", ARCHITECTURE_ROWS), _insert("llm_model_config", MODELS)]),
        "unseed.sql": script([_where_tables_are([delete_models, delete_architectures])]),
    }


def scripts() -> dict[str, str]:
    """Path below migrations/sql and text of every script that is written from the declarations."""
    revisions = {"0002": relations(), "0003": routines(), "0004": roles() | seeds()}
    return {
        f"{revision}/{name}": text for revision, files in revisions.items() for name, text in files.items()
    }


def freeze() -> list[Path]:
    """Write all of them; returns what was written."""
    shutil.rmtree(SQL_DIRECTORY / "0003", ignore_errors=True)
    written = []
    for name, text in scripts().items():
        path = SQL_DIRECTORY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    for path in (*freeze(), *codegen.write()):
        print(path)
