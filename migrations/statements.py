"""SQL texts that the frozen revisions, the comparison and new revisions share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy.schema import Table

from llm_sql.models.roles import WITHHELD


def script(statements: Iterable[str]) -> str:
    return "".join(f"{statement.strip().rstrip(';')};\n\n" for statement in statements)[:-1]


def storage_statements(table: Table) -> list[str]:
    """How the columns named in the table's info are stored out of line."""
    storage: dict[str, str] = table.info.get("storage", {})
    return [
        f"ALTER TABLE {table.fullname} ALTER COLUMN {name} SET STORAGE {how}" for name, how in storage.items()
    ]


_EXTENSION_ROUTINES = """\
SELECT p.oid
FROM pg_catalog.pg_depend AS d
INNER JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pg_llm'
INNER JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid
WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
    AND d.deptype = 'e'
    AND p.proname !~ '^({withheld})'"""


def extension_routines(role: str) -> str:
    """The query that gives the extension's functions that a role of ours is granted."""
    return _EXTENSION_ROUTINES.format(withheld="|".join(WITHHELD[role]))


_FOR_ROLE = """\
DO $grants$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN
        RETURN;
    END IF;
{statements}
END
$grants$"""

# Also what everybody may run: where the database takes new functions from PUBLIC, nobody may without this.
_EXTENSION_OF_ROLE = """\
DO $grants$
DECLARE
    routine pg_catalog.regprocedure;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN
        RETURN;
    END IF;
    FOR routine IN
{routines}
    LOOP
        EXECUTE pg_catalog.format('{statement}', routine);
    END LOOP;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role {role} is not granted pg_llm''s functions: this takes the database''s owner';
END
$grants$"""


def for_role(role: str, statements: Iterable[str]) -> str:
    return _FOR_ROLE.format(role=role, statements="\n".join(f"    {statement};" for statement in statements))


def extension_of_role(role: str, statement: str) -> str:
    query = extension_routines(role).splitlines()
    routines = "\n".join(f"        {line}" for line in query)
    return _EXTENSION_OF_ROLE.format(role=role, routines=routines, statement=f"{statement} {role}")


def literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, dict):
        return literal(json.dumps(value, ensure_ascii=False))
    if value is None:
        return "NULL"
    return str(value).lower() if isinstance(value, bool) else str(value)


def insert_or_update(table: str, row: dict[str, Any]) -> str:
    """One row, whatever stood under its key (the first column) before."""
    key, *others = row
    sets = ", ".join(f"{name} = EXCLUDED.{name}" for name in others)
    values = ", ".join("NULL" if value is None else literal(value) for value in row.values())
    insert = f"INSERT INTO public.{table} ({', '.join(row)}) VALUES ({values})"
    return f"{insert}\nON CONFLICT ({key}) DO UPDATE SET {sets}"
