"""What is printed is only text, whatever names and models hold, and JSON is JSON."""

from __future__ import annotations

import json
import sys
from math import inf, nan

import pytest

from llm_sql.cli import common
from llm_sql.printable import harmless, title, visible

HOSTILE = "a\x1b[31m\x9b2J\rb\x07 日\u00a0é\n\tc"


@pytest.fixture(autouse=True)
def fresh_console() -> None:
    common.console.cache_clear()


def test_control_characters_reach_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common.say(HOSTILE)
    assert capsys.readouterr().out == HOSTILE + "\n", "a pipe gets what there is"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    common.say(HOSTILE)
    common.remark(HOSTILE)
    shown = capsys.readouterr()
    assert shown.out == shown.err == "a\\x1b[31m\\x9b2J\\rb\\x07 日\u00a0é\n\tc\n"


def test_tables_hold_text_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_table([{"note": "[/red] [bold]x :smile:", "model": "\x1b[0m"}])
    shown = capsys.readouterr().out
    assert "[/red] [bold]x :smile:" in shown
    assert "\\x1b[0m" in shown


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_json({"a": [nan, -inf, (1.5, inf)], "b": HOSTILE, "c": None})
    shown = capsys.readouterr().out

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(shown, parse_constant=refuse)
    assert found == {"a": [None, None, [1.5, None]], "b": HOSTILE, "c": None}


def test_titles_are_one_line() -> None:
    assert title(HOSTILE).isprintable()
    assert title("x" * 48) == "x" * 48
    assert len(title("x" * 49)) == 48
    assert visible("\u202e\n") == "\\u202e\\n"
    assert harmless("\r\n") == "\\r\n"
