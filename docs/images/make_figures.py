"""Draws the pictures of docs/overview.md and README.md again; `make figures` runs it.

In a database of its own on DATABASE_URL's server or the embedded one, dropped at the end, it trains the
demo's model and measures held-out loss on the way; then it calls what `llm-sql visualize all` calls.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from llm_sql import LanguageModel, functions
from llm_sql.bench.scratch import scratch_database
from llm_sql.cli import main
from llm_sql.cli.demo import BLOCK_SIZE, CORPUS, SHAPE, TRAINING
from llm_sql.server import ensure
from llm_sql.url import normalize_url, own_engine

HERE = Path(__file__).parent
MODEL = "catalog-gpt"
TEXT = "int4_sum: sum of integer"


def train(engine: Engine, steps: int, every: int) -> None:
    """The demo's model and data; held-out loss is measured before the first step and after every so many."""
    with Session(engine) as session:
        vocab = session.scalars(select(functions.build_char_tokenizer(MODEL, CORPUS))).one()
        session.execute(select(functions.create_model(MODEL, "gpt2", *SHAPE, vocab, 0)))
        rows = functions.fill_dataset(MODEL, CORPUS, block_size=BLOCK_SIZE, validation=0.1, seed=0)
        session.execute(select(rows.c.train_rows)).all()
        lm = LanguageModel(session, MODEL)
        loss = lm.evaluate(log=True).loss
        session.commit()
        for done in range(0, steps, every):
            print(f"step {done:5,}: held-out loss {loss:.4f}", flush=True)
            # Calls with the same start_step and total_steps together do what one call would do.
            lm.train(
                min(every, steps - done),
                start_step=1,
                total_steps=steps,
                warmup=min(100, steps // 4),
                seed=0,
                log_every=0,
                **TRAINING,
            )
            loss = lm.evaluate(log=True).loss
            session.commit()
        print(f"step {steps:5,}: held-out loss {loss:.4f}", flush=True)


def run(arguments: argparse.Namespace) -> None:
    engine = own_engine(normalize_url(os.environ.get("DATABASE_URL") or ensure()))
    with scratch_database(engine) as scratch:
        # Training is one transaction per call; the scratch database's own engine commits every statement.
        train(scratch.execution_options(isolation_level="READ COMMITTED"), arguments.steps, arguments.every)
        url = scratch.url.render_as_string(hide_password=False)
        options = ["--folder", str(arguments.folder), "--text", TEXT, "--url", url]
        sys.argv = ["llm-sql", "visualize", "all", MODEL, *options]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--every", type=int, default=100, help="steps between evaluations")
    run(parser.parse_args())
