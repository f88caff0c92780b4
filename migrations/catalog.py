"""What the catalog says about our objects, in a form in which declared and installed ones can be compared."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, MetaData, text

from .statements import extension_routines, storage_statements

_TEMP_SCHEMA = re.compile(r"\bpg_temp(?:_\d+)?\.")


class Key(NamedTuple):
    """Kind, name, and what tells apart objects of one name: argument types, or the relation of a trigger."""

    kind: str
    name: str
    detail: str

    @property
    def identity(self) -> str:
        if self.kind == "TRIGGER":
            return f"{self.name} ON public.{self.detail}"
        return f"public.{self.name}" + ("" if self.kind == "VIEW" else f"({self.detail})")

    @property
    def is_routine(self) -> bool:
        return self.kind in ("FUNCTION", "PROCEDURE")


@dataclass(frozen=True)
class Definition:
    """The statement that would create the object, its comment, and what a CREATE OR REPLACE cannot change."""

    create: str
    comment: str | None
    head: tuple[str, ...] = ()


_ROUTINES = """
SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.proname,
    pg_get_function_identity_arguments(p.oid), pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'),
    (string_to_array(pg_get_functiondef(p.oid), chr(10)))[1:2]
FROM pg_proc AS p
WHERE p.pronamespace = :namespace AND p.proname = ANY (:names) AND p.prokind IN ('f', 'p')
    AND NOT EXISTS (
        SELECT FROM pg_depend AS d
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    )
"""
_VIEWS = """
SELECT 'VIEW', c.relname, '',
    'CREATE OR REPLACE VIEW public.' || c.relname
        || COALESCE(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '')
        || ' AS' || chr(10) || pg_get_viewdef(c.oid),
    obj_description(c.oid, 'pg_class'),
    ARRAY(
        SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 ORDER BY attnum
    )
FROM pg_class AS c
WHERE c.relnamespace = :namespace AND c.relname = ANY (:names) AND c.relkind = 'v'
"""
_TRIGGERS = """
SELECT 'TRIGGER', t.tgname, c.relname,
    replace(pg_get_triggerdef(t.oid), 'CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER')
        || CASE t.tgenabled WHEN 'O' THEN '' ELSE
            format(
                E';\nALTER TABLE public.%s %s TRIGGER %s', c.relname,
                CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA'
                    ELSE 'ENABLE ALWAYS' END,
                t.tgname
            )
        END,
    obj_description(t.oid, 'pg_trigger'), '{}'::text[]
FROM pg_trigger AS t
INNER JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = :namespace AND t.tgname = ANY (:names) AND NOT t.tgisinternal
"""


def _namespace(connection: Connection, schema: str) -> int | None:
    query = (
        "SELECT nullif(pg_my_temp_schema(), 0)"
        if schema == "pg_temp"
        else "SELECT 'public'::regnamespace::oid"
    )
    return connection.execute(text(query)).scalar()


def definitions(connection: Connection, schema: str, names: Sequence[str]) -> dict[Key, Definition]:
    """Routines, views and triggers of a schema (pg_temp or public) with these names; extensions' excepted."""
    parameters = {"namespace": _namespace(connection, schema), "names": list(names)}
    found = {}
    for query in (_ROUTINES, _VIEWS, _TRIGGERS):
        for kind, name, detail, create, comment, head in connection.execute(text(query), parameters):
            found[Key(kind, name, detail)] = Definition(
                _TEMP_SCHEMA.sub("public.", create), comment or None,
                tuple(_TEMP_SCHEMA.sub("public.", line) for line in head),
            )  # fmt: skip
    return found


def extension_version(connection: Connection, name: str) -> str | None:
    query = text("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = :name")
    found = connection.scalar(query, {"name": name})
    return None if found is None else str(found)


def existing_tables(connection: Connection, names: Sequence[str]) -> set[str]:
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY (:names)"
    )
    return set(connection.execute(text(query), {"names": list(names)}).scalars())


def roles(connection: Connection, names: Iterable[str]) -> tuple[str, ...]:
    query = "SELECT rolname FROM pg_roles WHERE rolname = ANY (:names) ORDER BY rolname"
    return tuple(connection.execute(text(query), {"names": list(names)}).scalars())


def may_create_roles(connection: Connection) -> bool:
    query = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    return bool(connection.execute(text(query)).scalar())


def missing_on_extension(connection: Connection, role: str) -> list[str]:
    """The extension's functions that the role may not run and should, spelt as GRANT takes them."""
    query = (
        f"SELECT o.oid::regprocedure::text FROM ({extension_routines(role)}) AS o"
        " WHERE NOT has_function_privilege(:role, o.oid, 'EXECUTE') ORDER BY 1"
    )
    return list(connection.execute(text(query), {"role": role}).scalars())


_ACL_OF = {
    "TABLE": (
        "SELECT c.relname, c.relacl, c.relowner FROM pg_class AS c"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'p')",
        "r",
    ),
    "SEQUENCE": (
        "SELECT c.relname, c.relacl, c.relowner FROM pg_class AS c"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S'",
        "s",
    ),
    "FUNCTION": (
        "SELECT p.oid::regprocedure::text, p.proacl, p.proowner FROM pg_proc AS p"
        " WHERE p.pronamespace = 'public'::regnamespace",
        "f",
    ),
}
_ACL = """
SELECT o.name, coalesce(nullif(pg_get_userbyid(a.grantee), 'unknown (OID=0)'), 'PUBLIC'), a.privilege_type
FROM ({objects}) AS o (name, acl, owner)
CROSS JOIN LATERAL aclexplode(coalesce(o.acl, acldefault('{code}', o.owner))) AS a
WHERE a.grantee <> o.owner
"""


