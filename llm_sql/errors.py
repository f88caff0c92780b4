"""Errors a person can act on: a sentence, a hint, and the exit code the command line ends with."""

from __future__ import annotations

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_NOT_PROVISIONED = 4
EXIT_REFUSED = 5
EXIT_INTERRUPTED = 130


class LLMSQLWarning(UserWarning):
    """Something the caller should know and need not act on at once."""


class LLMSQLError(Exception):
    """Base of the errors this package raises itself."""

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


class UsageError(LLMSQLError):
    """The caller's arguments cannot mean anything."""

    exit_code = EXIT_USAGE


class ServerError(LLMSQLError):
    """The embedded server cannot be installed, started or stopped."""

    exit_code = EXIT_UNREACHABLE


class DatabaseUnreachableError(LLMSQLError):
    """No connection to the database."""

    exit_code = EXIT_UNREACHABLE


class NotProvisionedError(LLMSQLError):
    """The database lacks the extension, the schema, or a part of it."""

    exit_code = EXIT_NOT_PROVISIONED


class StatementRefusedError(LLMSQLError):
    """The database refused a statement: the message, SQLSTATE and hint are the server's."""

    exit_code = EXIT_REFUSED

    def __init__(self, message: str, *, sqlstate: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate
