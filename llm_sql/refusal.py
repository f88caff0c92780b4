"""Database errors in the user's words: the server's message, SQLSTATE and hint, without drivers' wrapping."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from llm_sql.errors import DatabaseUnreachableError, LLMSQLError, NotProvisionedError, StatementRefusedError

# Classes: connection exceptions; shutdown in progress. 28: authorization, 3D: no such database.
_UNREACHABLE = ("08", "57P", "28", "3D")
SEE_DOCTOR = "llm-sql doctor tells what is wrong"
LOCKED_OUT = (
    "put the library back (make install PG_CONFIG=..., or for the embedded server make env and llm-sql up); "
    "a superuser gets in without it by PGOPTIONS='-c session_preload_libraries=' psql, and there "
    "ALTER DATABASE ... RESET session_preload_libraries lets everybody in"
)


def as_llm_sql_error(error: psycopg.Error | SQLAlchemyError) -> LLMSQLError:
    """The error to show for one that a driver raised."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return LLMSQLError(str(error))
    sqlstate = original.sqlstate
    message = original.diag.message_primary or str(original).strip() or type(original).__name__
    if (sqlstate is None or sqlstate == "58P01") and '"pg_llm"' in message:
        return DatabaseUnreachableError(
            f"every new session of the database loads pg_llm, whose file the server does not find: {message}",
            hint=LOCKED_OUT,
        )
    if sqlstate is None or sqlstate.startswith(_UNREACHABLE):
        return DatabaseUnreachableError(
            f"cannot use the database: {message}",
            hint=original.diag.message_hint or SEE_DOCTOR,
        )
    if sqlstate in ("42P01", "42883") and "llm_" in message:
        return NotProvisionedError(
            message, hint="llm-sql provision installs what this version of llm-sql needs"
        )
    if original.diag.message_detail:
        message = f"{message} ({original.diag.message_detail})"
    return StatementRefusedError(message, sqlstate=sqlstate, hint=original.diag.message_hint)
