"""Writes the reference's pages beside the staged ones, and names.json, by which code in pages is linked."""

from __future__ import annotations

import json
from pathlib import Path

from . import (
    SOURCE,
    UndocumentedError,
    catalog,
    command_line,
    errors_page,
    python_api,
    settings_page,
    sql_pages,
    stage,
)


def write(target: Path = SOURCE) -> set[Path]:
    """Write the pages; returns the files. Raises when something lacks a comment or a place."""
    with catalog.provisioned() as url:
        found = catalog.read(url)
    silent = found.uncommented()
    if silent:
        raise UndocumentedError("without a comment: " + "; ".join(silent))
    sql, names = sql_pages.pages(found)
    pages = {f"sql/{name}": text for name, text in sql.items()}
    for more, more_names in (settings_page.pages(found), command_line.pages(), python_api.pages()):
        pages |= more
        names |= {name: place for name, place in more_names.items() if name not in names}
    names |= errors_page.names(found)
    written = {stage.write(target / "reference" / f"{name}.md", text) for name, text in pages.items()}
    return written | {stage.write(target / "names.json", json.dumps(names, indent=0, sort_keys=True))}
