"""Database errors in the user's words: the server's message, SQLSTATE and hint, without drivers' wrapping."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from llm_sql.errors import DatabaseUnreachableError, LLMSQLError, NotProvisionedError, StatementRefusedError
from llm_sql.printable import visible

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
    hint = original.diag.message_hint or _HINTS.get(sqlstate)
    return StatementRefusedError(visible(message), sqlstate=sqlstate, hint=hint)


_HINTS = {
    "22P05": "The database's encoding has no such character; databases in UTF8 hold every text.",
    "22021": "The database's encoding has no such character; databases in UTF8 hold every text.",
    "2D000": "What commits as it goes cannot run inside a transaction: use a connection in autocommit.",
    "25006": "The session is read-only (default_transaction_read_only, or a replica): this command writes.",
    "25P02": "An earlier statement of the transaction failed: roll it back first.",
    "40001": "Another transaction was faster; the same call may succeed when it is repeated.",
    "42501": "A role needs llm_reader to read and generate, llm_trainer to train and import.",
}
