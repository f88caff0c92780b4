"""The database in a notebook: found by one call, with tensors as arrays for SQLAlchemy, pandas and %sql.

from llm_sql.notebook import connect

engine = connect()                                     # DATABASE_URL's database, or the embedded one
pandas.read_sql("SELECT data FROM llm_param", engine)  # a tensor is a NumPy array, int[] a list
%sql SELECT data FROM llm_param                        # the same here, where JupySQL is installed
"""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from llm_sql.errors import LLMSQLWarning, NotProvisionedError, UsageError
from llm_sql.migrations import noted
from llm_sql.refusal import as_llm_sql_error
from llm_sql.server import ensure
from llm_sql.types import adapt_engine
from llm_sql.url import own_engine

__all__ = ["connect"]


def connect(address: str | URL | Engine | None = None, *, provision: bool = False) -> Engine:
    """An engine for a provisioned database.

    `address` None takes DATABASE_URL and, where that is not set, starts the embedded server, whose schema is
    brought to the newest revision. Another database's schema is left alone: one that is not at the newest
    revision raises NotProvisionedError, and `provision=True` brings it there, as `llm-sql provision` does.
    An Engine is taken as it is, and so is its database; teach it tensors first (llm_sql.types.adapt_engine).

    In a notebook with JupySQL (pip install jupysql), the engine's database is that of %sql and %%sql, which
    print no connection string and return pandas DataFrames, where pandas is installed.
    """
    if isinstance(address, Engine):
        if provision:
            raise UsageError(
                "an engine's database is taken as it is", hint="Give its URL, or omit provision."
            )
        engine = address
    else:
        engine = _open(address, provision)
    shell = _shell()
    if shell is not None and find_spec("sql") is not None:
        _use_in_magics(shell, engine)
    return engine


def _open(address: str | URL | None, provision: bool) -> Engine:
    given = address if address is not None else os.environ.get("DATABASE_URL") or None
    try:
        engine = own_engine(given if given is not None else ensure())
    except ValueError as error:
        raise UsageError(str(error)) from error
    adapt_engine(engine)
    try:
        _require_schema(engine, provision or given is None)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _require_schema(engine: Engine, provision: bool) -> None:
    """The newest revision, by provisioning where that is allowed; else NotProvisionedError."""
    try:
        with engine.connect() as connection:
            behind = noted.behind(noted.revision(connection))
    except OperationalError as error:
        raise as_llm_sql_error(error) from error
    if behind is None:
        return
    if not provision:
        raise NotProvisionedError(
            f"the database {engine.url.database} {behind}",
            hint="Install it there: connect(..., provision=True), llm-sql provision or alembic upgrade head.",
        )
    # Only here: Alembic takes its time to import.
    from llm_sql.provision import provision as bring

    for what, hint in bring(engine.url.render_as_string(hide_password=False)).left:
        warnings.warn(f"{what} ({hint})" if hint else what, LLMSQLWarning, stacklevel=4)


def _shell() -> Any:
    """The running IPython, if there is one."""
    if find_spec("IPython") is None:
        return None
    from IPython import get_ipython

    return get_ipython()


def _use_in_magics(shell: Any, engine: Engine) -> None:
    """Make the engine's database the one of %sql."""
    from IPython.utils.capture import capture_output

    with capture_output():  # it tells which configuration files it did not find
        shell.extension_manager.load_extension("sql")
    from sql.connection import ConnectionManager
    from sql.run.resultset import ResultSet

    # JupySQL looks for a new result among the earlier ones by ==, which compares rows: an error with arrays
    # in them. A result is equal to itself only.
    ResultSet.__eq__ = object.__eq__
    magic = shell.magics_manager.registry["SqlMagic"]
    magic.feedback = 0
    magic.autopandas = find_spec("pandas") is not None
    ConnectionManager.set(engine, displaycon=False, config=magic)
