"""The builder of the site (docs/docsite) refuses what it should: broken links, missing comments."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from ..support.pages import DOCS


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(DOCS))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "docsite"]:
        del sys.modules[name]


def test_the_bundled_programs_are_those_of_the_readme(tmp_path: Path) -> None:
    from docsite import vendor

    assert vendor.problems() == []
    copy = tmp_path / "vendor"
    shutil.copytree(vendor.VENDOR, copy)
    script = next(copy.rglob("*.js"))
    script.write_bytes(script.read_bytes() + b"\n")
    (copy / "more.js").write_text("")
    assert len(vendor.problems(copy)) == 2
    script.unlink()
    assert any("missing" in problem for problem in vendor.problems(copy))


def test_links_are_mended_for_the_copy() -> None:
    from docsite import stage

    page, place = DOCS / "develop" / "testing.md", PurePosixPath("develop/testing.md")

    def mended(text: str) -> str:
        return stage.mend(text, page, place)

    assert mended("[a](../playbook.md#x)") == "[a](../playbook.md#x)"
    assert mended("[log](../../CHANGELOG.md)") == "[log](../changelog.md)"
    assert mended("[`source`](../../models/param.py)") == "`source`"
    assert mended("[see `x` in it](../../models/param.py)") == "see `x` in it"
    assert mended("`[a](nowhere.md)`") == "`[a](nowhere.md)`"
    assert mended("```text\n[a](nowhere.md)\n```") == "```text\n[a](nowhere.md)\n```"
    with pytest.raises(stage.BrokenLinkError, match=r"nowhere\.md"):
        mended("[a](nowhere.md)")


def test_what_lacks_a_comment_is_named(server: Any, fresh_database: str) -> None:
    import psycopg
    from docsite import catalog

    assert catalog.read(server.url(fresh_database)).uncommented() == []
    with psycopg.connect(server.url(fresh_database)) as connection:
        connection.execute("CREATE FUNCTION public.llm_silent(a int) RETURNS int LANGUAGE sql RETURN a")
        connection.execute("CREATE TABLE public.llm_mute ()")
    assert catalog.read(server.url(fresh_database)).uncommented() == [
        "function llm_silent(integer)",
        "table llm_mute",
    ]


def test_signatures_are_the_declared_ones(server: Any, fresh_database: str) -> None:
    """What the pages show of a function's arguments is what models/functions declares."""
    from docsite import catalog, sql_pages

    from llm_sql.models.signatures import routines

    found = catalog.read(server.url(fresh_database))
    shown = {
        (
            routine.name,
            tuple((p.name, p.type, p.default is not None) for p in routine.parameters if not p.out),
        )
        for routine in found.routines
    }
    declared = {
        (routine.name, tuple((p.name, p.type, p.default is not None) for p in routine.parameters))
        for overloads in routines().values()
        for routine in overloads
    }
    assert declared - shown == set()
    pages, names = sql_pages.pages(found)
    assert "prompt text," in pages["generation"]
    assert names["llm_generate"] == ("reference/sql/generation", "llm-generate")
    assert names["llm_param"][0] == "reference/sql/tables"


def test_a_function_that_no_file_declares_has_no_page(server: Any, fresh_database: str) -> None:
    from docsite import UndocumentedError, catalog, sql_pages

    found = catalog.read(server.url(fresh_database))
    stray = dataclasses.replace(found.routines[0], name="llm_zz_stray", identity="llm_zz_stray()")
    with pytest.raises(UndocumentedError, match="llm_zz_stray"):
        sql_pages.pages(dataclasses.replace(found, routines=(*found.routines, stray)))


def test_every_sqlstate_that_is_raised_stands_on_the_errors_page(server: Any, fresh_database: str) -> None:
    from docsite import UndocumentedError, catalog, errors_page

    found = catalog.read(server.url(fresh_database))
    assert len(errors_page.names(found)) > 20
    other = dataclasses.replace(found.routines[0], comment="22012: divides by zero.")
    with pytest.raises(UndocumentedError, match="22012"):
        errors_page.names(dataclasses.replace(found, routines=(other,)))


def test_commands_and_python_have_their_pages() -> None:
    from docsite import command_line, python_api

    commands, names = command_line.pages()
    assert names["llm-sql train"] == ("reference/command-line", "llm-sql-train")
    assert "`--batch-size`, `-b`" in commands["command-line"]
    assert "`DATABASE_URL`" in commands["command-line"]
    python, places = python_api.pages()
    assert "temperature: float = 1.0," in python["python/models"]
    assert places["LanguageModel.generate"] == ("reference/python/models", "languagemodel-generate")
    assert "async def generate(" in python["python/models"]
