"""SQL as pages and notebooks have it: PostgreSQL's, with psql's commands and the marks of %%sql cells."""

from __future__ import annotations

import re

from pygments.lexers.sql import PostgresLexer
from pygments.token import Keyword, Name


class SqlLexer(PostgresLexer):  # type: ignore[misc]
    """PostgreSQL's SQL, lines of psql's own (a backslash first), `%%sql` and its `{{name}}`."""

    name = "SQL with psql's commands"
    aliases = ("sql",)
    filenames = ()
    flags = re.IGNORECASE | re.MULTILINE
    tokens = {  # noqa: RUF012  Pygments' lexers are declared by class attributes
        **PostgresLexer.tokens,
        "root": [
            (r"^\\\w.*$", Keyword.Pseudo),
            (r"^%%?sql\b.*$", Keyword.Pseudo),
            (r"\{\{.*?\}\}", Name.Variable),
            *PostgresLexer.tokens["root"],
        ],
    }
