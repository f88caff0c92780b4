"""A model with a tokenizer of its vocabulary's size, and backends that serve it."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Iterator
from string import ascii_lowercase

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from llm_sql.bench.database import vacuum
from llm_sql.bench.generation import Generated
from llm_sql.model import LanguageModel

PROMPT = "the quick brown fox jumps over the lazy dog"
MEGABYTE = 1e6

Connection = psycopg.Connection[tuple[object, ...]]


def tokenizer_file(vocab: int) -> bytes:
    """A .tiktoken file of as many tokens: the bytes, then all words by length. Merging makes each of them."""
    single = (bytes([i]) for i in range(256))
    words = (
        "".join(letters).encode()
        for length in itertools.count(2)
        for letters in itertools.product(ascii_lowercase, repeat=length)
    )
    tokens = itertools.islice(itertools.chain(single, words), vocab)
    return b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens))


def create_served_model(engine: Engine, model: Generated) -> None:
    """The model and its tokenizer, committed, vacuumed and written out."""
    with Session(engine) as session:
        session.execute(
            text("SELECT public.llm_load_bpe(:model, CAST(:file AS bytea))"),
            {"model": model.name, "file": tokenizer_file(model.vocab)},
        )
        LanguageModel.create(
            session, model.name, n_layer=model.n_layer, n_head=model.n_head, d_model=model.d_model,
            n_positions=model.n_positions, vocab=model.vocab,
        )  # fmt: skip
        session.commit()
    with engine.connect() as connection:
        connection.execute(text("ANALYZE public.llm_bpe_vocab, public.llm_bpe_merges"))
        vacuum(connection)


def connection_string(engine: Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextlib.contextmanager
def backend(engine: Engine, **settings: str) -> Iterator[Connection]:
    """A backend that begins with these settings of pg_llm, in autocommit, without queries of SQLAlchemy's."""
    options = " ".join(f"-c pg_llm.{name}={value}" for name, value in settings.items())
    with psycopg.connect(connection_string(engine), autocommit=True, options=options) as connection:
        connection.prepare_threshold = None
        yield connection


def memory_of(connection: Connection) -> dict[str, float] | None:
    """Bytes of /proc/self/smaps_rollup by name: Pss, Private_Dirty, ...; None where it cannot be read."""
    with contextlib.suppress(psycopg.Error), connection.transaction():
        row = connection.execute("SELECT pg_catalog.pg_read_file('/proc/self/smaps_rollup')").fetchone()
        assert row is not None
        lines = (line.split() for line in str(row[0]).splitlines())
        return {words[0].rstrip(":"): float(words[1]) * 1024 for words in lines if words[-1] == "kB"}
    return None
