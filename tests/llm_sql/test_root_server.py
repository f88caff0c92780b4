"""Root's embedded server against the account that it runs as, and against any other user of the machine.

Whoever is superuser in SQL executes code as the account, and puts what he likes at every name in the
account's directories; any user of the machine may prepare a home for root, and hold the locks that he can
open. None of them may make root write, change owner or mode, delete, read aloud, or wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from llm_sql.errors import LLMSQLError, ServerError
from llm_sql.server import EmbeddedServer, Installation, guarded, layout, waiting
from llm_sql.server import embedded as embedded_module
from llm_sql.server.install import Account, run_script, server_account

from ..amount import extended, only_extended
from ..support.places import new_place

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user nobody else owns a file")

QUICK = {"fsync": "off", "shared_buffers": "16MB", "min_wal_size": "80MB"}
STRANGER = 65534
PATIENCE = 120
MAJOR = Installation.discover().major
DATA = f"pg{MAJOR}"
PROGRAMS = f"postgres-{MAJOR}"

# Every name in the account's directories that root's code or the server's programs touch: those that a start
# replaces, all at once, and those without which there is no start, one by one.
REPLACED = (
    f"{DATA}/postmaster.pid", f"{DATA}/postmaster.opts", f"{DATA}/llm_sql.conf", f"{DATA}/llm_sql.conf.new",
    f"{DATA}/llm_sql.new", "run/.s.PGSQL.5432", "run/.s.PGSQL.5432.lock",
)  # fmt: skip
NEEDED = (
    f"{DATA}/PG_VERSION", f"{DATA}/global", f"{DATA}/global/pg_control", f"{DATA}/postgresql.conf",
    f"{DATA}/postgresql.auto.conf", f"{DATA}/pg_hba.conf",
)  # fmt: skip
# Every name in the home.
IN_HOME = (
    "lock",
    "users.lock",
    "keep",
    "server.log",
    "server.log.1",
    "run",
    "extension",
    DATA,
    PROGRAMS,
)
KINDS = ("link to a file", "link to a directory", "hard link", "link to nothing", "fifo", "directory", "huge")
# The server's own programs wait for a fifo, so that every limit of root's is reached.
PATIENCE_WHERE = dict.fromkeys(KINDS, 5) | {"fifo": 1}


@pytest.fixture(scope="module")
def account() -> Account:
    found = server_account()
    assert found is not None
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    root = new_place("llm-sql-root-")
    yield root
    for home in (root, *root.glob("*")):
        if (home / DATA).exists() and guarded.intruder(home) is None:
            end(home)
    shutil.rmtree(root, ignore_errors=True)


def end(home: Path) -> None:
    """Of whatever runs there: what waits for a fifo does not stop when asked."""
    with contextlib.suppress(LLMSQLError):
        EmbeddedServer(home, settings=QUICK).kill()
    # One that waits for a fifo in place of its pid file is found by its command line alone.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(argument.startswith(f"{home}/pg") for argument in process.cmdline()):
                process.kill()


@pytest.fixture(scope="module")
def kept_home() -> Iterator[Path]:
    """A home in which a server ran, stopped."""
    root = new_place("llm-sql-root-")
    with EmbeddedServer(root / "home", settings=QUICK):
        pass
    yield root / "home"
    end(root / "home")
    shutil.rmtree(root, ignore_errors=True)


class Victims:
    """What is root's alone, and the proof that it stayed as it was."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / "directory"
        self.file = root / "file"
        self.directory.mkdir(mode=0o700)
        for path in (
            self.file,
            *(self.directory / name for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock", "postmaster.pid")),
        ):
            path.write_text(f"{os.getpid()}\nroot's secret\n")
            path.chmod(0o600)
        # A hard link to a file of root's: what protected_hardlinks forbids, where it is on.
        self.linked = root / "linked"
        self.linked.write_text("root's other secret\n")
        self.before = self.state()

    def state(self) -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in (self.root, *sorted(self.root.rglob("*"))):
            s = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns, content)
        return found


