"""Folders use each other as the documents say, and in no circle: C by its includes, Python by its imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "kernels"
ROW = re.compile(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", re.M)
INCLUDE = re.compile(r'^# *include "([^"]+)"', re.M)


def declared(tree: str) -> dict[str, set[str]]:
    rows = ROW.findall((KERNELS / tree / "README.md").read_text(encoding="utf-8"))
    return {room: set(re.findall(r"`(\w+)`", uses)) for room, uses in rows}


def used(room: Path) -> set[str]:
    """Other rooms of the tree whose headers a room's files include."""
    found = set()
    for path in room.glob("*.[ch]"):
        for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
            if "/" in name and (room.parent / name).exists():
                found.add(name.split("/")[0])
    return found


@pytest.mark.parametrize("tree", ["core", "postgres"])
def test_rooms_use_what_their_readme_says(tree: str) -> None:
    folders = [path for path in (KERNELS / tree).iterdir() if any(path.glob("*.[ch]"))]
    assert {path.name: used(path) for path in folders} == declared(tree)


@pytest.mark.parametrize("tree", ["core", "postgres"])
def test_rooms_use_each_other_in_no_circle(tree: str) -> None:
    TopologicalSorter(declared(tree)).prepare()  # raises CycleError


# Where the packages lie, and by which name they are imported.
PYTHON = {
    "kernels/python": "llm_sql.kernels",
    "models": "llm_sql.models",
    "migrations": "llm_sql.migrations",
    "pg_llm_client": "pg_llm_client",
    **{
        path.parent.relative_to(ROOT).as_posix(): ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "llm_sql").rglob("__init__.py")
    },
}


def folder_of(module: str) -> str | None:
    """The folder of ours that a module is in: the one with the longest name that begins the module's."""
    found = [folder for folder, name in PYTHON.items() if f"{module}.".startswith(f"{name}.")]
    return max(found, key=lambda folder: len(PYTHON[folder]), default=None)


def imported(path: Path, package: str) -> Iterator[str]:
    """Every module that a file imports, also inside of functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            # `from package import x`: x may be a package, too.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def python_uses() -> dict[str, set[str]]:
    uses: dict[str, set[str]] = {folder: set() for folder in PYTHON}
    for folder in PYTHON:
        for path in (ROOT / folder).rglob("*.py"):
            within = path.parent.relative_to(ROOT / folder).parts
            package = ".".join([PYTHON[folder], *within])
            if folder_of(package) == folder:
                used = {folder_of(name) for name in imported(path, package)}
                uses[folder] |= {name for name in used if name is not None}
    return {folder: used - {folder} for folder, used in uses.items()}


def test_python_folders_use_what_the_architecture_says() -> None:
    text = (ROOT / "docs" / "develop" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)` \|[^|]*\|([^|]*)\|$", text, re.M)
    told = {
        folder: set(re.findall(r"`([\w/]+)`", uses)) & PYTHON.keys()
        for folder, uses in rows
        if folder in PYTHON
    }
    assert python_uses() == told


def test_python_folders_use_each_other_in_no_circle() -> None:
    TopologicalSorter(python_uses()).prepare()  # raises CycleError
