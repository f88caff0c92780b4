"""Copies what people wrote to where Sphinx reads: docs/ as it is, notebooks/ and CHANGELOG.md beside it.

In the repository pages link to each other, to notebooks and to source files by relative paths, so that a web
view of the repository follows them. In the copy, links to what is no page of the site become its text.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path, PurePosixPath

from . import DOCS, ROOT, SOURCE

PICTURES = (".png", ".svg", ".gif", ".jpg", ".jpeg")
# Beside docs/: where it is in the repository, and in the copy.
BESIDE = {"CHANGELOG.md": "changelog.md", "README.md": "index.md"}
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(((?![a-z]+:|#|/)[^()\s#]+)(#[^()\s]*)?\)")
TOCTREE = re.compile(r"^```\{toctree\}.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^ *(```+|~~~+).*?^ *\1\s*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


class BrokenLinkError(Exception):
    """A link of a page leads to nothing in the repository."""


def stage(target: Path = SOURCE) -> set[Path]:
    """Write the copy; returns the files it holds. Files that did not change keep their times."""
    written = set()
    for path in sorted(DOCS.rglob("*")):
        inside = path.relative_to(DOCS)
        if inside.parts[0].startswith("_") or inside.parts[0] == "docsite" or not path.is_file():
            continue
        if path.suffix == ".md":
            text = mend(path.read_text(encoding="utf-8"), path, PurePosixPath(inside.as_posix()))
            written.add(write(target / inside, text))
        elif path.suffix in PICTURES:
            written.add(_copy(path, target / inside))
    changelog = ROOT / "CHANGELOG.md"
    text = mend(changelog.read_text(encoding="utf-8"), changelog, PurePosixPath("changelog.md"))
    written.add(write(target / "changelog.md", text))
    for path in sorted((ROOT / "notebooks").iterdir()):
        place = PurePosixPath("notebooks", path.name)
        if path.suffix == ".ipynb":
            written.add(write(target / place, _mend_notebook(path, place)))
        elif path.suffix in PICTURES:
            written.add(_copy(path, target / place))
    return written


def mend(text: str, page: Path, place: PurePosixPath) -> str:
    """The page's text with its links as they lead from `place` in the copy; code blocks stay as they are."""

    shown = [code.span() for code in CODE.finditer(text)]

    def mended(match: re.Match[str]) -> str:
        if any(begin <= match.start() and match.end() <= end for begin, end in shown):
            return match.group()
        label, link, anchor = match[1], match[2], match[3] or ""
        found = Path(os.path.normpath(page.parent / link))
        if not found.exists():
            raise BrokenLinkError(f"{page.relative_to(ROOT)}: ({link}) leads to no file")
        staged = _staged(found)
        if staged is None:
            return label
        return f"[{label}]({_relative(staged, place)}{anchor})"

    return LINK.sub(mended, text)


def _mend_notebook(path: Path, place: PurePosixPath) -> str:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = mend("".join(cell["source"]), path, place)
    return json.dumps(notebook)


def write(path: Path, text: str) -> Path:
    """Write a file unless it says so already: Sphinx reads again what is newer."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


def prune_toctrees(target: Path = SOURCE) -> None:
    """Drop patterns that match nothing from the copy's toctrees: a room may be empty; Sphinx would warn."""
    for page in target.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for block in TOCTREE.findall(text):
            kept = [line for line in block.splitlines() if "*" not in line or _matches(page.parent, line)]
            text = text.replace(block, "\n".join(kept))
        write(page, text)


def _matches(folder: Path, pattern: str) -> bool:
    return any(path.suffix in (".md", ".ipynb") for path in folder.glob(f"{pattern.strip()}.*"))


def remove_others(kept: set[Path], target: Path = SOURCE) -> None:
    """Remove what an earlier build left in the copy."""
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_file() and path not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _staged(path: Path) -> PurePosixPath | None:
    """Where a file of the repository is in the copy, if it is there."""
    try:
        inside = PurePosixPath(path.relative_to(ROOT).as_posix())
    except ValueError:
        return None
    if str(inside) in BESIDE:
        return PurePosixPath(BESIDE[str(inside)])
    if inside.parts[0] == "notebooks" and path.suffix == ".ipynb":
        return inside
    if inside.parts[0] == "docs" and path.suffix in (".md", *PICTURES):
        return PurePosixPath(*inside.parts[1:])
    return None


def _relative(path: PurePosixPath, page: PurePosixPath) -> str:
    return PurePosixPath(os.path.relpath(path, page.parent)).as_posix()


def _copy(path: Path, target: Path) -> Path:
    if not target.exists() or target.read_bytes() != path.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return target