@pytest.fixture
def victims(place: Path) -> Victims:
    """In a directory that others can pass through: only the files' own modes protect them."""
    root = place / "victims"
    root.mkdir(mode=0o711)
    return Victims(root)


def plant(path: Path, kind: str, victims: Victims, owner: tuple[int, int]) -> None:
    if kind == "link to a file":
        path.symlink_to(victims.file)
    elif kind == "link to a directory":
        path.symlink_to(victims.directory)
    elif kind == "link to nothing":
        path.symlink_to(victims.root / "made-by-root")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "hard link":
        path.hardlink_to(victims.linked)
        return
    elif kind == "directory":
        path.mkdir()
        (path / "inside").symlink_to(victims.file)
    else:
        with path.open("w") as file:
            file.truncate(1 << 40)
    os.chown(path, *owner, follow_symlinks=False)


def run_root(home: Path, patience: float = 5) -> subprocess.CompletedProcess[str]:
    """Start, use and stop the server of this home as root does; a hang is a failure of the test.

    `patience`: the limit of each of root's waits, which a server that hangs uses up one after the other.
    """
    code = (
        "from pathlib import Path\nimport psycopg\nfrom llm_sql.errors import LLMSQLError\n"
        "from llm_sql.server import EmbeddedServer, embedded, waiting\n"
        f"waiting.RECOVERY_PATIENCE_SECONDS = waiting.CONNECTION_PATIENCE_SECONDS = {patience}\n"
        f"embedded.START_TIMEOUT_SECONDS = embedded.SHUTDOWN_SECONDS = {patience}\n"
        f"embedded.GRACE_SECONDS = {patience}\n"
        f"server = EmbeddedServer(Path({str(home)!r}), settings={QUICK!r})\n"
        "for act in (lambda: server.running, lambda: server.kept, lambda: server.start(keep=True),\n"
        "            lambda: server.ensure_database('d'), lambda: server.start(), server.stop):\n"
        "    try:\n        act()\n"
        "    except (LLMSQLError, psycopg.Error) as error:\n        print('error:', error)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def copy_of(home: Path, to: Path) -> Path:
    subprocess.run(["cp", "-a", str(home), str(to)], check=True)
    (to / DATA / "llm_sql.conf").unlink()
    return to


@pytest.fixture
def home(place: Path, kept_home: Path) -> Path:
    """A stopped home of the test's own, without initdb."""
    return copy_of(kept_home, place / "home")


def assert_untouched(home: Path, victims: Victims, patience: float = 5) -> str:
    done = run_root(home, patience)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert victims.state() == victims.before
    return done.stdout


@pytest.mark.parametrize("kind", [*KINDS[:3], *map(only_extended, KINDS[3:])])
def test_what_the_account_plants_where_a_start_makes_files(
    kind: str, home: Path, victims: Victims, account: Account
) -> None:
    for name in REPLACED:
        (home / name).unlink(missing_ok=True)
        plant(home / name, kind, victims, account.owner)
    assert_untouched(home, victims, PATIENCE_WHERE[kind])
    end(home)
    for name in REPLACED:
        run_script(account, 'rm -rf -- "$1"', home / name)
    assert "error" not in assert_untouched(home, victims, 60), "without them the server runs again"


@pytest.mark.parametrize("kind", ["link to a file", only_extended("fifo")])
@pytest.mark.parametrize("name", NEEDED)
def test_what_the_account_plants_where_a_start_reads_files(
    name: str, kind: str, place: Path, home: Path, victims: Victims, account: Account
) -> None:
    (home / name).rename(place / "aside")
    plant(home / name, kind, victims, account.owner)
    assert_untouched(home, victims, PATIENCE_WHERE[kind])


@pytest.mark.parametrize("kind", ["link to a file", only_extended("fifo")])
@pytest.mark.parametrize("name", IN_HOME)
def test_what_stands_in_a_home_of_roots(
    name: str, kind: str, place: Path, home: Path, victims: Victims, account: Account
) -> None:
    """Root's home can only hold what root put there; even so nothing is followed, and nothing hangs."""
    if os.path.lexists(home / name):
        (home / name).rename(place / "aside")
    plant(home / name, kind, victims, (0, 0) if kind != "fifo" else account.owner)
    assert_untouched(home, victims)


def strangers_home(place: Path) -> Path:
    home = place / "home"
    home.mkdir()
    os.chown(home, STRANGER, STRANGER)
    return home


def writable_home(place: Path) -> Path:
    home = place / "home"
    home.mkdir()
    home.chmod(0o777)
    return home


def sticky_home(place: Path) -> Path:
    home = place / "home"
    home.mkdir()
    home.chmod(0o1777)
    return home


def groups_home(place: Path) -> Path:
    home = place / "home"
    home.mkdir()
    os.chown(home, 0, STRANGER)
    home.chmod(0o775)
    return home


def below_a_strangers(place: Path) -> Path:
    (place / "outer").mkdir()
    os.chown(place / "outer", STRANGER, STRANGER)
    (place / "outer" / "home").mkdir()
    return place / "outer" / "home"


def below_an_open_directory(place: Path) -> Path:
    (place / "outer" / "home").mkdir(parents=True)
    (place / "outer").chmod(0o777)
    return place / "outer" / "home"


def behind_a_strangers_link(place: Path) -> Path:
    (place / "home").mkdir()
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    (place / "sticky" / "link").symlink_to(place / "home")
    os.chown(place / "sticky" / "link", STRANGER, STRANGER, follow_symlinks=False)
    return place / "sticky" / "link"


def through_a_strangers_link(place: Path) -> Path:
    return behind_a_strangers_link(place) / "deeper"


HOMES = (
    strangers_home, writable_home, sticky_home, groups_home, below_a_strangers, below_an_open_directory,
    behind_a_strangers_link, through_a_strangers_link,
)  # fmt: skip


@pytest.mark.parametrize("make", HOMES, ids=lambda make: make.__name__)
def test_a_home_that_others_can_change_is_refused_and_left_alone(
    make: object, place: Path, victims: Victims
) -> None:
    home: Path = make(place)  # type: ignore[operator]
    if home.is_dir():
        for name in IN_HOME:
            kind = (
                "link to a file" if "lock" in name or "." in name or name == "keep" else "link to a directory"
            )
            plant(home / name, kind, victims, (STRANGER, STRANGER))
    before = sorted((str(p), p.lstat().st_uid, p.lstat().st_mode) for p in place.rglob("*"))
    done = run_root(home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("root cannot keep the embedded server in") >= 2, done.stdout
    assert victims.state() == victims.before
    assert sorted((str(p), p.lstat().st_uid, p.lstat().st_mode) for p in place.rglob("*")) == before


def test_a_link_of_roots_to_a_directory_of_roots_is_a_home(place: Path) -> None:
    (place / "disk").mkdir(mode=0o711)
    (place / "link").symlink_to(place / "disk")
    with EmbeddedServer(place / "link" / "home", settings=QUICK) as server:
        assert server.running


def test_what_is_missing_above_a_home_is_made_closed_to_writers(place: Path) -> None:
    mask = os.umask(0)
    try:
        with EmbeddedServer(place / "a" / "b" / "home", settings=QUICK) as server:
            paths = [server.home, *server.home.parents, *server.home.iterdir()]
    finally:
        os.umask(mask)
    for path in paths:
        mode = path.lstat().st_mode
        assert not mode & 0o022 or mode & stat.S_ISVTX, (path, oct(mode))


def which_of(paths: list[Path], test: str) -> list[str]:
    """Those that a stranger may open: `test` is the shell's, -r or -w."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'while IFS= read -r f; do if test "$1" "$f"; then echo "$f"; fi; done', "sh", test],
        input="".join(f"{path}\n" for path in paths), user=STRANGER, group=STRANGER, extra_groups=[], cwd="/",
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_no_other_user_can_open_or_enter_what_root_waits_for(home: Path, account: Account) -> None:
    server = EmbeddedServer(home, settings=QUICK)
    server.start(keep=True)
    try:
        paths = [
            path
            for path in server.home.rglob("*")
            if not path.is_symlink() and not path.is_relative_to(server.home / "extension")
        ]
        secret = [path for path in paths if not path.is_relative_to(server.home / PROGRAMS)]
        assert len(paths) >= len(secret) > 100
        assert which_of(paths, "-w") == []
        assert which_of(secret, "-r") == []
        assert which_of([Path("/bin/sh")], "-r") == ["/bin/sh"], "as it tells of what a stranger may read"
        for name in ("lock", "users.lock", "keep"):
            assert (server.home / name).lstat().st_mode & 0o777 == 0o600, name
            assert (server.home / name).lstat().st_uid == 0, name
        mine = run_script(account, 'for f; do if test -r "$f" || test -w "$f"; then echo "$f"; fi; done',
                          *(server.home / name for name in ("lock", "users.lock", "keep")))  # fmt: skip
        assert mine == "", "nor can the account"
    finally:
        server.stop()
        server.release()


@pytest.mark.parametrize("name", ["lock", "users.lock"])
def test_a_lock_that_others_hold_since_an_earlier_version(name: str, home: Path) -> None:
    path = home / name
    path.chmod(0o644)
    with path.open() as held:  # as a stranger's descriptor would be
        fcntl.flock(held, fcntl.LOCK_EX)
        with EmbeddedServer(home, settings=QUICK) as server:
            assert server.running
        assert not server.running


def test_a_lock_that_is_not_given_back_is_an_error_that_names_the_holder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import fcntl, sys\nf = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX)\nprint('held', flush=True)\n"
        "sys.stdin.readline()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(home / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    monkeypatch.setattr(guarded, "LOCK_PATIENCE_SECONDS", 0.2)
    try:
        with pytest.raises(ServerError, match=rf"lock is still held by process {other.pid}\b"):
            EmbeddedServer(home, settings=QUICK).start()
    finally:
        other.communicate("done\n")


def test_the_account_does_not_see_roots_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTS_TOKEN", "very secret")
    monkeypatch.setenv("DATABASE_PASSWORD", "very secret")
    with EmbeddedServer(home, settings=QUICK) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE TABLE seen (line text)")
            connection.execute(
                "COPY seen FROM PROGRAM 'cat /proc/[0-9]*/environ 2>/dev/null | tr ''\\0'' ''\\n'''"
            )
            lines = [line for (line,) in connection.execute("SELECT line FROM seen")]
        assert any(line.startswith("PATH=") for line in lines)
        assert not [line for line in lines if "secret" in line]
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("TRUNCATE seen")
            connection.execute("COPY seen FROM PROGRAM 'id -G; ls -l /proc/self/fd; tty < /dev/tty || true'")
            lines = [line for (line,) in connection.execute("SELECT line FROM seen")]
        assert lines[0].split() == [str(server_account().gid)]  # type: ignore[union-attr]
        assert not [line for line in lines if "/dev/pts" in line]


def test_a_pid_file_may_name_a_process_of_somebody_else(place: Path, home: Path, account: Account) -> None:
    """Even one that is called postgres and runs inside of the data directory."""
    with EmbeddedServer(home, settings=QUICK) as server:
        server.stop()
        program = place / "postgres"
        shutil.copy("/bin/sleep", program)
        roots = subprocess.Popen([program, "600"], cwd=server.data_directory)
        stale = f"{roots.pid}\\n{server.data_directory}\\n1\\n5432\\n{server.home}/run\\n\\n 1 1\\nready\\n"
        run_script(account, 'printf "$2" > "$1/postmaster.pid"', server.data_directory, stale)
        try:
            assert not server.running
            server.start()
            assert server.running
            server.kill()
            assert roots.poll() is None
        finally:
            roots.kill()
            roots.wait()


def pretend_to_be_a_server(server: EmbeddedServer, account: Account) -> int:
    """A process of the account's that looks like its postmaster, listens, and never says a word."""
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_IGN)
            os.chdir(server.data_directory)
            ctypes.CDLL(None).prctl(15, b"postgres", 0, 0, 0)
            Path("postmaster.pid").write_text(
                f"{os.getpid()}\n{server.data_directory}\n1\n5432\n{server.home}/run\n\n1 1\nready\n"
            )
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(server.home / "run" / layout.SOCKET_NAME))
            listener.listen(50)
            os.write(ready_write, b"x")
            time.sleep(600)
        finally:
            os._exit(0)
    os.close(ready_write)
    assert os.read(ready_read, 1) == b"x"
    os.close(ready_read)
    return pid


