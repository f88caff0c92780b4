"""Views of schema public and their triggers, one .sql file per view; every file here is declared."""

from __future__ import annotations

from importlib import resources


def sources() -> list[tuple[str, str]]:
    """(file name, text) of every .sql file of this folder, by name."""
    files = (entry for entry in resources.files(__name__).iterdir() if entry.name.endswith(".sql"))
    return [(entry.name, entry.read_text(encoding="utf-8")) for entry in sorted(files, key=lambda e: e.name)]
