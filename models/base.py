"""The one MetaData, its naming convention, and what a Python annotation means as a column type."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Double, Integer, LargeBinary, MetaData, Sequence, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.schema import SchemaConst

# Constraints are named by rule, so that a revision and an error message can speak of them.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

SCHEMA = "public"
# By name, so that a mapped class finds its table whatever search_path a connection has.
metadata = MetaData(schema=SCHEMA, naming_convention=NAMING_CONVENTION)


class Base(DeclarativeBase):
    """Base of every mapped relation. Arrays are PostgreSQL's, times carry their zone, floats are 8 bytes."""

    metadata = metadata
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it from the class
        str: Text(),
        int: Integer(),
        float: Double(),
        bytes: LargeBinary(),
        datetime: TIMESTAMP(timezone=True),
        list[int]: ARRAY(Integer()),
        list[str]: ARRAY(Text()),
        dict[str, Any]: JSONB(),
    }


def _declare() -> None:
    """A table is in `metadata` once its module is imported."""
    from . import declared  # noqa: F401


def table_names() -> list[str]:
    """The tables' names, without their schema."""
    _declare()
    return [table.name for table in metadata.tables.values()]


def unqualified() -> MetaData:
    """The tables without their schema: for Alembic, which leaves out the one that is a connection's default,
    and for copies elsewhere.
    """
    _declare()
    copy = MetaData(naming_convention=NAMING_CONVENTION)
    for table in metadata.sorted_tables:
        table.to_metadata(copy, schema=None, referred_schema_fn=lambda *_: SchemaConst.BLANK_SCHEMA)  # type: ignore[arg-type]
    return copy


# Every recorded pass takes one number; its tape ids lie in the block of 2^24 that begins at number * 2^24.
pass_sequence = Sequence("llm_pass_seq", metadata=metadata)
