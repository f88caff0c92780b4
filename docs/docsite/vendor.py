"""The programs of others in docs/_static/vendor: each is the file that its README.md says, by its hash."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from . import DOCS

VENDOR = DOCS / "_static" / "vendor"
ROW = re.compile(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", re.MULTILINE)


def problems(folder: Path = VENDOR) -> list[str]:
    """What is wrong with the files, each as a sentence."""
    said = dict(ROW.findall((folder / "README.md").read_text(encoding="utf-8")))
    found = []
    for name, digest in said.items():
        path = folder / name
        if not path.exists():
            found.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            found.append(f"{name} is not the file whose sha256 README.md names")
    scripts = {path.relative_to(folder).as_posix() for path in folder.rglob("*.js")}
    found += [f"README.md says nothing about {name}" for name in sorted(scripts - said.keys())]
    return found
