"""Which build of llm-sql made a database: a hash over what decides the schema, kept as a comment.

Until 0.1.0 revisions are edited in place, and a database at the newest revision may still be an earlier
commit's. The comment on llm_sql_version says which build ran the revisions; every role can read it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from alembic.script.revision import RevisionError

from . import VERSION_TABLE
from .kernels import SCRIPTS

_HERE = Path(__file__).parent
_KERNELS = SCRIPTS.parent
_COMMENT = re.compile(r"llm-sql revision (\w+), build (\w+), kernels (\w+)")


class Build(NamedTuple):
    """A revision, the hash of all revisions up to it, and that of the extensions' scripts."""

    revision: str
    schema: str
    kernels: str

    @property
    def comment(self) -> str:
        return f"llm-sql revision {self.revision}, build {self.schema}, kernels {self.kernels}"


def read(comment: str | None) -> Build | None:
    """The build that a comment names; None when it names none."""
    match = _COMMENT.fullmatch(comment or "")
    return Build(*match.groups()) if match else None


@cache
def of_revision(revision: str) -> Build:
    """What this package's revisions up to that one make."""
    chain = _chain(revision)
    files = [path for r in chain for path in _files_of(r)]
    return Build(revision, _hash(files, _HERE), _hash(sorted(_KERNELS.glob("postgres*/**/*.sql")), _KERNELS))


def mark(build: Build) -> list[str]:
    """Statements that note the build, in the transaction that made it."""
    return [f"COMMENT ON TABLE public.{VERSION_TABLE} IS '{build.comment}'"]


def _chain(revision: str) -> list[str]:
    from llm_sql import provision

    directory = provision.script_directory()
    try:
        return [script.revision for script in directory.iterate_revisions(revision, "base")]
    except RevisionError:
        return []  # one of somebody else's


def _files_of(revision: str) -> Iterable[Path]:
    yield from sorted((_HERE / "versions").glob(f"{revision}_*.py"))
    yield from sorted((_HERE / "sql" / revision).rglob("*.sql"))


def _hash(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
