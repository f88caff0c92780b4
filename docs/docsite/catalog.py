"""What PostgreSQL's catalog says of a provisioned database of ours, as values.

Everything documented must have a comment: `uncommented` names what lacks one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import psycopg
from psycopg.rows import dict_row


@dataclass(frozen=True)
class Parameter:
    """An argument, or a column of what is returned; `default` in SQL."""

    name: str
    type: str
    default: str | None
    out: bool


@dataclass(frozen=True)
class Routine:
    """A function, procedure or aggregate. `executors`: the roles that may call it, besides its owner."""

    kind: str
    name: str
    identity: str
    parameters: tuple[Parameter, ...]
    returns: str
    comment: str | None
    executors: tuple[str, ...]

    @property
    def operation(self) -> str:
        return {"p": "PROCEDURE", "a": "AGGREGATE"}.get(self.kind, "FUNCTION")


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    nullable: bool
    default: str | None
    comment: str | None


@dataclass(frozen=True)
class Relation:
    """A table or view; `rights`: for each role, what it may do."""

    kind: str
    name: str
    comment: str | None
    columns: tuple[Column, ...]
    constraints: tuple[str, ...]
    rights: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Setting:
    name: str
    default: str
    unit: str | None
    context: str
    values: str
    short: str
    extra: str | None


@dataclass(frozen=True)
class Operator:
    expression: str
    result: str
    function: str
    comment: str | None


@dataclass(frozen=True)
class Cast:
    source: str
    target: str
    context: str
    comment: str | None


@dataclass(frozen=True)
class Catalog:
    routines: tuple[Routine, ...]
    relations: tuple[Relation, ...]
    settings: tuple[Setting, ...]
    operators: tuple[Operator, ...]
    casts: tuple[Cast, ...]
    types: tuple[tuple[str, str | None], ...]

    def uncommented(self) -> list[str]:
        """Everything that lacks a comment, by name."""
        return [
            *(f"{r.operation.lower()} {r.identity}" for r in self.routines if not r.comment),
            *(f"{relation.kind} {relation.name}" for relation in self.relations if not relation.comment),
            *(f"setting {setting.name}" for setting in self.settings if not setting.short),
            *(f"operator {operator.expression}" for operator in self.operators if not operator.comment),
            *(f"cast from {cast.source} to {cast.target}" for cast in self.casts if not cast.comment),
            *(f"type {name}" for name, comment in self.types if not comment),
        ]


_ROUTINES = """
    SELECT
        p.prokind AS kind, p.proname AS name, p.oid::regprocedure::text AS identity,
        pg_catalog.pg_get_function_result(p.oid) AS returns,
        pg_catalog.obj_description(p.oid, 'pg_proc') AS comment,
        ARRAY(
            SELECT json_build_object(
                'name', coalesce(p.proargnames[i], ''),
                -- An oidvector begins at 0.
                'type', format_type(types[i - 1 + array_lower(types, 1)], NULL),
                'default', pg_get_function_arg_default(p.oid, i),
                'out', coalesce(p.proargmodes[i] IN ('o', 't'), false)
            )
            FROM generate_series(1, cardinality(types)) AS i ORDER BY i
        ) AS parameters,
        ARRAY(
            SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
            FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
            WHERE a.grantee <> p.proowner ORDER BY 1
        ) AS executors
    FROM pg_proc AS p, coalesce(p.proallargtypes, p.proargtypes::oid[]) AS types
    WHERE p.pronamespace = 'public'::regnamespace
    ORDER BY p.proname, cardinality(types), p.oid::regprocedure::text
