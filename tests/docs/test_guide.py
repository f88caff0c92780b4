"""The guide's tables of arguments and settings are complete, and say what is declared."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from llm_sql.models.arguments import HYPERPARAMETERS, SAMPLING, Argument

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "psql.md"
# Statements that a user might write, each refused with a message of the table of errors.
REFUSED = (
    "SELECT llm_create_model('mine', n_layer => 1, n_head => 3, d_model => 64, n_positions => 4, vocab => 4)",
    "SELECT llm_create_model('a', n_layer => 20000, n_head => 1, d_model => 4, n_positions => 4, vocab => 4)",
    "SELECT llm_create_model('gpt2-small')",
    "SELECT llm_drop_model('nobody')",
    "SELECT llm_publish('gpt2-small')",
    "SELECT llm_encode('text', 'gpt2-small')",
    "SELECT llm_init_model('gpt2-small', seed => NULL)",
    "SELECT llm_train('gpt2-small', 1)",
    "SELECT llm_generate(5)",
    "SELECT llm_backprop()",
    "SELECT llm_build_char_tokenizer('other', 'SELECT 1 WHERE false')",
    "SELECT llm_build_char_tokenizer('other', 'SELEC 1')",
    "SELECT '[1,2]'::tensor @ '[[1,2,3]]'::tensor",
    "SELECT pg_llm_mean_pool('[[1],[2],[3]]', '{2}')",
    "SELECT '[1,2'::tensor",
    "SELECT '[1]'::tensor(3)",
    "SET pg_llm.weights = 'int2'",
    "CALL llm_train_loop('gpt2-small', 1)",
)
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


@pytest.mark.parametrize("statement", REFUSED)
def test_errors(db_url: str, statement: str) -> None:
    rows = re.findall(
        r"^\|([^|]*)\| (.*?) \| [^|]* \|$", PAGE.read_text().split("\n## Errors\n")[1], re.MULTILINE
    )
    said: dict[str, set[str]] = {}
    codes: list[str] = []
    for codes_, message in rows:
        codes = codes_.strip().split(", ") if codes_.strip() else codes
        for code in codes:
            said.setdefault(code, set()).add(without_names(message))
    with psycopg.connect(db_url.replace("postgresql+psycopg:", "postgresql:")) as connection:
        connection.execute("SELECT pg_llm_numerics_version()")
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(statement.encode())
    sqlstate, message = refused.value.sqlstate, refused.value.diag.message_primary
    assert sqlstate is not None
    assert message is not None
    assert without_names(message) in said.get(sqlstate, set())


def without_names(message: str) -> str:
    return re.sub(r"\d+", "N", re.sub('"[^"]*"', '"..."', message))


def test_settings(db_url: str) -> None:
    with psycopg.connect(db_url.replace("postgresql+psycopg:", "postgresql:")) as connection:
        connection.execute("SELECT pg_llm_numerics_version()")
        found = connection.execute(
            "SELECT name, boot_val || COALESCE(unit, ''), context FROM pg_settings"
            " WHERE name LIKE 'pg\\_llm.%' ORDER BY name COLLATE \"C\""
        ).fetchall()
    said = {name: [default, who] for name, (default, who, _) in table("settings").items()}
    assert said == {name: [default or "empty", CONTEXTS[context]] for name, default, context in found}
