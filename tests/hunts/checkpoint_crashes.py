"""Crashes and disk failures in the middle of saving and loading checkpoints, on a server of its own.

    python -m tests.hunts.checkpoint_crashes --moments 50 --seed 1      # kill -9 at random moments
    python -m tests.hunts.checkpoint_crashes --failures              # every call on files fails once

After each, with synchronous_commit on or off: every checkpoint that has a row loads to what was saved, what
was acknowledged with synchronous_commit on is there, one more save leaves no file without a row, and no
process panicked. tests/schema/test_checkpoint_crashes.py runs a few moments and some failures.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from ..support.checkpoints import directory, files, referenced
from ..support.durable import Durable, provisioned
from ..support.small_models import make_model
from ..support.tensors import value

Connection = psycopg.Connection[Any]

# Of all that a checkpoint must bring back; it is kept as the checkpoint's note.
DIGEST = """SELECT md5(string_agg(md5(data::bytea) || step, '' ORDER BY name, token_id))
FROM llm_param WHERE model = 'tiny'"""
OPERATIONS = ("save", "keep 1", "keep 1", "keep 2", "load", "undone", "savepoint")


@dataclass
class State:
    """What was acknowledged."""

    durable: int = 0  # the newest id whose commit was, with synchronous_commit on
    begun: int = 0
    errors: list[str] = field(default_factory=list)


def digest(conn: Connection) -> str:
    return str(value(conn, DIGEST))


def newest(conn: Connection) -> int | None:
    found = value(conn, "SELECT max(id) FROM llm_checkpoint")
    return None if found is None else int(found)


def operate(conn: Connection, operation: str, seed: int) -> int | None:
    """One operation in a transaction of its own; the id of a checkpoint that it committed."""
    with conn.transaction(force_rollback=operation == "undone"):
        if operation == "load":
            conn.execute("SELECT llm_checkpoint_load('tiny', %s)", (newest(conn),))
            return None
        conn.execute("SELECT llm_init_model('tiny', %s)", (seed,))
        keep = {"keep 1": 1, "keep 2": 2}.get(operation)
        query = "SELECT llm_checkpoint_save('tiny', %s, %s)"
        if operation == "savepoint":
            with conn.transaction(force_rollback=True):
                conn.execute(query, ("undone", 1))
        id_ = int(value(conn, query, (digest(conn), keep)))
    return None if operation == "undone" else id_


def work(durable: Durable, rng: random.Random, state: State, asynchronous: bool, backend: list[int]) -> None:
    """Operations one after the other until the server dies."""
    try:
        with durable.connect() as conn:
            conn.execute(f"SET synchronous_commit = {'off' if asynchronous else 'on'}")
            backend.append(conn.info.backend_pid)
            while True:
                state.begun += 1
                id_ = operate(conn, rng.choice(OPERATIONS), rng.randrange(10**6))
                if id_ is not None and not asynchronous:
                    state.durable = max(state.durable, id_)
    except psycopg.OperationalError:
        return
    except Exception as error:
        state.errors.append(f"{type(error).__name__}: {error}")


def check(condition: bool, message: str) -> None:
    assert condition, message


def reconnected(durable: Durable) -> Connection:
    """A session of the server once its recovery is over."""
    end = time.monotonic() + 60
    while True:
        try:
            return durable.connect()
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def writer(file: object) -> int:
    """The transaction that a file's name begins with."""
    found = re.search(r"(?:^|/)(\d+)-[^/]*$", str(file))
    return int(found[1]) if found else 0


def verify(conn: Connection, state: State) -> None:
    """What must hold after a crash, whatever died when."""
    rows = conn.execute("SELECT id, note FROM llm_checkpoint ORDER BY id").fetchall()
    assert rows, "no checkpoint is left"
    assert rows[-1][0] >= state.durable, f"checkpoint {state.durable} was acknowledged and is lost"
    for id_, note in rows:
        conn.execute("SELECT llm_checkpoint_load('tiny', %s)", (id_,))
        assert digest(conn) == note, f"checkpoint {id_} holds something else"
    # A crash may take back transaction numbers: what was written under one is swept once it is given again.
    while int(value(conn, "SELECT pg_current_xact_id()::text")) <= max(map(writer, files(conn)), default=0):
        continue
    state.durable = int(value(conn, "SELECT llm_checkpoint_save('tiny', %s, 3)", (digest(conn),)))
    assert files(conn) == referenced(conn), "files without rows are left"


def verify_once_recovered(durable: Durable, state: State) -> None:
    """A session that began before the postmaster noticed that a backend died is ended with the others."""
    for attempt in range(20):
        try:
            with reconnected(durable) as conn:
                verify(conn, state)
            return
        except psycopg.OperationalError:
            if attempt == 19:
                raise
            time.sleep(0.2)


def crash(durable: Durable, rng: random.Random, state: State) -> str:
    """One moment: work, kill, recover, verify. Tells what it was."""
    asynchronous, postmaster = rng.random() < 0.5, rng.random() < 0.7
    delay = rng.uniform(0.0, 0.5)
    backend: list[int] = []
    thread = threading.Thread(
        target=work, args=(durable, random.Random(rng.random()), state, asynchronous, backend)
    )
    thread.start()
    while not backend and thread.is_alive():
        time.sleep(0.001)
    time.sleep(delay)
    if postmaster:
        durable.crash()
    else:
        os.kill(backend[0], signal.SIGKILL)
    thread.join(60)
    assert not state.errors, state.errors
    verify_once_recovered(durable, state)
    victim, commit = "postmaster" if postmaster else "backend", "off" if asynchronous else "on"
    return f"{victim} after {delay:.3f} s, synchronous_commit {commit}"


