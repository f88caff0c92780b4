"""Waiting for a server that does not take connections yet: it starts, or recovers from a crash."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from llm_sql.errors import DatabaseUnreachableError

RECOVERY_PATIENCE_SECONDS = 300.0
# Of one connection of ours for administration, from its first byte to its last.
CONNECTION_PATIENCE_SECONDS = 120.0


def ping(conninfo: str) -> Ping:
    """What the server says to somebody who asks whether it takes connections."""
    return Ping(PGconn.ping(conninfo.encode()))


def until_accepting(
    conninfo: str,
    notice: Callable[[str], None],
    *,
    alive: Callable[[], bool] = lambda: False,
    patience: float | None = None,
) -> None:
    """Return once the server takes connections, or when waiting would not help: connecting then tells why.

    `alive`: whether a server is known to run, though nothing answers yet. Raises DatabaseUnreachableError
    when it still does not after `patience` seconds (RECOVERY_PATIENCE_SECONDS).
    """
    patience = RECOVERY_PATIENCE_SECONDS if patience is None else patience
    started = time.monotonic()
    told = False
    asked = make_conninfo(conninfo, connect_timeout=5)
    while True:
        answer = ping(asked)
        if answer in (Ping.OK, Ping.NO_ATTEMPT) or (answer == Ping.NO_RESPONSE and not alive()):
            return
        waited = time.monotonic() - started
        if waited > patience:
            raise DatabaseUnreachableError(
                f"the server is starting or recovering from a crash ({waited:.0f} s so far)",
                hint="its log shows how far it has got; try again later",
            )
        if waited > 1 and not told:
            told = True
            notice(
                f"the server is starting or recovering from a crash: waiting for it, up to {patience:.0f} s"
            )
        time.sleep(0.05)


@contextlib.contextmanager
def brief_connection(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection that breaks after CONNECTION_PATIENCE_SECONDS, whatever the server does."""
    patience = CONNECTION_PATIENCE_SECONDS
    connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=max(2, int(patience)))
    with connection, socket.socket(fileno=os.dup(connection.fileno())) as end:

        def cut() -> None:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(patience, cut)
        timer.daemon = True
        timer.start()
        try:
            yield connection
        finally:
            timer.cancel()
