"""How much of a kind is tried: `make test` takes a share of it, LLM_SQL_EXTENDED=1 in the environment all.

CI runs `LLM_SQL_EXTENDED=1 pytest -m extended` once beside `make test` (.ci/extended.sh).
LLM_SQL_FIRST_CASES=1 takes the first case of each test alone: for a PostgreSQL between two on which all run
(.ci/servers.sh).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

EXTENDED = bool(os.environ.get("LLM_SQL_EXTENDED"))
FIRST_CASES = bool(os.environ.get("LLM_SQL_FIRST_CASES"))

# A test that tries more when EXTENDED.
grows = pytest.mark.extended
_skip = pytest.mark.skipif(not EXTENDED, reason="LLM_SQL_EXTENDED=1 runs it")


def extended(test: Test) -> Test:
    """Only EXTENDED runs this test."""
    marked: Test = pytest.mark.extended(_skip(test))
    return marked


def only_extended(*values: object, id: str | None = None) -> Any:
    """A case that only EXTENDED runs, among a test's others."""
    return pytest.param(*values, id=id, marks=[pytest.mark.extended, _skip])


def first_cases(items: list[pytest.Item]) -> list[pytest.Item]:
    """The first case of each test."""
    first: dict[str, pytest.Item] = {}
    for item in items:
        first.setdefault(item.nodeid.split("[")[0], item)
    return list(first.values())