@extended
def test_a_server_that_never_answers_does_not_keep_root_waiting(
    home: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "RECOVERY_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(waiting, "CONNECTION_PATIENCE_SECONDS", 1)
    monkeypatch.setattr(embedded_module, "SHUTDOWN_SECONDS", 1)
    server = EmbeddedServer(home, settings=QUICK)
    pid = pretend_to_be_a_server(server, account)
    try:
        server.start()
        with pytest.raises((LLMSQLError, psycopg.Error)):
            server.ensure_database("d")
        with pytest.raises(ServerError):
            server.stop()
        with contextlib.suppress(ServerError):
            server.release()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_connection_for_administration_ends_whatever_the_server_does(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "CONNECTION_PATIENCE_SECONDS", 2)
    with (
        EmbeddedServer(home, settings=QUICK) as server,
        pytest.raises(psycopg.OperationalError),
        waiting.brief_connection(server.url("postgres")) as connection,
    ):
        connection.execute("SELECT pg_sleep(600)")


INITDB = """#!/bin/sh
while [ "$1" != -D ]; do shift; done
rm -rf "$2"
ln -s {victim} "$2"
echo 18 > "$2/PG_VERSION"
ln -s {victim}/postmaster.pid "$2/postgresql.conf"
exit 0
"""


def test_a_data_directory_cannot_be_swapped_while_it_is_made(place: Path, victims: Victims) -> None:
    programs = place / "bin"
    programs.mkdir()
    for name, text in {
        "initdb": INITDB.format(victim=victims.directory), "postgres": "#!/bin/sh\n", "pg_ctl": "#!/bin/sh\n",
    }.items():  # fmt: skip
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    server = EmbeddedServer(place / "home", settings=QUICK, installation=Installation(programs, 18))
    with pytest.raises(ServerError):
        server.start()
    server.release()
    assert victims.state() == victims.before
    assert not os.path.lexists(server.data_directory)
    assert not list(server.home.glob("initdb-*"))


@pytest.mark.parametrize("name", ["nobody", "root", "no-such-account"])
def test_another_account_than_the_data_directorys_is_refused(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer(home, settings=QUICK) as server:
        conf = (server.data_directory / "llm_sql.conf").read_text()
    monkeypatch.setenv("LLM_SQL_ACCOUNT", name)
    other = EmbeddedServer(home, settings=QUICK | {"work_mem": "1MB"})
    with pytest.raises(ServerError, match=name):
        other.start()
    other.release()
    assert (server.data_directory / "llm_sql.conf").read_text() == conf


def test_homes_with_accounts_of_their_own_cannot_reach_each_other(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_SQL_ACCOUNT", "nobody")
    with EmbeddedServer(place / "one", settings=QUICK) as one:
        monkeypatch.delenv("LLM_SQL_ACCOUNT")
        with (
            EmbeddedServer(place / "two", settings=QUICK) as two,
            psycopg.connect(two.url("postgres"), autocommit=True) as connection,
        ):
            for path in (one.data_directory, one.home / "run", one.log_file):
                with pytest.raises(psycopg.errors.ExternalRoutineException):
                    connection.execute(f"COPY (SELECT 1) TO PROGRAM 'ls {path}/ && cat {path}'")
        monkeypatch.setenv("LLM_SQL_ACCOUNT", "nobody")
        one.stop()
