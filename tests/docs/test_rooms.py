"""The folders of C sources use each other as their README says, and in no circle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
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
    left = declared(tree)
    while left:
        ground = {room for room, uses in left.items() if not uses & left.keys()}
        assert ground, f"a circle among {sorted(left)}"
        for room in ground:
            del left[room]
