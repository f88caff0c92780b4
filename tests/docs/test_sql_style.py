"""The linter of SQL sees into PL/pgSQL bodies (.ci/lint_sql.py; the development tools must be installed)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
GOOD = """-- What it does.

CREATE FUNCTION public.f(model text, OUT n bigint, OUT most double precision)
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
    piece record;
BEGIN
    PERFORM public.check_it(
        model IS NOT NULL,
        'select'
    );
    SELECT count(*), max(p.x) INTO n, most
    FROM public.t p
    INNER JOIN public.u ON u.id = p.id AND p.id <> ANY (ARRAY[1, 2])
    WHERE p.model = f.model;
    FOR piece IN SELECT * FROM public.t LOOP
        n := n + (SELECT count(*) FROM public.u WHERE u.x IS NULL);
    END LOOP;
END;
$function$;
"""
# What is changed in it, and the problem that this makes.
CHANGES = {
    "keyword of a statement": ("    FROM public.t p", "    from public.t p", 14, "CP01"),
    "keyword of PL/pgSQL": ("END LOOP", "end loop", 19, "keyword"),
    "join": ("INNER JOIN", "JOIN", 15, "AM05"),
    "operator": ("<>", "!=", 15, "CV01"),
    "spaces": ("u.id = p.id", "u.id=p.id", 15, "LT01"),
    "expression": ("IS NULL)", "= NULL)", 18, "CV05"),
    "indentation": ("        model", "      model", 10, "layout"),
    "width": ("-- What", f"-- {'x' * 120}", 1, "layout"),
    "identifier": ("WHERE p.model", "WHERE p.Model", 16, "CP02"),
    "syntax of PL/pgSQL": ("END LOOP;", "", 1, "syntax"),
    "syntax of a statement": ("max(p.x)", "max(p.x", 1, "syntax"),
    "end": ("$function$;\n", "$function$;\n\n", 23, "layout"),
}


@pytest.fixture(scope="module")
def linter() -> ModuleType:
    pytest.importorskip("sqlfluff")
    pytest.importorskip("pglast")
    spec = importlib.util.spec_from_file_location("lint_sql", ROOT / ".ci" / "lint_sql.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def problems(linter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], set[tuple[int, str]]]:
    monkeypatch.chdir(ROOT)

    def lint(text: str) -> set[tuple[int, str]]:
        return {(problem.line, problem.code) for problem in linter.problems_of("f.sql", text)}

    return lint


def test_good_style_passes(problems) -> None:
    assert problems(GOOD) == set()


@pytest.mark.parametrize("change", CHANGES)
def test_bad_style_is_found(problems, change: str) -> None:
    before, after, line, code = CHANGES[change]
    assert before in GOOD
    assert (line, code) in problems(GOOD.replace(before, after))
