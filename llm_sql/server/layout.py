"""The files of an embedded server: where they live, who owns them, how the extension gets among them.

LLM_SQL_HOME/
    pg18/                the data directory
    run/                 the socket (or a directory in a place with a shorter path)
    server.log
    extension/<hash>/    the extension's files, named by their content
    postgres-18/         PostgreSQL's programs, where the account cannot reach the installed ones
    lock users.lock keep
    initdb-*/            a data directory in the making

Under root the first three and the last belong to the account that the server runs as, all else to root;
nobody else may write in the home or above it (guarded.py says what root does in which of them).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import platformdirs

import llm_sql
from llm_sql.errors import ServerError
from llm_sql.server import guarded
from llm_sql.server.install import Account, open_to_readers

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, one of them the closing zero.
SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
SOCKET_NAME = ".s.PGSQL.5432"


def default_home() -> Path:
    """LLM_SQL_HOME, else the user's data directory.

    Root's own lies behind a private home that the server's account cannot enter, or, with sudo, is another
    user's: there it is /var/lib/llm-sql unless the user's data directory happens to be open and root's.
    """
    configured = os.environ.get("LLM_SQL_HOME")
    if configured:
        return Path(configured).expanduser().absolute()
    home = Path(platformdirs.user_data_dir("llm-sql", appauthor=False))
    if os.geteuid() == 0 and (closed_ancestor(home) is not None or guarded.intruder(home) is not None):
        return Path("/var/lib/llm-sql") if sys.platform != "darwin" else Path("/var/db/llm-sql")
    return home


def closed_ancestor(path: Path) -> Path | None:
    """The nearest existing directory above `path` that other accounts cannot pass through."""
    for parent in path.parents:
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None


def prepare_home(home: Path, account: Account | None) -> None:
    """Create the home. Under root the server's account must be able to pass through it and its ancestors."""
    if ":" in str(home) or "\n" in str(home):
        raise ServerError(
            f"LLM_SQL_HOME must not contain a colon: {home}",
            hint="PostgreSQL separates its search paths with colons",
        )
    if account is None:
        _prepare_users_home(home)
        return
    try:
        guarded.make_own(home, 0o711)
    except OSError as error:
        raise ServerError(f"cannot create {home}: {error.strerror}", hint="set LLM_SQL_HOME") from error
    guarded.own_directory(home, stat.S_IMODE(home.stat().st_mode) | 0o711)
    closed = closed_ancestor(home)
    if closed is not None:
        raise ServerError(
            f"the account {account.name}, which runs the server for root, cannot pass through {closed}",
            hint=f"set LLM_SQL_HOME to a directory outside it, or chmod o+x {closed}",
        )


def _prepare_users_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ServerError(f"cannot create {home}: {error.strerror}", hint="set LLM_SQL_HOME") from error
    if home.stat().st_uid != os.geteuid():
        raise ServerError(
            f"{home} belongs to another user (uid {home.stat().st_uid})",
            hint="set LLM_SQL_HOME to a directory of your own",
        )


def check_home(home: Path, account: Account | None) -> None:
    """Before anything is done in a home that is there already: only root may change what stands in root's."""
    if account is not None:
        guarded.require_own(home)


def socket_directory(home: Path, account: Account | None) -> Path:
    """A directory only the server's account (and root) may enter: local connections need no password."""
    directory = home / "run"
    if len(os.fsencode(directory / SOCKET_NAME)) > SOCKET_PATH_LIMIT:
        # Named by the home it belongs to, so that every process finds the same one.
        key = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
        directory = _short_place(account) / f"llm-sql-{key}"
        if len(os.fsencode(directory / SOCKET_NAME)) > SOCKET_PATH_LIMIT:
            directory = Path("/tmp") / f"llm-sql-{key}"
    return directory


def _short_place(account: Account | None) -> Path:
    """Where directories with short paths can be; for root where nobody else can take their names first."""
    if account is None:
        return Path(tempfile.gettempdir())
    run = Path("/run") if Path("/run").is_dir() else Path("/var/run")
    usable = run.is_dir() and guarded.intruder(run) is None and closed_ancestor(run / "entry") is None
    return run if usable else Path("/tmp")


def make_socket_directory(directory: Path, account: Account | None) -> None:
    if account is not None:
        guarded.require_own_or_shared(directory.parent)
    guarded.own_directory(directory, 0o700, owner=account.owner if account else None)


def packaged_extension(major: int) -> Path | None:
    """The extension's files as built with this package for that major version; None when not built."""
    root = Path(llm_sql.__file__).parent / "_pg" / str(major)
    return root if (root / "share" / "extension" / "pg_llm.control").exists() else None


def stage_extension(home: Path, major: int) -> Path | None:
    """Copy the packaged extension into the home and return where to, or None when there is none.

    A copy, named by its content: the server's account may not be able to read the package, and a file that
    running backends have mapped must never be overwritten by the next build.
    """
    source = packaged_extension(major)
    if source is None:
        return None
    files = sorted(path for path in source.rglob("*") if path.is_file())
    digest = hashlib.sha256(str(major).encode())
    for path in files:
        digest.update(f"\0{path.relative_to(source)}\0".encode())
        digest.update(path.read_bytes())
    target = home / "extension" / digest.hexdigest()[:16]
    guarded.own_directory(target.parent, 0o755)
    copies = [target / path.relative_to(source) for path in files]
    if guarded.is_own_directory(target) and not all(map(guarded.is_regular, copies)):
        shutil.rmtree(target)  # somebody deleted from it: sessions that load it have it still
    if not guarded.is_own_directory(target):
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            staged = Path(scratch) / "files"
            shutil.copytree(source, staged)
            open_to_readers(staged)
            staged.rename(target)
    return target


def drop_stale_extensions(home: Path, current: Path | None) -> None:
    """Remove earlier copies. Only while no server runs: its backends may load from theirs at any time."""
    if not guarded.is_own_directory(home / "extension"):
        return
    for directory in (home / "extension").glob("*"):
        if directory != current:
            shutil.rmtree(directory, ignore_errors=True)
