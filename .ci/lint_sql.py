"""Lints SQL: sqlfluff's rules (pyproject.toml), also inside of PL/pgSQL bodies, and the layout of the text.

To sqlfluff a body is a string. PostgreSQL's own parser (pglast) takes it apart and finds syntax errors; the
statements and expressions inside go through sqlfluff like everything else. The rest is checked here: keywords
of PL/pgSQL in upper case, lines of up to 120 columns, indentation in steps of four.

Files without problems are remembered (in build/), until they or the rules change.

usage: python .ci/lint_sql.py FILE_OR_FOLDER...
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pglast import parse_plpgsql, parse_sql
from pglast.parser import ParseError
from sqlfluff.core import FluffConfig, Linter

from llm_sql.models.forms import expand

CLEAN = Path("build", "lint_sql")
WIDTH = 120
BODY = re.compile(r"\$(\w*)\$(?P<text>.*?)\$\1\$", re.S)
# Comments, strings and names in quotes are passed over, as are parts of qualified names.
TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'|\"[^\"]*\"|[\w.]+|.", re.S)
# Reserved in PL/pgSQL, or what its other statements begin with.
KEYWORD = re.compile(
    r"begin|by|case|declare|else|elsif|end|execute|for|foreach|from|if|in|into|loop|not|null|or|perform|raise|return|"
    r"select|then|to|using|when|where|while"
)
STATEMENT, EXPRESSION = 0, 2  # pglast's parse modes; above are assignments
TRIVIAL = re.compile(r"[\w.]+|'[^']*'")


class Problem(NamedTuple):
    path: str
    line: int
    code: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.code} {self.what}"


def lint(path: str) -> list[Problem]:
    # Lines are those of the file as far as nothing longer was written into it.
    text = expand(Path(path).read_text(encoding="utf-8"))
    clean = CLEAN / hashlib.sha256(f"{path}\n{rules()}\n{text}".encode()).hexdigest()
    if clean.exists():
        return []
    found = problems_of(path, text)
    if not found:
        clean.parent.mkdir(parents=True, exist_ok=True)
        clean.touch()
    return found


@cache
def rules() -> str:
    return "".join(Path(name).read_text(encoding="utf-8") for name in (__file__, "pyproject.toml"))


def problems_of(path: str, text: str) -> list[Problem]:
    found = [Problem(path, line, "layout", what) for line, what in layout(text)]
    try:
        parse_sql(re.sub(r"^\\.*$", "", text, flags=re.M))  # psql's commands
        pieces: list[tuple[int, str]] = []
        for body, head in bodies(text):
            first = text.count("\n", 0, body.start("text")) + 1
            found += [Problem(path, first + line, "keyword", what) for line, what in keywords(body["text"])]
            pieces += [(first + line, sql) for line, sql in sql_in(head, body)]
        for _, sql in pieces:
            parse_sql(sql)
    except ParseError as error:
        return sorted([*found, Problem(path, 1, "syntax", str(error))])
    for script in (text, as_script(pieces)):
        violations = linter().lint_string(script, fname=path).get_violations()
        found += [Problem(path, v.line_no, v.rule_code(), v.desc()) for v in violations]
    return sorted(found)


@cache
def linter() -> Linter:
    return Linter(config=FluffConfig.from_path("."))


def layout(text: str) -> Iterator[tuple[int, str]]:
    lines = text.split("\n")
    if lines[-1] or not lines[-2:][0]:
        yield len(lines), "the file does not end with one line break"
    for number, line in enumerate(lines, 1):
        if len(line) > WIDTH:
            yield number, f"{len(line)} columns are more than {WIDTH}"
        if line != line.rstrip() or "\t" in line:
            yield number, "a tab, or blanks at the end"
        if (len(line) - len(line.lstrip(" "))) % 4:
            yield number, "indentation is not in steps of four"


def bodies(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """The bodies in PL/pgSQL, each with the statement up to it."""
    for body in BODY.finditer(text):
        head = text[text.rfind("\nCREATE ", 0, body.start()) : body.start()]
        if head.endswith("DO "):
            yield body, "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS "
        elif re.search(r"\bLANGUAGE\s+plpgsql\b", head, re.I):
            yield body, head


def keywords(body: str) -> Iterator[tuple[int, str]]:
    line = 0
    for match in TOKEN.finditer(body):
        if KEYWORD.fullmatch(match.group()):
            yield line, f"keyword {match.group()} in lower case"
        line += match.group().count("\n")


def sql_in(head: str, body: re.Match[str]) -> Iterator[tuple[int, str]]:
    """Each statement and expression, and the line of the body that it begins in."""
    source, place = body["text"], 0
    # The parser knows no types but PostgreSQL's, and takes an array of ours for one of rows.
    for text, mode in queries(parse_plpgsql((head + body.group()).replace("public.tensor[]", "real[]"))):
        sql = (text.partition(":=")[2] if mode > EXPRESSION else text).strip()
        if TRIVIAL.fullmatch(sql):
            continue
        # As it is written: a SELECT may stand for PERFORM, blanks stand for INTO and its variables.
        written = re.split(r" {2,}|\n", re.sub(r"^SELECT\s+", "", sql))[0]
        found = source.find(written, place)
        place = found if found >= 0 else max(source.find(written), 0)
        if sql not in source:
            sql = with_line_breaks(sql, sql.find(written), source[place:])
        # sqlfluff takes the >= of OPERATOR(pg_catalog.>=) for two operators.
        sql = re.sub(r"OPERATOR\(pg_catalog\.(\S+)\)", r"\1", sql)
        yield source.count("\n", 0, place), sql if mode == STATEMENT else f"SELECT {sql}"


def with_line_breaks(sql: str, begin: int, source: str) -> str:
    """The statement with its line breaks at an INTO, and without the blanks in its place."""
    rest = sql[begin:]
    if all(a in (b, " ") for a, b in zip(rest, source, strict=False)):
        rest = "".join("\n" if b == "\n" else a for a, b in zip(rest, source, strict=False))
    return sql[:begin] + re.sub(r"(?<=\S) {2,}(?=\S)", " ", re.sub(r" +\n", "\n", rest))


def queries(node: Any) -> Iterator[tuple[str, int]]:
    if isinstance(node, dict):
        if "PLpgSQL_expr" in node:
            yield node["PLpgSQL_expr"]["query"], node["PLpgSQL_expr"].get("parseMode", STATEMENT)
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from queries(value)


def as_script(pieces: list[tuple[int, str]]) -> str:
    """One after the other, each in its own line of the file as far as those before it leave room."""
    script = ""
    for line, sql in sorted(pieces):
        script += "\n" * (line - 1 - script.count("\n")) + f"{sql};\n"
    return script


def main(places: list[str]) -> int:
    found_files = (sorted(Path(p).rglob("*.sql")) if Path(p).is_dir() else [Path(p)] for p in places)
    # The longest first, so that no process ends long after the others.
    files = sorted((file for files in found_files for file in files), key=lambda file: -file.stat().st_size)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = sorted(problem for problems in pool.map(lint, map(str, files)) for problem in problems)
    for problem in found:
        print(problem)
    print(f"{len(files)} SQL files, {len(found)} problems", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
