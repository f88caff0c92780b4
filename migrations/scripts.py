"""The extension's SQL scripts, as this package carries them; read without importing what they are about."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from . import EXTENSION

_KERNELS = find_spec("llm_sql.kernels")
assert _KERNELS is not None
assert _KERNELS.origin is not None
_PYTHON = Path(_KERNELS.origin).parent
# In the installed package the folders of scripts lie inside llm_sql.kernels, in a checkout beside its Python.
SCRIPTS = next(place / "postgres" for place in (_PYTHON, _PYTHON.parent) if (place / "postgres").is_dir())


def version() -> str:
    """The version this package's control file names."""
    control = (SCRIPTS / f"{EXTENSION}.control").read_text(encoding="utf-8")
    match = re.search(r"default_version\s*=\s*'([^']+)'", control)
    assert match is not None
    return match[1]


def parts() -> list[Path]:
    """The files that make joins into the extension's script, by name."""
    beside = (path for path in SCRIPTS.glob("*.sql") if not path.name.startswith(f"{EXTENSION}--"))
    return sorted([*beside, *SCRIPTS.glob("*/*.sql")])
