"""Which build of llm-sql made a database: a hash over what decides the schema, kept as a comment.

Until 0.1.0 revisions are edited in place, and a database at the newest revision may still be an earlier
commit's. The comment on llm_sql_version says which build ran the revisions; every role can read it. Hashed is
what a release freezes, so that a later release finds the same hashes for the same revision.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_sql.models.objects import split_statements

from . import EXTENSION, VERSION_TABLE
from .scripts import SCRIPTS, parts

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_HERE = Path(__file__).parent
_KERNELS = re.compile(r"""^    op\.(?:install|update)_kernels\(["']([^"']+)["']\)$""", re.M)
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
    return Build(revision, _hash(_contents(files)), _hash(map(_script, filter(None, steps))))


def mark(build: Build) -> list[str]:
    """Statements that note the build, in the transaction that made it."""
    return [f"COMMENT ON TABLE public.{VERSION_TABLE} IS '{build.comment}'"]


def script_directory() -> ScriptDirectory:
    """The revisions of this package, as Alembic runs them."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(_HERE))


def head() -> str:
    """The newest revision of this package."""
    below = _revisions()
    [newest] = below.keys() - set(below.values())
    return newest


@cache
def _revisions() -> dict[str, str | None]:
    """Each revision and the one it stands on, read rather than run: every command asks for them."""
    modules = (ast.parse(path.read_bytes()) for path in (_HERE / "versions").glob("*.py"))
    constants = [dict(filter(None, map(_constant, module.body))) for module in modules]
    return {c["revision"]: c["down_revision"] for c in constants if c.get("revision") is not None}


def _constant(statement: ast.stmt) -> tuple[str, Any] | None:
    """The name and value of `name = constant`, with a type or without."""
    match statement:
        case ast.Assign([ast.Name(name)], ast.Constant(value)):
            return name, value
        case ast.AnnAssign(ast.Name(name), _, ast.Constant(value)):
            return name, value
    return None


def _chain(revision: str) -> list[str]:
    """The revision and what it stands on, down to the first; nothing for one of somebody else's."""
    chain: list[str] = []
    at: str | None = revision
    while at in (below := _revisions()):
        chain.append(at)
        at = below[at]
    return chain


def _kernels_of(revision: str) -> list[str]:
    """The version of the extension that the revision brings, if any; the way up stands above the way down."""
    texts = (path.read_text(encoding="utf-8") for path in (_HERE / "versions").glob(f"{revision}_*.py"))
    return [version for text in texts for version in _KERNELS.findall(text)[:1]]


def _files_of(revision: str) -> Iterable[Path]:
    yield from sorted((_HERE / "versions").glob(f"{revision}_*.py"))
    yield from sorted((_HERE / "sql" / revision).rglob("*.sql"))


def _contents(files: Iterable[Path]) -> Iterable[tuple[str, bytes]]:
    return ((path.relative_to(_HERE).as_posix(), path.read_bytes()) for path in files)


def _script(versions: list[str]) -> tuple[str, bytes]:
    """The script that makes the first version, or goes from one to the next, by its statements: until the
    release after this one the first is what make joins from the parts, afterwards it is kept as a file.
    """
    name = f"{'--'.join([EXTENSION, *versions])}.sql"
    files = [SCRIPTS / name] if (SCRIPTS / name).exists() else parts()
    statements = (s for path in files for s in split_statements(path.read_text(encoding="utf-8")))
    return name, "\n".join(sorted(s for s in statements if not s.startswith("\\"))).encode()


def _hash(contents: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in contents:
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
