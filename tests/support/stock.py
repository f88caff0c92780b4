"""A data directory with the schema in it, made once by each process of a run: servers of tests get copies.

initdb and a provisioning take seconds, a copy hundredths of one.
"""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from llm_sql.provision import upgrade
from llm_sql.server import EmbeddedServer, Installation, layout
from llm_sql.server.install import server_account
from llm_sql.url import normalize_url

from .places import new_place

# The provisioned database of every copy.
DATABASE = "llm_sql"
_QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "min_wal_size": "32MB"}


@functools.cache
def _stock() -> EmbeddedServer:
    """A server that has been stopped; its files go with the run."""
    server = EmbeddedServer(new_place("llm-sql-stock-") / "home", settings=_QUICK)
    server.start()
    try:
        server.ensure_database(DATABASE)
        upgrade(normalize_url(server.url(DATABASE)).render_as_string(hide_password=False))
    finally:
        server.stop()
        server.release()
    # Every start writes it anew, with the settings of its own server.
    (server.data_directory / "llm_sql.conf").unlink()
    return server


def stocked(home: Path) -> Installation:
    """Makes the home of a server that holds the provisioned database; returns the programs to run it with."""
    server = _stock()
    layout.prepare_home(home, server_account())
    subprocess.run(["cp", "-a", server.data_directory, home], check=True)
    return server.installation
