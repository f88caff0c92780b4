"""A database's catalogue as text that can be compared: two installations are the same when diff is silent.

    python -m tests.migrations.catalogue postgresql://... > before.txt

Lists what schema public holds and what the extensions' members are, as catalogue.sql asks: definitions,
comments, owners and privileges. Left out are oids and the build's hashes in the comment on llm_sql_version.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg

_QUERY = re.compile(r"^-- kind: (.+)\n([^;]+);", re.M)
_BUILD = re.compile(r"(llm-sql revision \w+, build )\w+(, kernels )\w+")


def lines(connection: psycopg.Connection) -> Iterator[str]:
    """The listing, one object after the other; the lines about an object are indented."""
    connection.execute("SET search_path = pg_catalog")
    queries = _QUERY.findall(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
    for kind, query in queries:
        for name, about in sorted(connection.execute(query).fetchall(), key=lambda row: row[0]):
            yield f"{kind} {name}"
            for text in filter(None, about):
                yield from (f"    {line}".rstrip() for line in _BUILD.sub(r"\1-\2-", text).splitlines())


def main() -> None:
    (url,) = sys.argv[1:]
    with psycopg.connect(url) as connection:
        for line in lines(connection):
            print(line)


if __name__ == "__main__":
    main()
