"""Runs the steps of the Dockerfile, and of a first start, where there is no Docker.

usage: image.py SCRATCH PG_CONFIG

Each stage is a folder below SCRATCH. What the Dockerfile itself makes (its WORKDIRs, what it copies to,
/out, /venv) lies there; the base image is the PostgreSQL of PG_CONFIG, whose files are copied into the last
stage, so that nothing of the system is written to. Packages of Debian are not installed; that they exist is
looked up. Then a cluster is made and started as the official image's entrypoint does it: initdb, a server
without TCP that runs the files of /docker-entrypoint-initdb.d in order, a stop, and the start with
compose.yaml's settings.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import yaml

ROOT = Path(__file__).resolve().parents[1]
MADE = ("/out", "/venv")  # by RUN, which no other instruction names
PASSWORDS = {"postgres_password": "superuser's 'secret'", "app_password": "app $ecret\\"}


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Instruction and arguments, line by line."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    for line in joined.splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def context(folder: Path) -> Path:
    """The files that .dockerignore lets through: the last pattern that matches decides."""
    patterns = [
        line.strip()
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]

    def sent(path: str) -> bool:
        kept = True
        parts = path.split("/")
        for pattern in patterns:
            negated, pattern = pattern.startswith("!"), pattern.lstrip("!")
            anywhere = pattern.startswith("**/")
            pattern = pattern.removeprefix("**/")
            starts = range(len(parts)) if anywhere else (0,)
            depth = pattern.count("/") + 1
            if any(fnmatch.fnmatchcase("/".join(parts[i : i + depth]), pattern) for i in starts):
                kept = negated
        return kept

    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if sent(name) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@dataclass
class Stage:
    """One FROM: its folder, and what the shell sees there."""

    root: Path
    environment: dict[str, str]
    workdir: str = "/"
    healthcheck: list[str] = field(default_factory=list)
    made: set[str] = field(default_factory=lambda: set(MADE))

    def place(self, path: str) -> Path:
        absolute = os.path.normpath(Path(self.workdir, path))
        return self.root / absolute.lstrip("/")

    def run(self, command: str) -> None:
        packages = re.findall(r"apt-get install [^&;]*", command)
        if packages:
            names = [
                word
                for word in shlex.split(" ".join(packages))
                if word not in ("apt-get", "install") and word[0] != "-"
            ]
            names = [re.sub(r"\$\{?PG_MAJOR\}?", self.environment["PG_MAJOR"], name) for name in names]
            print("   looked up, not installed:", *names, flush=True)
            if shutil.which("apt-cache"):
                missing = [
                    n
                    for n in names
                    if subprocess.run(["apt-cache", "show", n], capture_output=True).returncode
                ]
                assert not [n for n in missing if "pgvector" not in n], f"no such packages: {missing}"
            return
        # A path that the Dockerfile makes stands for that folder of the stage.
        for path in sorted(self.made - {"/"}, key=len, reverse=True):
            command = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w.-])", str(self.root) + path, command)
        where = self.root / self.workdir.lstrip("/")
        where.mkdir(parents=True, exist_ok=True)
        subprocess.run(["/bin/sh", "-euc", command], cwd=where, env=self.environment, check=True)

    def copy(self, sources: list[Path], target: str) -> None:
        place = self.place(target)
        if target.startswith("/") and target != "/":
            self.made.add(target.rstrip("/"))
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, place, dirs_exist_ok=True, symlinks=True)
            else:
                is_folder = target.endswith("/") or len(sources) > 1
                (place if is_folder else place.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, place / source.name if is_folder else place)


def build(scratch: Path, major: str) -> Stage:
    """Every step of the Dockerfile; returns the last stage."""
    files = context(scratch / "context")
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    stage: Stage | None = None
    for name, rest in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        print(f"   {name} {rest}"[:150], flush=True)
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            assert image == "postgres:${PG_MAJOR}", image
            root = scratch / f"stage{len(stages)}"
            root.mkdir()
            stage = Stage(root, {**os.environ, "PG_MAJOR": major})
            stages[alias or "final"] = stage
        elif name == "ARG":
            key, _, value = rest.partition("=")
            (arguments if stage is None else stage.environment).setdefault(key, value)
        elif stage is None:
            raise SystemExit(f"{name} before FROM")
        elif name == "WORKDIR":
            stage.workdir = rest
            stage.made.add(rest)
        elif name == "RUN":
            stage.run(rest)
        elif name == "COPY":
            words = shlex.split(rest)
            origin = files
            if words[0].startswith("--from="):
                origin = stages[words.pop(0).removeprefix("--from=")].root
            sources = [origin / word.lstrip("/") for word in words[:-1]]
            absent = [str(source) for source in sources if not source.exists()]
            assert not absent, f"not in the context: {absent}"
            stage.copy(sources, words[-1])
        elif name == "HEALTHCHECK":
            stage.healthcheck = yaml.safe_load(rest.partition(" CMD ")[2])
        else:
            assert name == "LABEL", f"{name} is not known here"
    assert stage is not None
    return stage


@dataclass
class Container:
    """The last stage with a server in it, run by another account where the caller is root."""

    stage: Stage
    scratch: Path
    bin: Path
    environment: dict[str, str]
    account: str | None

    def run(self, *command: str, **more: str) -> None:
        subprocess.run(command, env={**self.environment, **more}, user=self.account, check=True)

    def start(self, *settings: str) -> None:
        data = str(self.scratch / "data")
        options = " ".join(f"-c {shlex.quote(setting)}" for setting in settings)
        log = str(self.scratch / "log")
        self.run(str(self.bin / "pg_ctl"), "-s", "-w", "-D", data, "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self.run(str(self.bin / "pg_ctl"), "-s", "-w", "-m", "fast", "-D", str(self.scratch / "data"), "stop")


def container(stage: Stage, scratch: Path, bindir: Path, service: Mapping[str, object]) -> Container:
    """The base image's files beside the copied ones. PostgreSQL finds its own from where its programs are."""
    sharedir = Path(subprocess.check_output([bindir / "pg_config", "--sharedir"], text=True).strip())
    for path in (bindir.parent, sharedir):
        place = stage.root / str(path).lstrip("/")
        copied = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
        shutil.copytree(path, place, dirs_exist_ok=True)
        for file, content in copied.items():  # the image's own come later than the base's
            file.write_bytes(content)
    bin_ = stage.root / str(bindir).lstrip("/")
    secrets = scratch / "secrets"
    secrets.mkdir()
    for name, value in PASSWORDS.items():
        (secrets / name).write_text(value + "\n", encoding="utf-8")
    given = service["environment"]
    assert isinstance(given, dict)
    environment = {key: str(value).replace("/run/secrets", str(secrets)) for key, value in given.items()}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sockets = scratch / "sockets"
    sockets.mkdir()
    # The entrypoint reads this one as root, and hands it on.
    environment["POSTGRES_PASSWORD"] = (
        Path(environment.pop("POSTGRES_PASSWORD_FILE")).read_text(encoding="utf-8").strip()
    )
    environment |= {
        "PATH": f"{bin_}:{stage.root}/usr/local/bin:{os.environ['PATH']}",
        "PGHOST": str(sockets),
        "PGPORT": str(port),
        "PGPASSWORD": environment["POSTGRES_PASSWORD"],
        "POSTGRES_USER": "postgres",
        "LANG": "C.UTF-8",
    }
    account = None
    if os.geteuid() == 0:
        account = "postgres"
        for path in (scratch, *scratch.parents):
            if path.stat().st_uid == 0 and str(path) not in ("/", "/tmp"):
                path.chmod(path.stat().st_mode | 0o011)
        for path in (scratch / "data", sockets):
            path.mkdir(exist_ok=True, mode=0o700)
            shutil.chown(path, account)
        (scratch / "log").touch()
        shutil.chown(scratch / "log", account)
    return Container(stage, scratch, bin_, environment, account)


