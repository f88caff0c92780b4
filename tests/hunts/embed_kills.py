"""A column of embeddings that is filled while sessions and servers are killed: no row is lost or done twice.

    python -m tests.hunts.embed_kills --rows 100000 --kills 6 --seed 1

Two sessions fill it (llm_embed_missing) while texts change; one of them, or the server, is killed with kill
-9, and both begin anew. At the end every text has the embedding that it has alone, to the bit, and has been
embedded once for each time that it was written. The memory of the sessions stays below a bound.
tests/schema/test_embed_kills.py takes a small share.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from ..support.durable import Durable, provisioned
from ..support.small_models import NAMES, Connection, make_encoder
from ..support.tensors import value
from .train_crashes import reconnected

# A session's own memory while it fills: the model is small, so what is bounded is what rows take.
BOUND_BYTES = 200 << 20
SETUP = (
    "CREATE TABLE docs (id int PRIMARY KEY, body text, embedding real[], writes int NOT NULL DEFAULT 1,"
    " fills int NOT NULL DEFAULT 0)",
    # What the transaction that stored an embedding leaves is counted, and what it takes back is not.
    "CREATE FUNCTION count_fills() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN NEW.fills := OLD.fills + 1; RETURN NEW; END'",
    "CREATE TRIGGER counted BEFORE UPDATE OF embedding ON docs FOR EACH ROW EXECUTE FUNCTION count_fills()",
    "CREATE TRIGGER later BEFORE INSERT OR UPDATE ON docs FOR EACH ROW"
    " EXECUTE FUNCTION llm_embed_later('body', 'embedding')",
)
# A text that was rewritten before its embedding was made was embedded less often than it was written.
WRONG = """WITH alone AS MATERIALIZED (
    SELECT t.body, llm_embed(t.body, 'enc') AS e FROM (SELECT DISTINCT body FROM docs) t
)
SELECT count(*) FILTER (WHERE (d.embedding IS NULL) <> (d.body IS NULL)),
    count(*) FILTER (WHERE d.embedding::tensor <> a.e),
    count(*) FILTER (WHERE d.fills > d.writes OR (d.fills = 0 AND d.body IS NOT NULL))
FROM docs d LEFT JOIN alone a ON a.body = d.body"""
COUNT = "SELECT count(embedding) FROM docs"
Report = Callable[[str], None]


class Filler:
    """A session that fills, until it has nothing to do or is killed."""

    def __init__(self, durable: Durable, batch_rows: int) -> None:
        self.conn = reconnected(durable)
        self.batch_rows = batch_rows
        self.pid = self.conn.info.backend_pid
        self.peak = 0
        self.problem: Exception | None = None
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self) -> None:
        try:
            self.conn.execute(
                "CALL llm_embed_missing('docs', 'body', 'embedding', 'enc', batch_rows => %s)",
                (self.batch_rows,),
            )
        except psycopg.OperationalError:
            pass
        except Exception as error:
            self.problem = error
        finally:
            self.conn.close()

    def look(self) -> None:
        """Remembers what memory of its own it takes."""
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            own = next(line for line in lines if line.startswith("RssAnon"))
            self.peak = max(self.peak, int(own.split()[1]) << 10)


def hunt(rows: int, kills: int, seed: int, report: Report = lambda _: None, **server: Any) -> None:
    rng = random.Random(seed)
    with provisioned(**server) as durable:
        with durable.connect() as conn:
            make_encoder(conn, n_layer=1, d_model=16, n_head=1, n_positions=32)
            for statement in SETUP:
                conn.execute(statement)
            conn.execute(
                "INSERT INTO docs SELECT i, CASE WHEN i %% 50 > 0 THEN (%s::text[])[1 + i %% 29] || ' ' ||"
                " (%s::text[])[1 + i / 29 %% 29] END FROM generate_series(1, %s) i",
                (NAMES, NAMES, rows),
            )
        began = time.monotonic()
        peak = 0
        for number in range(kills + 1):
            fillers = [Filler(durable, max(rows // 500, 10)) for _ in range(2)]
            goal = rows * (number + 1) // (kills + 1)
            peak = max(peak, watch(durable, fillers, rng, goal if number < kills else None))
            if number < kills:
                kind = rng.choice(("backend", "server"))
                seconds = time.monotonic() - began
                report(f"{filled(durable)} of {rows} rows after {seconds:.0f} s; kill -9 of a {kind}")
                if kind == "backend":
                    durable.kill_backend(rng.choice(fillers).pid)
                else:
                    durable.crash()
            for filler in fillers:
                filler.thread.join(600)
                assert not filler.thread.is_alive(), "a session does not end"
                assert filler.problem is None, filler.problem
        with durable.connect() as conn:
            # What was locked when both sessions ended.
            conn.execute("CALL llm_embed_missing('docs', 'body', 'embedding', 'enc')")
            assert conn.execute(WRONG).fetchone() == (0, 0, 0), "rows without embedding, wrong, done twice"
            assert value(conn, "SELECT count(*) FROM docs") == rows
        report(f"{rows} rows in {time.monotonic() - began:.0f} s; {peak >> 20} MB of memory at most")
        assert peak <= BOUND_BYTES, f"a session takes {peak >> 20} MB"


def filled(durable: Durable) -> int:
    with reconnected(durable) as conn:
        return int(value(conn, COUNT))


def watch(durable: Durable, fillers: list[Filler], rng: random.Random, goal: int | None) -> int:
    """Rewrites some texts until so many rows are filled, or all sessions have ended; the peak of memory."""
    looks = 0
    with reconnected(durable) as conn:
        rows = int(value(conn, "SELECT max(id) FROM docs"))
        while any(filler.thread.is_alive() for filler in fillers):
            looks += 1
            for filler in fillers:
                filler.look()
            # Counting takes as long as filling a few hundred rows.
            if (
                goal is not None
                and (rows < 20_000 or looks % 4 == 0)
                and value(conn, COUNT) >= goal * 9 // 10
            ):
                break
            rewrite(conn, rng, rows)
            time.sleep(0.02)
    return max(filler.peak for filler in fillers)


def rewrite(conn: Connection, rng: random.Random, rows: int) -> None:
    conn.execute(
        "UPDATE docs SET body = body || 'x', writes = writes + 1 WHERE id = %s AND body IS NOT NULL",
        (rng.randint(1, rows),),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    hunt(given.rows, given.kills, given.seed, lambda line: print(line, flush=True), on_disk=True)
    print(f"seed {given.seed}: no row lost or done twice")


if __name__ == "__main__":
    sys.exit(main())
