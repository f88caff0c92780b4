"""The demo: a GPT trained on the database's own catalog, from corpus to samples, all inside the database.

The corpus is real text every PostgreSQL carries: names and descriptions of its built-in functions,
operators and types. Each description is kept once, so that no held-out entry repeats one the model was
trained on.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from llm_sql import functions
from llm_sql.cli.common import program
from llm_sql.cli.progress import progress_bar
from llm_sql.model import LanguageModel

# 16384 is the first object id that users' objects get, ours among them: below it is what initdb put there,
# the same in every database of one version of PostgreSQL. The order depends on no database's collation.
CORPUS = """
SELECT entry
FROM (
    SELECT DISTINCT ON (d.description)
        (COALESCE(p.proname, o.oprname, t.typname, split_part(i.identity, '.', -1)) || ': ' || d.description)
        COLLATE "C" AS entry
    FROM pg_catalog.pg_description d
    LEFT JOIN pg_catalog.pg_proc p ON d.classoid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.objoid
    LEFT JOIN pg_catalog.pg_operator o ON d.classoid = 'pg_catalog.pg_operator'::regclass AND o.oid = d.objoid
    LEFT JOIN pg_catalog.pg_type t ON d.classoid = 'pg_catalog.pg_type'::regclass AND t.oid = d.objoid,
    LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE d.objoid < 16384
    ORDER BY d.description, 1
) entries
WHERE entry ~ '^[ -~]+$'
ORDER BY entry
"""

# A row holds an entry or two, and a text is no longer than what the model saw in training.
BLOCK_SIZE = 96
SHAPE = N_LAYER, N_HEAD, D_MODEL, N_POSITIONS = 4, 4, 128, BLOCK_SIZE
TRAINING: dict[str, Any] = {
    "batch_size": 12,
    "dropout_p": 0.0,
    "lr_max": 3e-3,
    "min_lr": 1e-4,
    "beta2": 0.99,
    "wd": 0.1,
    "grad_clip": 1.0,
    "decay": "matrices",
}
VALIDATION_SHARE = 0.1
COMMIT_EVERY = 250
# The corpus is small: held-out loss was 1.17 after 1,000 steps, 1.14 after 1,300, and 1.46 after 1,800, when
# the model knows it by heart.
FEWEST_STEPS, MOST_STEPS = 500, 1300
SAMPLES = 8


@dataclass(frozen=True)
class Made:
    """What the demo trains and on what."""

    entries: int
    characters: int
    vocab: int
    parameters: int
    train_rows: int
    heldout_rows: int


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured; losses are nats per character over the held-out rows."""

    model: str
    made: Made
    steps: int
    seconds: float
    uniform: float
    unigram: float
    loss_before: float
    loss_after: float
    samples: list[str]


def run_demo(
    engine: Engine, model: str, *, seconds: float, steps: int | None, seed: int, quiet: bool = False
) -> dict[str, Any]:
    """Run the demo and return what it measured; an earlier model of this name is replaced."""
    console = Console(highlight=False, quiet=quiet, soft_wrap=True)
    with Session(engine) as session:
        made = _make(session, model, seed, console)
        lm = LanguageModel(session, model)
        uniform, unigram = math.log(made.vocab), _unigram(session, model, made.vocab)
        before = lm.evaluate().loss
        session.commit()
        _say(
            console,
            "before",
            f"{before:.3f} nats per character on held-out rows (guessing evenly {uniform:.3f}, "
            f"by frequency {unigram:.3f})",
        )
        n_steps = steps or _affordable_steps(lm, seconds)
        elapsed = _train(lm, n_steps, seed, quiet)
        speed = n_steps * TRAINING["batch_size"] * BLOCK_SIZE / elapsed
        _say(console, "trained", f"{n_steps:,} steps in {elapsed:.0f} s, {speed:,.0f} characters per second")
        after = lm.evaluate().loss
        _say(
            console,
            "after",
            f"[bold green]{after:.3f}[/bold green] nats per character on held-out rows (before {before:.3f}, "
            f"by frequency {unigram:.3f})",
        )
        samples = _write(lm, seed, console)
        session.rollback()
    console.print(_what_next(model))
    measured = DemoResult(
        model=model,
        steps=n_steps,
        seconds=elapsed,
        uniform=uniform,
        unigram=unigram,
        loss_before=before,
        loss_after=after,
        samples=samples,
        made=made,
    )
    return asdict(measured)


def _say(console: Console, label: str, message: str) -> None:
    console.print(f"[bold]{label:8}[/bold]  {message}")