def first_start(made: Container) -> None:
    """What docker-entrypoint.sh does in an empty data directory."""
    environment, bin_ = made.environment, made.bin
    password_file = made.scratch / "secrets" / "postgres_password"
    made.run(
        str(bin_ / "initdb"), "-D", str(made.scratch / "data"), "--username=postgres",
        f"--pwfile={password_file}",
        "--no-instructions", "-N", "--encoding=UTF8",
    )  # fmt: skip
    # The image trusts connections from inside the container; those of this check stand for ones from outside.
    hba = made.scratch / "data" / "pg_hba.conf"
    lines = [line for line in hba.read_text(encoding="utf-8").splitlines() if not line.startswith("host")]
    hba.write_text("\n".join([*lines, "host all all all scram-sha-256", ""]), encoding="utf-8")
    made.start(
        "listen_addresses=",
        f"unix_socket_directories={environment['PGHOST']}",
        f"port={environment['PGPORT']}",
    )
    psql = [str(bin_ / "psql"), "-v", "ON_ERROR_STOP=1", "--no-password", "-qX", "-U", "postgres"]
    made.run(*psql, "-d", "postgres", "-c", f'CREATE DATABASE "{environment["POSTGRES_DB"]}"')
    try:
        unhealthy = subprocess.run(
            made.stage.healthcheck, env=environment, user=made.account, capture_output=True
        ).returncode
        assert unhealthy, "the health check passes before the first start is over"
        for path in sorted((made.stage.root / "docker-entrypoint-initdb.d").iterdir()):
            print("   running", path.name, flush=True)
            if path.suffix == ".sh":
                assert os.access(path, os.X_OK), f"{path} is not executable: the entrypoint would source it"
                made.run(str(path))
            else:
                made.run(*psql, "-d", environment["POSTGRES_DB"], "-f", str(path))
    finally:
        made.stop()


