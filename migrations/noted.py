"""What a database notes of itself: the revision it is at, and the build of llm-sql that made it."""

from __future__ import annotations

from sqlalchemy import Connection, text

from . import VERSION_TABLE, build


def version_table_exists(connection: Connection) -> bool:
    return connection.scalar(text(f"SELECT to_regclass('public.{VERSION_TABLE}')")) is not None


def revision(connection: Connection) -> str | None:
    """The revision the database says it is at; None when it was never provisioned.

    Roles without a right to the table read it from the table's comment.
    """
    if not version_table_exists(connection):
        return None
    if connection.scalar(text(f"SELECT has_table_privilege('public.{VERSION_TABLE}', 'SELECT')")):
        found = connection.execute(text(f"SELECT version_num FROM public.{VERSION_TABLE}")).scalars().all()
        return str(found[0]) if found else None
    noted = build_of(connection)
    return noted.revision if noted else None


def behind(at: str | None) -> str | None:
    """What is to be said of a database at that revision that is not at the newest; None at the newest."""
    if at == build.head():
        return None
    return "is not provisioned" if at is None else f"is at revision {at}, not {build.head()}"


def build_of(connection: Connection) -> build.Build | None:
    """The build that provisioned the database, as far as it was noted."""
    query = f"SELECT obj_description(to_regclass('public.{VERSION_TABLE}'), 'pg_class')"
    return build.read(connection.scalar(text(query)))