def _make(session: Session, model: str, seed: int, console: Console) -> Made:
    """Tokenizer, model and data from the corpus; committed."""
    corpus = f"({CORPUS}) corpus"
    entries, characters = session.execute(text(f"SELECT count(*), sum(length(entry)) FROM {corpus}")).one()
    _say(console, "corpus", f"{entries:,} catalog entries, {characters:,} characters, for example")
    for entry in session.scalars(text(f"SELECT entry FROM {corpus} ORDER BY md5(entry) LIMIT 3")):
        console.print(f"            {escape(entry)}", style="dim")
    vocab = _replace_tokenizer(session, model)
    parameters = session.scalars(select(functions.create_model(model, "gpt2", *SHAPE, vocab, seed))).one()
    train_rows, heldout_rows = _fill(session, model, seed)
    session.commit()
    _say(
        console,
        "data",
        f"{vocab} tokens (characters), {train_rows:,} rows to train on, {heldout_rows:,} held out",
    )
    _say(
        console,
        "model",
        f"{escape(model)}: {N_LAYER} layers, {N_HEAD} heads, width {D_MODEL}, context {N_POSITIONS}, "
        f"{parameters:,} parameters",
    )
    return Made(entries, characters, vocab, parameters, train_rows, heldout_rows)


def _train(lm: LanguageModel, n_steps: int, seed: int, quiet: bool) -> float:
    """Train with a progress bar; returns seconds."""
    started = time.perf_counter()
    with progress_bar(n_steps, quiet=quiet) as advance:
        lm.train(
            n_steps,
            commit_every=min(COMMIT_EVERY, n_steps),
            progress=advance,
            seed=seed,
            warmup=min(100, n_steps // 4),
            log_every=0,
            **TRAINING,
        )
    return time.perf_counter() - started


def _write(lm: LanguageModel, seed: int, console: Console) -> list[str]:
    """Texts from nothing: each begins and ends where the model says an entry does."""
    console.print("[bold]it writes[/bold]")
    samples = []
    for number in range(1, SAMPLES + 1):
        sample = lm.generate(
            "", max_tokens=BLOCK_SIZE, temperature=0.7, top_k=0, top_p=0.95, seed=seed + number
        )
        samples.append(sample)
        console.print(f"            {escape(sample)}", style="cyan")
    return samples


def _replace_tokenizer(session: Session, model: str) -> int:
    """Drop an earlier model of this name and build the tokenizer; returns the size of its vocabulary."""
    exists = text("SELECT EXISTS (SELECT FROM public.llm_model_config WHERE model = :model)")
    if session.scalar(exists, {"model": model}):
        session.execute(select(functions.drop_model(model)))
    return int(session.scalars(select(functions.build_char_tokenizer(model, CORPUS))).one())


def _fill(session: Session, model: str, seed: int) -> tuple[int, int]:
    """Tokenize the corpus into rows to train on and rows held out; how many of each."""
    rows = functions.fill_dataset(
        model, CORPUS, block_size=BLOCK_SIZE, validation=VALIDATION_SHARE, seed=seed
    )
    row = session.execute(select(rows.c.train_rows, rows.c.validation_rows)).one()
    return int(row.train_rows), int(row.validation_rows)


def _unigram(session: Session, model: str, vocab: int) -> float:
    """Held-out loss of guessing by the training rows' character frequencies (add-one smoothed)."""
    query = text(
        """
        WITH seen AS (
            SELECT u.token, count(*)::double precision AS n
            FROM public.llm_dataset d, unnest(d.target) AS u (token)
            WHERE d.model = :model AND d.split = 'train' AND u.token >= 0
            GROUP BY u.token
        ), total AS (
            SELECT sum(n) + :vocab AS n FROM seen
        )
        SELECT -avg(ln((COALESCE(seen.n, 0) + 1) / total.n))
        FROM total, public.llm_dataset d, unnest(d.target) AS u (token) LEFT JOIN seen ON seen.token = u.token
        WHERE d.model = :model AND d.split = 'validation' AND u.token >= 0
        """
    )
    return float(session.scalars(query, {"model": model, "vocab": vocab}).one())


def _affordable_steps(lm: LanguageModel, seconds: float) -> int:
    """How many steps fit the time, by timing a few that are then rolled back; a round number of them."""
    durations = []
    for n_steps in (2, 12):
        started = time.perf_counter()
        lm.train(n_steps, log_every=0, **TRAINING)
        durations.append(time.perf_counter() - started)
    lm.session.rollback()
    per_step = max((durations[1] - durations[0]) / 10, 1e-4)
    return int(min(max(seconds / per_step, FEWEST_STEPS), MOST_STEPS)) // 50 * 50


def _what_next(model: str) -> str:
    run = escape(program())
    return f"""
[bold]next[/bold]
  {run} psql    then, in SQL:
    SELECT llm_generate('pg_', 60, 0.8, model => '{model}', echo => true);
    SELECT step, loss, lr FROM llm_train_log WHERE model = '{model}' ORDER BY step DESC LIMIT 5;
    CALL llm_train_loop('{model}', 200, batch_size => 12, lr_max => 1e-3, log_every => 20);
  {run} generate "pg_" -m {model}
  {run} evaluate -m {model}
  python:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session
    from llm_sql import LanguageModel
    from llm_sql.server import ensure
    with Session(create_engine(ensure())) as session:
        print(LanguageModel(session, "{model}").generate("int4", max_tokens=60))
"""
