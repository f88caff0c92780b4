"""The listing that compares the databases of two builds."""

from __future__ import annotations

from collections.abc import Callable

from .catalogue import lines
from .conftest import Migrations


def listing(database: Migrations) -> list[str]:
    with database.connect() as connection:
        return list(lines(connection))


def test_databases_of_one_build_have_one_listing(new_database: Callable[..., Migrations]) -> None:
    databases = new_database(), new_database()
    for database in databases:
        database.upgrade()
    listed, other = map(listing, databases)
    assert listed == other
    for line in (
        "type public.tensor",
        "member pg_llm: type public.tensor",
        "cast real[] as public.tensor",
        "operator class hash tensor_ops",
        "relation public.llm_param",
    ):
        assert line in listed


def test_a_changed_function_shows(at_head: Migrations) -> None:
    before = listing(at_head)
    at_head.execute("COMMENT ON FUNCTION pg_llm_neg(tensor) IS 'minus'")
    assert set(listing(at_head)) - set(before) == {"    minus"}
