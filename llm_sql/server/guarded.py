"""File operations that stay safe where another account could have put something else at the name.

Under root the data directory and the socket's directory belong to the account that the server runs as, and
whoever is superuser in SQL executes code as that account. So root itself only writes in directories that are
root's all the way up (`require_own`); below the account's own directories programs work that run as the
account (`install.run_script`), and root at most reads there. Everything is opened by descriptors that follow
no link, take nothing but regular files and wait for nobody: no FIFO, no lease, no lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llm_sql.errors import ServerError

LOCK_PATIENCE_SECONDS = 300.0
MAX_LINKS = 40
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def intruder(path: Path) -> str | None:
    """How somebody other than root could replace `path` or what leads to it; None when nobody can.

    Links are followed where they are root's. What does not exist yet is for root to make; a directory like
    /tmp, in which only the owner of an entry may replace it, is fine above `path`, but not as `path`.
    """
    place, links = Path("/"), 0
    rest = [".", *path.absolute().parts[1:]]
    while rest:
        name = rest.pop(0)
        entry = place.parent if name == ".." else place / name
        try:
            state = entry.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return f"{entry}: {error.strerror}"
        if state.st_uid != 0:
            return f"{entry} belongs to {account_name(state.st_uid)}"
        if stat.S_ISLNK(state.st_mode):
            links += 1
            if links > MAX_LINKS:
                return f"{path} leads through too many links"
            target = entry.readlink()
            place = Path("/") if target.is_absolute() else place
            rest = [*(target.parts[1:] if target.is_absolute() else target.parts), *rest]
            continue
        if not stat.S_ISDIR(state.st_mode):
            return f"{entry} is not a directory"
        if state.st_mode & 0o022 and not (state.st_mode & stat.S_ISVTX and rest):
            return f"{entry} can be written by others than root"
        place = entry
    return None


def require_own(path: Path) -> None:
    """Raises ServerError unless only root can change what stands at `path`."""
    reason = intruder(path)
    if reason is not None:
        raise ServerError(
            f"root cannot keep the embedded server in {path}: {reason}",
            hint="set LLM_SQL_HOME to a directory that root owns, or run as the user who owns this one",
        )


def make_own(path: Path, mode: int) -> None:
    """Create the directory and what is missing above it, each step inside of what is root's already."""
    for step in (*reversed(path.parents), path):
        require_own_or_shared(step)
        with contextlib.suppress(FileExistsError):
            step.mkdir(0o755 if step != path else mode)
    require_own(path)


def require_own_or_shared(path: Path) -> None:
    """As `require_own`, for a directory in which others may have entries of their own (/tmp)."""
    require_own(path / "entry")


def own_directory(path: Path, mode: int, *, owner: tuple[int, int] | None = None) -> None:
    """A directory of this user's, or made over to `owner` (uid, gid), with that mode.

    Raises ServerError when something else or somebody else's stands there.
    """
    uid = owner[0] if owner else os.geteuid()
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CAREFUL)
    except OSError as error:
        raise ServerError(f"cannot prepare the directory {path}: {error.strerror}") from error
    try:
        state = os.fstat(descriptor)
        if state.st_uid not in (uid, os.geteuid()):
            raise ServerError(
                f"{path} belongs to {account_name(state.st_uid)}",
                hint="remove it, or set another LLM_SQL_HOME",
            )
        if owner is not None and state.st_uid != uid:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
    except OSError as error:
        raise ServerError(f"cannot prepare the directory {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def is_own_directory(path: Path) -> bool:
    """Whether a directory of this user's, not a link to one, stands there."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()


def open_own(path: Path) -> int:
    """A descriptor on a regular file of this user's, 0600, made when it is missing.

    Raises ServerError when something else stands there: a link, a FIFO, somebody else's file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CAREFUL, 0o600)
    except OSError as error:
        raise ServerError(f"cannot open {path}: {error.strerror}", hint="remove it") from error
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
        os.close(descriptor)
        raise ServerError(f"{path} does not belong to {account_name(os.geteuid())}", hint="remove it")
    return descriptor


def read_text(path: Path, limit: int = 65536, *, start: int = 0, tail: bool = False) -> str | None:
    """What a regular file holds, at most `limit` bytes (the last ones for `tail`); None when it is none.

    Safe on a file that another account owns: only the directory's path must be trusted.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _CAREFUL)
    except OSError:
        return None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None
        first = max(start, state.st_size - limit) if tail else start
        return os.pread(descriptor, limit, first).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def make_over(path: Path, owner: tuple[int, int]) -> None:
    """A regular file, 0600, for that account to write, in a directory of ours; anything else makes way."""
    for attempt in (1, 2):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | _CAREFUL, 0o600)
        except OSError:
            descriptor = -1
        try:
            state = os.fstat(descriptor) if descriptor >= 0 else None
            if state and stat.S_ISREG(state.st_mode):
                if state.st_uid == owner[0]:
                    return
                if state.st_uid == os.geteuid() and state.st_nlink == 1:
                    os.fchown(descriptor, *owner)
                    return
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if attempt == 2:
            break
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ServerError(f"cannot replace {path}: {error.strerror}", hint="remove it") from error
    raise ServerError(f"cannot create {path}", hint="remove what is there")


def open_lock(path: Path) -> int:
    """A descriptor for flock on a file that nobody else can open, and so nobody else can hold.

    One that others may open (an earlier version made it so) is replaced: they may hold it already.
    """
    descriptor = open_own(path)
    if os.fstat(descriptor).st_mode & 0o077 and os.geteuid() == 0:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        descriptor = open_own(path)
    return descriptor


def holders(path: Path) -> list[int]:
    """Process ids that hold a flock on the file, as far as the kernel tells (Linux)."""
    try:
        inode = path.lstat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    found = []
    for words in (line.split() for line in lines):
        if len(words) >= 6 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            found.append(int(words[4]))
    return [pid for pid in found if pid > 0]


@contextlib.contextmanager
def locked(path: Path, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold the file's lock. Waits as long as a start or stop by another process may take, then raises
    ServerError naming who holds it.
    """
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    tell_at = time.monotonic() + 5
    descriptor = open_lock(path)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                if now > deadline:
                    raise ServerError(
                        f"{path} is still held by {_named(path)} after {LOCK_PATIENCE_SECONDS:.0f} s",
                        hint="see what that process is doing; the lock is free when it ends",
                    ) from None
                if tell_at and now > tell_at:
                    notice(f"waiting for {_named(path)}, which starts or stops the embedded server")
                    tell_at = 0
                time.sleep(0.02)
                continue
            if _is_at(descriptor, path):
                break
            os.close(descriptor)  # replaced meanwhile by open_lock of another process
            descriptor = open_lock(path)
        yield
    finally:
        os.close(descriptor)


def _named(path: Path) -> str:
    pids = [pid for pid in holders(path) if pid != os.getpid()]
    return f"process {', '.join(map(str, pids))}" if pids else "another process"


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