def grants(
    connection: Connection, targets: Collection[tuple[str, str]], grantees: Collection[str]
) -> set[tuple[str, str, str, str]]:
    """(role, kind, target, privilege) of these roles on these objects, spelt as GRANT takes them."""
    found = set()
    for kind, (objects, code) in _ACL_OF.items():
        wanted = [
            (k, target) for k, target in targets if k == kind or (kind == "FUNCTION" and k == "PROCEDURE")
        ]
        acl: dict[str, list[tuple[str, str]]] = {}
        for name, role, privilege in connection.execute(text(_ACL.format(objects=objects, code=code))):
            acl.setdefault(name, []).append((role, privilege))
        spelling = routine_names(connection, wanted) if kind == "FUNCTION" else {}
        for own_kind, target in wanted:
            name = spelling.get(target) if kind == "FUNCTION" else target.removeprefix("public.")
            for role, privilege in acl.get(name or "", []):
                if role in grantees:
                    found.add((role, own_kind, target, privilege))
    return found


def routine_names(connection: Connection, targets: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Declared identity, with argument names, to regprocedure's spelling; what does not exist is left out."""
    by_arguments = {}
    query = (
        "SELECT p.proname, pg_get_function_identity_arguments(p.oid), p.oid::regprocedure::text"
        " FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace"
    )
    for name, arguments, spelling in connection.execute(text(query)):
        by_arguments[name, normalize_arguments(arguments)] = spelling
    result = {}
    for _, target in targets:
        name, _, arguments = target.removeprefix("public.").partition("(")
        spelling = by_arguments.get((name, normalize_arguments(arguments.removesuffix(")"))))
        if spelling is not None:
            result[target] = spelling
    return result


_TYPE_ALIASES = {
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "int2": "smallint",
    "bool": "boolean",
    "float8": "double precision",
    "float": "double precision",
    "float4": "real",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
}


def normalize_arguments(arguments: str) -> tuple[str, ...]:
    """Argument list in one spelling: lower case, no schema, no IN and OUT, types by the catalog's names."""
    result = []
    for argument in filter(None, (part.strip() for part in arguments.split(","))):
        words = argument.lower().replace("public.", "").replace("pg_catalog.", "").split()
        if words[0] == "out":
            continue
        if words[0] in ("in", "inout"):
            words = words[1:]
        match = re.fullmatch(r"(\w+)((?:\[\d*\])*)", words[-1])
        if match and match[1] in _TYPE_ALIASES:
            words[-1] = _TYPE_ALIASES[match[1]] + match[2]
        result.append(" ".join(words))
    return tuple(result)


def create_in_temp(connection: Connection, scratch: MetaData) -> None:
    """The declared tables, which have no schema here, once more as temporary ones."""
    for table in scratch.tables.values():
        table._prefixes = ["TEMPORARY"]
    connection.execute(text("SET LOCAL search_path = pg_temp, public"))
    scratch.create_all(connection, checkfirst=False)
    for table in scratch.tables.values():
        for statement in storage_statements(table):
            connection.exec_driver_sql(statement)
    connection.execute(text("SET LOCAL search_path = public"))


_TABLE_DETAILS = """
SELECT c.relname, 'options', '', coalesce(
    (SELECT string_agg(o, ', ' ORDER BY o) FROM (
        SELECT unnest(c.reloptions) UNION ALL SELECT 'toast.' || unnest(t.reloptions)
    ) AS s (o)), '')
FROM pg_class AS c LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
WHERE c.relnamespace = :namespace AND c.relname = ANY (:names)
UNION ALL
SELECT c.relname, 'storage', a.attname, a.attstorage::text
FROM pg_class AS c INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = :namespace AND c.relname = ANY (:names)
UNION ALL
SELECT c.relname, 'generated', a.attname, pg_get_expr(d.adbin, d.adrelid)
FROM pg_class AS c INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attgenerated <> ''
INNER JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = :namespace AND c.relname = ANY (:names)
UNION ALL
SELECT c.relname, 'check', k.conname, pg_get_constraintdef(k.oid)
FROM pg_class AS c INNER JOIN pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'c'
WHERE c.relnamespace = :namespace AND c.relname = ANY (:names)
"""


def table_details(
    connection: Connection, schema: str, names: Sequence[str]
) -> dict[tuple[str, str, str], str]:
    """(table, aspect, column or constraint) to what the catalog says of it."""
    parameters: dict[str, Any] = {"namespace": _namespace(connection, schema), "names": list(names)}
    rows = connection.execute(text(_TABLE_DETAILS), parameters)
    return {(table, aspect, name): value for table, aspect, name, value in rows}


_STORAGE = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}


def alter_table(key: tuple[str, str, str], old: str, new: str) -> list[str]:
    """Statements that bring one aspect of a table from old to new."""
    table, aspect, name = key
    alter = f"ALTER TABLE public.{table}"
    if aspect == "storage":
        return [f"{alter} ALTER COLUMN {name} SET STORAGE {_STORAGE[new]}"]
    if aspect == "check":
        return [f"{alter} DROP CONSTRAINT {name}", f"{alter} ADD CONSTRAINT {name} {new}"]
    if aspect == "generated":
        kind = f"{alter} DROP COLUMN {name}"
        return [kind, f"{alter} ADD COLUMN {name} integer GENERATED ALWAYS AS ({new}) STORED"]
    before, after = ({o.split("=")[0]: o for o in text.split(", ") if o} for text in (old, new))
    reset = sorted(before.keys() - after.keys())
    change = [after[name] for name in sorted(after) if before.get(name) != after[name]]
    return [
        *([f"{alter} RESET ({', '.join(reset)})"] if reset else []),
        *([f"{alter} SET ({', '.join(change)})"] if change else []),
    ]
