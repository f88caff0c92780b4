"""llm-sql's commands in processes of their own, forked from one that has imported what they need.

To import it takes a second of processor time, several times of what most commands work. Like a new process
a forked one has its own environment, streams, signals and exit code, and ends as Python ends. That commands
import what they need is for tests of real ones: test_cli.py, test_start.py.

This file is also the program that is forked.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

REQUEST_BYTES = 1 << 20
PATIENCE = 300


class Command:
    """A command that runs, with what tests use of subprocess.Popen."""

    def __init__(self, *arguments: str, env: Mapping[str, str], stdout: IO[Any] | None = None) -> None:
        request = json.dumps({"arguments": arguments, "env": dict(env), "cwd": str(Path.cwd())})
        pipes = [os.pipe() for _ in range(3)]
        theirs = [end for _, end in pipes]
        out = theirs[1] if stdout is None else stdout.fileno()
        socket.send_fds(forker(), [request.encode()], [theirs[0], out, theirs[2]])
        for end in theirs:
            os.close(end)
        self._status, self.stdout, self.stderr = (os.fdopen(end) for end, _ in pipes)
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, as Popen's; None while it runs."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._status, selectors.EVENT_READ)
            return self.wait() if self.returncode is None and selector.select(0) else self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    os.kill(self.pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
            self._status.close()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """What it says from here on, until its end."""
        said: dict[str, str] = {}
        readers = [
            threading.Thread(target=lambda name=name, end=end: said.update({name: end.read()}))
            for name, end in (("stdout", self.stdout), ("stderr", self.stderr))
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        self.stdout.close()
        self.stderr.close()
        return said["stdout"], said["stderr"]


def run(*arguments: str, env: Mapping[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    command = Command(*arguments, env=env, **options)
    out, err = command.communicate()
    return subprocess.CompletedProcess(arguments, command.wait(), out, err)


@functools.cache
def forker() -> socket.socket:
    """To the program below, which ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    variables = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, __file__, str(theirs.fileno())]
    subprocess.Popen(command, pass_fds=[theirs.fileno()], env=variables, start_new_session=True)
    theirs.close()
    return ours


# -- the program


def main() -> None:
    import gc

    import alembic.command  # noqa: F401
    import rich.progress  # noqa: F401
    import sqlalchemy.dialects.postgresql.psycopg  # noqa: F401
    import typer.main

    import llm_sql.cli.checks
    import llm_sql.model
    import llm_sql.provision
    import llm_sql.server
    import llm_sql.visualize.schema  # noqa: F401
    from llm_sql.cli import app

    once = functools.cache(typer.main.get_command)
    once(app)  # imports more
    typer.main.get_command = once
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=int(sys.argv[1]))
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            watch(json.loads(request), *descriptors)
            return
        for end in descriptors:
            os.close(end)
        with_reaped()


def with_reaped() -> None:
    """Watchers that have ended are no longer kept as zombies."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def watch(request: dict[str, Any], status: int, out: int, err: int) -> None:
    """Tell the command's process and, when it has ended, how; the command itself returns from here."""
    pid = os.fork()
    if pid == 0:
        os.close(status)
        become(request, out, err)
        return
    os.close(out)
    os.close(err)
    os.write(status, f"{pid}\n".encode())
    _, ended = os.waitpid(pid, 0)
    os.write(status, f"{ended}\n".encode())
    os._exit(0)


def become(request: dict[str, Any], out: int, err: int) -> None:
    with Path(os.devnull).open() as nothing:
        for place, end in enumerate((nothing.fileno(), out, err)):
            os.dup2(end, place)
    os.close(out)
    os.close(err)
    # A shell's background job, as the tests may be one, ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["llm-sql", *request["arguments"]]

    from llm_sql.cli import main as command

    command()


if __name__ == "__main__":
    main()
