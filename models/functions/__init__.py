"""Functions and procedures of schema public, one .sql file per subject; every file here is declared.

Arguments that functions share are declared in ../arguments.py and written into the text where it says so.
"""

from __future__ import annotations

from importlib import resources

from ..forms import expand


def sources() -> list[tuple[str, str]]:
    """(file name, text) of every .sql file of this folder, by name."""
    files = (entry for entry in resources.files(__name__).iterdir() if entry.name.endswith(".sql"))
    return [
        (entry.name, expand(entry.read_text(encoding="utf-8")))
        for entry in sorted(files, key=lambda e: e.name)
    ]
