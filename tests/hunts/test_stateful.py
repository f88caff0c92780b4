"""A short hunt as each role; LLM_SQL_HUNT_SECONDS for each (3; CI takes 12), LLM_SQL_HUNT_SEED repeats one.

Long ones, and those under the sanitizer: docs/develop/testing.md.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..amount import grows
from ..conftest import Server
from .database import ROLES, clean, prepare
from .stateful import Hunt, connection
from .statements import Statements

SECONDS = float(os.environ.get("LLM_SQL_HUNT_SECONDS", "3"))
SEED = os.environ.get("LLM_SQL_HUNT_SEED") or secrets.token_hex(4)


@pytest.fixture
def url(server: Server, fresh_database: str) -> Iterator[str]:
    """A database of the test's own to hunt in."""
    url = server.url(fresh_database)
    with connection(url) as conn:
        prepare(conn)
    yield url
    with connection(url) as conn:
        clean(conn)


@grows
@pytest.mark.parametrize("role", ROLES)
def test_no_random_session_breaks_anything(role: str, url: str, tmp_path: Path) -> None:
    """No crash, no internal error, no report of PostgreSQL's own checks, no cancel without effect."""
    asan = os.environ.get("LLM_SQL_ASAN_REPORTS")
    hunt = Hunt(url, role, SEED, asan=Path(asan) if asan else None, patience=600, folder=tmp_path)
    outcome = hunt.run(seconds=SECONDS)
    print(f"LLM_SQL_HUNT_SEED={SEED} as {role}: {outcome}")
    assert not outcome.found, "\n".join(outcome.found)
    assert outcome.calls > 0
    assert outcome.succeeded_by_name, "nothing was reached"


def test_a_find_is_told_and_written_down(url: str, tmp_path: Path) -> None:
    """A session that loses its server is a find, with the statements that led there."""
    hunt = Hunt(url, "superuser", "1", folder=tmp_path)
    opening = Statements.opening
    try:
        Statements.opening = lambda self: [*opening(self), "SELECT pg_terminate_backend(pg_backend_pid())"]  # type: ignore[method-assign]
        outcome = hunt.run(calls=100)
    finally:
        Statements.opening = opening  # type: ignore[method-assign]
    assert "connection was lost" in outcome.found[0]
    assert outcome.log is not None
    assert "pg_terminate_backend" in outcome.log.read_text()
