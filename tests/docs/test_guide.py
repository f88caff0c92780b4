"""The guide's tables of arguments and settings are complete, and say what is declared."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from llm_sql.models.arguments import HYPERPARAMETERS, SAMPLING, Argument

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "psql.md"
CONTEXTS = {"user": "everybody", "superuser": "superusers"}


def table(mark: str) -> dict[str, list[str]]:
    """The cells of the table under a mark, by the name in their first."""
    found = re.search(rf"^<!-- {mark}: [^\n]*-->\n((?:\|[^\n]*\n)+)", PAGE.read_text(), re.MULTILINE)
    assert found is not None, f"psql.md has no table of {mark}"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()[2:]]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize(
    ("mark", "arguments"), [("hyperparameters", HYPERPARAMETERS), ("sampling", SAMPLING)]
)
def test_arguments(mark: str, arguments: tuple[Argument, ...]) -> None:
    """In the declared order, with the declared defaults and words."""
    rows = table(mark)
    assert list(rows) == [argument.name for argument in arguments]
    for argument in arguments:
        default, meaning, *_ = rows[argument.name]
        assert default == argument.default.strip("'"), argument.name
        assert meaning.replace("`", "").startswith(argument.doc.partition("; default")[0]), argument.name


def test_settings(db_url: str) -> None:
    with psycopg.connect(db_url.replace("postgresql+psycopg:", "postgresql:")) as connection:
        connection.execute("SELECT pg_llm_numerics_version()")
        found = connection.execute(
            "SELECT name, boot_val || COALESCE(unit, ''), context FROM pg_settings"
            " WHERE name LIKE 'pg\\_llm.%' ORDER BY name COLLATE \"C\""
        ).fetchall()
    said = {name: [default, who] for name, (default, who, _) in table("settings").items()}
    assert said == {name: [default or "empty", CONTEXTS[context]] for name, default, context in found}
