"""Generations per second of 20 clients over 4 servers of PgBouncer in transaction mode, beside 4 connections.

Both sides do the same calls, each a transaction of its own, in turns. Waiting for a server is all that the
pooler may cost: weights and tokenizers stay with the servers, whichever client comes next.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from sqlalchemy import Engine, text

from llm_sql.bench.generation import GPT2, SMALL, Generated
from llm_sql.bench.report import Row, interleaved
from llm_sql.bench.serving import PROMPT, connection_string, create_served_model
from llm_sql.errors import LLMSQLError

CLIENTS, SERVERS = 20, 4
CALLS, TOKENS = 60, 16
PORT = 6432
START_SECONDS = 10
CONFIG = """
[databases]
* = {address}
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {servers}
server_reset_query =
ignore_startup_parameters = extra_float_digits
logfile = {folder}/log
"""


def find_pgbouncer() -> str | None:
    return shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


def address_of(url: str) -> tuple[Mapping[str, str], str]:
    """A connection string's parts, and the pooler's line for them."""
    parts = {
        key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(url).items() if value is not None
    }
    names = ("host", "port", "user", "dbname", "password")
    quoted = {name: parts[name].replace("'", "''") for name in names if parts.get(name)}
    return parts, " ".join(f"{name}='{value}'" for name, value in quoted.items())


def account_for(parts: Mapping[str, str], folder: Path) -> dict[str, object]:
    """Popen's account: it refuses root's, so one that may enter the server's socket."""
    if os.geteuid() != 0:
        return {}
    host = parts.get("host", "")
    owner = Path(host).stat().st_uid if host.startswith("/") else 0
    account = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    os.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def pooler(program: str, url: str, folder: Path, servers: int = SERVERS) -> Iterator[str]:
    """PgBouncer in front of the database; a URL of its socket in the folder, which nobody else may enter.

    Whoever reaches the socket is the URL's user, without a password.
    """
    parts, address = address_of(url)
    folder.chmod(0o700)
    settings = folder / "pgbouncer.ini"
    settings.write_text(CONFIG.format(address=address, port=PORT, folder=folder, servers=servers))
    account = account_for(parts, folder)
    process = subprocess.Popen([program, str(settings)], stderr=subprocess.PIPE, **account)  # type: ignore[call-overload]
    pooled = f"postgresql://{parts.get('user', '')}@/{parts['dbname']}?host={folder}&port={PORT}"
    try:
        for _ in range(START_SECONDS * 20):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(pooled).close()
                break
            if process.poll() is not None:
                raise LLMSQLError(f"PgBouncer ended: {process.stderr.read().decode()}")
            time.sleep(0.05)
        else:
            raise LLMSQLError("PgBouncer does not let anybody in", hint=f"it says why in {folder}/log")
        yield pooled
    finally:
        process.terminate()
        process.wait(10)


class Clients:
    """Connections that share a list of calls, each client taking the next when it has done one."""

    def __init__(self, stack: contextlib.ExitStack, url: str, number: int, model: str, n_tokens: int) -> None:
        self._connections = [
            stack.enter_context(psycopg.connect(url, autocommit=True, prepare_threshold=None))
            for _ in range(number)
        ]
        self._model = model
        self._n_tokens = n_tokens

    def warm(self, servers: int) -> None:
        """Every server loads weights and tokenizer: as many transactions at once as there are servers."""
        together = threading.Barrier(servers)

        def call(connection: psycopg.Connection[object]) -> None:
            with connection.transaction():
                connection.execute("SELECT 1")
                together.wait()
                self._generate(connection, 0)
                together.wait()

        with ThreadPoolExecutor(servers) as pool:
            list(pool.map(call, self._connections[:servers]))

    def seconds(self, n_calls: int) -> float:
        """Seconds until all calls are done."""
        calls: queue.SimpleQueue[int] = queue.SimpleQueue()
        for seed in range(n_calls):
            calls.put(seed)

        def work(connection: psycopg.Connection[object]) -> None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._generate(connection, calls.get_nowait())

        with ThreadPoolExecutor(len(self._connections)) as pool:
            started = time.perf_counter()
            list(pool.map(work, self._connections))
            return time.perf_counter() - started

    def _generate(self, connection: psycopg.Connection[object], seed: int) -> None:
        connection.execute(
            "SELECT public.llm_generate(%s, %s, seed => %s, model => %s)",
            (PROMPT, self._n_tokens, seed, self._model),
        )


def measure_pooler(
    engine: Engine, threads: int, repeats: int, *, quick: bool, model: Generated | None = None,
    n_calls: int = CALLS,
) -> Iterator[Row]:  # fmt: skip
    """Calls per second of either side, and the pooler's relative to the other's, by the median over pairs."""
    model = model or (SMALL if quick else GPT2)
    what = f"{CLIENTS} clients over {SERVERS} servers of PgBouncer, {model.name}"
    program = find_pgbouncer()
    if program is None:
        yield Row(
            "pooler",
            what,
            None,
            "calls/s",
            None,
            note="PgBouncer is not installed (apt-get install pgbouncer)",
        )
        return
    each = max(1, threads // SERVERS)
    create_served_model(engine, model)
    with engine.connect() as connection:
        # Where a pool's clients find it, whichever server they meet: a SET would stay with one of them.
        connection.execute(text(f'ALTER DATABASE "{engine.url.database}" SET pg_llm.threads = {each}'))
    url = connection_string(engine)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pooled = stack.enter_context(pooler(program, url, folder))
        sides = {
            "held": Clients(stack, url, SERVERS, model.name, TOKENS),
            "pooled": Clients(stack, pooled, CLIENTS, model.name, TOKENS),
        }
        for side in sides.values():
            side.warm(SERVERS)
        samples = interleaved(
            {name: lambda side=side: side.seconds(n_calls) for name, side in sides.items()},  # type: ignore[misc]
            repeats,
        )
    rates = {name: n_calls / statistics.median(taken) for name, taken in samples.items()}
    relative = [held / through for held, through in zip(samples["held"], samples["pooled"], strict=True)]
    note = f"transactions of {TOKENS} tokens"
    yield Row(
        "pooler", f"{SERVERS} held connections, {model.name}", each, "calls/s", rates["held"], note=note
    )
    yield Row("pooler", what, each, "calls/s", rates["pooled"], note=note)
    what = f"{what}, of the held connections' throughput"
    note = f"median of pairs, {min(relative):.3f} to {max(relative):.3f}"
    yield Row("pooler", what, each, "times", statistics.median(relative), note=note)
