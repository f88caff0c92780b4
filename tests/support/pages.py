"""The pages that people read: README.md and what lies in docs/, without what `make docs` writes there."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if not path.relative_to(DOCS).parts[0].startswith("_")),
]


def name_of(page: Path) -> str:
    """A page's name in a test's id: README.md, docs/guide/psql.md."""
    return page.relative_to(ROOT).as_posix()
