"""What must be in a wheel and an sdist; or, with --tour, the Python blocks of a page as one program.

usage: check_packages.py DIRECTORY | --tour PAGE
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Where what lies in the repository is installed.
ROOMS = {"models": "llm_sql/models", "migrations": "llm_sql/migrations", "pg_llm_client": "pg_llm_client"}
DATA = (".sql", ".py", ".pyi", ".typed", ".mako", ".json", ".ini")
BESIDE = (
    "provision.sql",
    "LICENSE",
    "CHANGELOG.md",
    "alembic.ini",
    "tests/conftest.py",
    "kernels/core/Makefile",
)


def tracked(room: str) -> set[str]:
    """The room's files that a user needs, by their path in it."""
    return {
        path.relative_to(ROOT / room).as_posix()
        for path in (ROOT / room).rglob("*")
        if path.suffix in DATA and "__pycache__" not in path.parts and "_pg" not in path.parts
    }


def missing_of_wheel(names: set[str]) -> set[str]:
    wanted = {
        f"{place}/{name}" for room, place in {**ROOMS, "llm_sql": "llm_sql"}.items() for name in tracked(room)
    }
    scripts = {f"llm_sql/kernels/postgres/{n}" for n in tracked("kernels/postgres") if n.endswith(".sql")}
    built = {
        f"llm_sql/_pg/18/{n}"
        for n in ("lib/pg_llm.so", "share/extension/pg_llm.control", "share/extension/pg_llm--1.0.sql")
    }
    if sys.platform == "darwin":
        built = {name.replace(".so", ".dylib") for name in built}
    return {name for name in wanted | scripts | built if name not in names and "/build/" not in name}


def check(folder: Path) -> list[str]:
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    problems = [f"{wheel.name} lacks {name}" for name in sorted(missing_of_wheel(names))]
    tops = {name.split("/")[0] for name in names}
    problems += [
        f"{wheel.name} puts {top} at the top" for top in tops if not top.startswith(("llm_sql", "pg_llm_"))
    ]
    links = re.findall(r"\]\((?!https?:|#)[^)]+\)", metadata)
    problems += [f"the description has a link that leads nowhere: {link}" for link in links]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    problems += [f"{sdist.name} lacks {name}" for name in BESIDE if name not in inside]
    for room in (*ROOMS, "llm_sql"):
        problems += [
            f"{sdist.name} lacks {room}/{n}" for n in sorted(tracked(room)) if f"{room}/{n}" not in inside
        ]
    print(f"{wheel.name}: {len(names)} files; {sdist.name}: {len(inside)} files")
    return problems


def tour(page: Path) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return "\n".join(blocks)


def main(arguments: list[str]) -> int:
    if arguments[0] == "--tour":
        print(tour(Path(arguments[1])))
        return 0
    problems = check(Path(arguments[0]))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