def check_log(durable: Durable) -> None:
    log = durable.server.log_file.read_text(errors="replace")
    assert "PANIC" not in log
    assert not re.search(r"terminated by signal (?!9:)", log)


def begin(durable: Durable) -> State:
    """A model of a megabyte or so, saved once for good."""
    with durable.connect() as conn:
        make_model(conn, d_model=64, n_head=2, vocab=4000)
        id_ = int(value(conn, "SELECT llm_checkpoint_save('tiny', %s)", (digest(conn),)))
    return State(durable=id_)


def crashes(durable: Durable, seed: int, moments: int, report: Any = None) -> None:
    rng = random.Random(seed)
    state = begin(durable)
    for moment in range(moments):
        told = crash(durable, rng, state)
        if report is not None:
            report(f"{moment + 1}/{moments}: {told}; {state.begun} operations begun")
    check_log(durable)


# ---- failing calls ----

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* Whether this call on this file is the one to fail: the file PLAN says "CALL COUNT ERRNO". */
static int fails(const char *call, const char *path)
{
    char wanted[16]; int count, error; FILE *f;
    const char *plan = PLAN;
    if (strstr(path, "pg_llm_checkpoint") == NULL) return 0;
    if ((f = fopen(plan, "r+")) == NULL) return 0;
    if (fscanf(f, "%15s %d %d", wanted, &count, &error) != 3 || strcmp(wanted, call) != 0)
    {
        fclose(f);
        return 0;
    }
    rewind(f);
    fprintf(f, "%s %d %d          ", wanted, count - 1, error);
    fclose(f);
    if (count != 1) return 0;
    errno = error;
    return 1;
}
static const char *path_of(int fd, char *out, size_t n)
{
    char link[64]; ssize_t k;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    k = readlink(link, out, n - 1);
    out[k < 0 ? 0 : k] = 0;
    return out;
}
#define FD_CALL(name, type, params, args) \
    type name params { static type (*real) params; char p[4096]; \
        if (!real) *(void **) &real = dlsym(RTLD_NEXT, #name); \
        return fails(#name, path_of(fd, p, sizeof(p))) ? (type) -1 : real args; }
#define PATH_CALL(name, params, path, args) \
    int name params { static int (*real) params; if (!real) *(void **) &real = dlsym(RTLD_NEXT, #name); \
        return fails(#name, path) ? -1 : real args; }
FD_CALL(write, ssize_t, (int fd, const void *b, size_t n), (fd, b, n))
FD_CALL(fsync, int, (int fd), (fd))
FD_CALL(fdatasync, int, (int fd), (fd))
FD_CALL(fchmod, int, (int fd, mode_t m), (fd, m))
FD_CALL(flock, int, (int fd, int how), (fd, how))
PATH_CALL(link, (const char *a, const char *b), b, (a, b))
PATH_CALL(rename, (const char *a, const char *b), b, (a, b))
PATH_CALL(unlink, (const char *a), a, (a))
PATH_CALL(mkdir, (const char *a, mode_t m), a, (a, m))
"""
CALLS = ("write", "fsync", "fdatasync", "fchmod", "flock", "link", "rename", "unlink", "mkdir")
ENOSPC, EIO, EPERM = 28, 5, 1


@contextlib.contextmanager
def failing_server(where: Path) -> Iterator[tuple[Durable, Path]]:
    """A server whose calls on checkpoint files fail as the plan file says."""
    where.chmod(0o755)
    (where / "shim.c").write_text(SHIM)
    plan = where / "plan"
    program = [
        "cc",
        "-shared",
        "-fPIC",
        "-O1",
        f'-DPLAN="{plan}"',
        "-o",
        where / "shim.so",
        where / "shim.c",
        "-ldl",
    ]
    subprocess.run(program, check=True, capture_output=True)
    (where / "shim.so").chmod(0o755)
    plan.write_text("none 0 0")
    plan.chmod(0o666)
    os.environ["LD_PRELOAD"] = str(where / "shim.so")
    try:
        with provisioned() as durable:
            yield durable, plan
    finally:
        del os.environ["LD_PRELOAD"]


def failures(where: Path, counts: int, numbers: tuple[int, ...], report: Any = None) -> int:
    """Each of the first `counts` calls of every kind fails during a save; how many of the saves failed."""
    failed = 0
    with failing_server(where) as (durable, plan):
        state = begin(durable)
        with durable.connect() as conn:
            for call in CALLS:
                for count in range(1, counts + 1):
                    for error in numbers:
                        plan.write_text(f"{call} {count} {error}")
                        told = "no error"
                        try:
                            conn.execute("SELECT llm_checkpoint_save('tiny', %s, 1)", (digest(conn),))
                        except psycopg.Error as problem:
                            told = f"{problem.sqlstate} {problem.diag.message_primary}"
                            failed += 1
                            full = problem.sqlstate in ("53100", "55006")
                            check(full or error != ENOSPC, told)
                        plan.write_text("none 0 0")
                        verify(conn, state)
                        if report is not None and told != "no error":
                            report(f"{call} number {count} fails with {os.strerror(error)}: {told}")
            assert directory(conn).is_dir()
        check_log(durable)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--failures", action="store_true")
    arguments = parser.parse_args()

    def report(line: str) -> None:
        print(line, flush=True)

    if arguments.failures:
        with tempfile.TemporaryDirectory(dir="/tmp") as where:
            print(failures(Path(where), 5, (ENOSPC, EIO, EPERM), report), "saves failed, as they should")
    else:
        with provisioned() as durable:
            crashes(durable, arguments.seed, arguments.moments, report)
        print(f"seed {arguments.seed}: {arguments.moments} moments, nothing lost")


if __name__ == "__main__":
    sys.exit(main())
