"""Which build of llm-sql made a database: a hash over what decides the schema, kept as a comment.

Until 0.1.0 revisions are edited in place, and a database at the newest revision may still be an earlier
commit's. The comment on llm_sql_version says which build ran the revisions; every role can read it. Hashed is
what a release freezes, so that a later release finds the same hashes for the same revision.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError

from . import VERSION_TABLE
from .kernels import SCRIPTS
from .operations import EXTENSION

_HERE = Path(__file__).parent
_KERNELS = re.compile(r'^    op\.(?:install|update)_kernels\("([^"]+)"\)$', re.M)
_COMMENT = re.compile(r"llm-sql revision (\w+), build (\w+), kernels (\w+)")


class Build(NamedTuple):
    """A revision, the hash of all revisions up to it, and that of the extension's scripts they ran."""

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
    versions = [version for r in reversed(chain) for version in _kernels_of(r)]
    steps = [versions[:1], *map(list, pairwise(versions))]
    scripts = [SCRIPTS / f"{'--'.join([EXTENSION, *step])}.sql" for step in steps if step]
    return Build(revision, _hash(files, _HERE), _hash(scripts, SCRIPTS))


def mark(build: Build) -> list[str]:
    """Statements that note the build, in the transaction that made it."""
    return [f"COMMENT ON TABLE public.{VERSION_TABLE} IS '{build.comment}'"]


def script_directory() -> ScriptDirectory:
    """The revisions of this package."""
    return ScriptDirectory(str(_HERE))


def _chain(revision: str) -> list[str]:
    """The revision and what it stands on, down to the first."""
    try:
        return [script.revision for script in script_directory().iterate_revisions(revision, "base")]
    except RevisionError:
        return []  # one of somebody else's


def _kernels_of(revision: str) -> list[str]:
    """The version of the extension that the revision brings, if any; the way up stands above the way down."""
    texts = (path.read_text(encoding="utf-8") for path in (_HERE / "versions").glob(f"{revision}_*.py"))
    return [version for text in texts for version in _KERNELS.findall(text)[:1]]


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