def check(made: Container, settings: list[str]) -> None:
    """The server as compose.yaml starts it, and what its users find."""
    environment = made.environment
    made.start(
        *settings, "listen_addresses=127.0.0.1", f"unix_socket_directories={environment['PGHOST']}",
        f"port={environment['PGPORT']}",
    )  # fmt: skip
    try:
        subprocess.run(made.stage.healthcheck, env=environment, user=made.account, check=True)
        where = {"host": "127.0.0.1", "port": environment["PGPORT"], "dbname": environment["POSTGRES_DB"]}
        login, password = environment["LLM_SQL_LOGIN"], PASSWORDS["app_password"]
        with psycopg.connect(**where, user=login, password=password, autocommit=True) as conn:
            settings_there = conn.execute("SELECT FROM pg_settings WHERE name = 'pg_llm.threads'").rowcount
            assert settings_there == 1, "the library is not preloaded"
            memberships = conn.execute(
                "SELECT pg_has_role('llm_trainer', 'member'), pg_has_role('llm_reader', 'member'), rolsuper"
                " FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            assert memberships is not None
            assert memberships == (True, False, False), memberships
            conn.execute("SELECT llm_build_char_tokenizer('c', $$ SELECT 'hello world' $$)")
            conn.execute(
                "SELECT llm_create_model('c', n_layer => 1, n_head => 1, d_model => 16, n_positions => 16)"
            )
            conn.execute(
                "SELECT llm_fill_dataset('c', $$ SELECT 'hello world' $$, block_size => 8, validation => 0)"
            )
            conn.execute("SELECT llm_train('c', 2, log_every => 0)")
            conn.execute("SELECT llm_checkpoint_save('c')")
            text = conn.execute("SELECT llm_generate('he', 5, model => 'c', seed => 2)").fetchone()
            print("   generated", text, flush=True)
            assert text == ("roheo",), text  # the same bits on every machine
        try:
            psycopg.connect(**where, user=login, password="another").close()
        except psycopg.OperationalError:
            pass
        else:
            raise AssertionError("another password was taken")
    finally:
        made.stop()


def main() -> None:
    scratch, pg_config = Path(sys.argv[1]), Path(sys.argv[2])
    began = time.monotonic()
    version = subprocess.check_output([pg_config, "--version"], text=True)
    found = re.search(r"\d+", version)
    assert found is not None
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["db"]
    command = service["command"]
    assert command[0] == "postgres"
    assert set(command[1::2]) == {"-c"}, "a setting after each -c"
    bindir = Path(subprocess.check_output([pg_config, "--bindir"], text=True).strip())
    stage = build(scratch, found[0])
    print(f"   built in {time.monotonic() - began:.0f} s", flush=True)
    made = container(stage, scratch, bindir, service)
    first_start(made)
    check(made, command[2::2])
    print(f"   all of it in {time.monotonic() - began:.0f} s")


main()