"""
_RELATIONS = """
    SELECT
        CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END AS kind, c.relname AS name,
        obj_description(c.oid, 'pg_class') AS comment,
        ARRAY(
            SELECT json_build_object(
                'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'nullable', NOT a.attnotnull,
                'default', CASE WHEN a.attgenerated <> '' THEN 'generated: ' WHEN a.attidentity <> ''
                    THEN 'identity' ELSE '' END || coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
                'comment', col_description(c.oid, a.attnum)
            )
            FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        ) AS columns,
        ARRAY(
            SELECT pg_get_constraintdef(k.oid) FROM pg_constraint AS k
            WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'c')
            ORDER BY array_position(ARRAY['p', 'u', 'f', 'c'], k.contype::text), k.conname
        ) AS constraints,
        ARRAY(
            SELECT json_build_array(r.role, (
                SELECT json_agg(a.privilege_type ORDER BY array_position(
                    ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'], a.privilege_type))
                FROM aclexplode(c.relacl) AS a
                WHERE CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END = r.role
            ))
            FROM (
                SELECT DISTINCT
                    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
                FROM aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner
            ) AS r ORDER BY r.role
        ) AS rights
    FROM pg_class AS c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') ORDER BY c.relname
"""
_SETTINGS = """
    SELECT name, boot_val AS "default", unit, context, short_desc AS short, extra_desc AS extra,
        CASE vartype WHEN 'enum' THEN array_to_string(enumvals, ', ') WHEN 'bool' THEN 'on, off'
            WHEN 'string' THEN 'text' ELSE vartype || ' from ' || min_val || ' to ' || max_val END AS values
    FROM pg_settings WHERE name LIKE 'pg\\_llm.%' ORDER BY name
"""
_OPERATORS = """
    SELECT concat_ws(' ', nullif(oprleft, 0)::regtype, oprname, oprright::regtype) AS expression,
        oprresult::regtype::text AS result, oprcode::regproc::text AS function,
        obj_description(oid, 'pg_operator') AS comment
    FROM pg_operator WHERE oprnamespace = 'public'::regnamespace ORDER BY oid
"""
_CASTS = """
    SELECT castsource::regtype::text AS source, casttarget::regtype::text AS target,
        CASE castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'in assignments' ELSE 'explicit' END
            AS context,
        obj_description(oid, 'pg_cast') AS comment
    FROM pg_cast WHERE 'public.tensor'::regtype IN (castsource, casttarget) ORDER BY oid
"""
_TYPES = """
    SELECT typname, obj_description(t.oid, 'pg_type') FROM pg_type AS t
    WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('b', 'd', 'e') AND t.typelem = 0
"""


def read(url: str) -> Catalog:
    with psycopg.connect(url, row_factory=dict_row, autocommit=True) as connection:
        # Every comment and name as an ordinary session sees it, settings of the library included.
        connection.execute("LOAD 'pg_llm'")

        def rows(query: str) -> list[dict[str, Any]]:
            return connection.execute(query.encode()).fetchall()

        return Catalog(
            tuple(
                Routine(
                    **{
                        **row,
                        "parameters": tuple(Parameter(**each) for each in row["parameters"]),
                        "executors": tuple(row["executors"]),
                        "returns": row["returns"] or "void",
                    }
                )
                for row in rows(_ROUTINES)
            ),
            tuple(
                Relation(
                    **{
                        **row,
                        "columns": tuple(Column(**each) for each in row["columns"]),
                        "constraints": tuple(row["constraints"]),
                        "rights": tuple((role, tuple(names)) for role, names in row["rights"]),
                    }
                )
                for row in rows(_RELATIONS)
            ),
            tuple(Setting(**row) for row in rows(_SETTINGS)),
            tuple(Operator(**row) for row in rows(_OPERATORS)),
            tuple(Cast(**row) for row in rows(_CASTS)),
            tuple((row["typname"], row["obj_description"]) for row in rows(_TYPES)),
        )


@contextmanager
def provisioned() -> Iterator[str]:
    """The URL of a new database on an embedded server of its own, which ends with the block."""
    from llm_sql.provision import upgrade
    from llm_sql.server import EmbeddedServer

    # Other accounts must be able to pass: root's server runs as another. A short path, as a socket's must be.
    place = Path(mkdtemp(prefix="llm-sql-docs-", dir="/tmp"))
    place.chmod(0o711)
    server = EmbeddedServer(place / "home", settings={"fsync": "off", "full_page_writes": "off"})
    try:
        server.start()
        server.ensure_database()
        upgrade(server.url())
        yield server.url()
    finally:
        server.stop()
        server.release()
        rmtree(place, ignore_errors=True)
