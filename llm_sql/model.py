"""LanguageModel: a model of the database as a Python object, over a SQLAlchemy Session.

Nothing here computes: every method is one or two statements, in the session's transaction unless it says
otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy import Select, select, text
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import Session

from llm_sql import (
    conversations,
    directory_export,
    embedding,
    encoder_files,
    functions,
    importing,
    tokenizer_files,
    weights,
)
from llm_sql.client import BeamResult, StreamEvent, check_text
from llm_sql.connections import atomic, separate_engine
from llm_sql.errors import UsageError
from llm_sql.keywords import Unpack, given, not_none, takes
from llm_sql.options import BeamSearch, Chat, Finetuning, Sampling, Training
from llm_sql.streaming import Query, Stream
from llm_sql.training import BLOCKING, ProgressCallback, check_nothing_blocks, watching

# Rows leave the server one by one, as they are made.
STREAMING = {"stream_results": True, "yield_per": 1, "max_row_buffer": 1}
BACKEND_PID = text("SELECT pg_catalog.pg_backend_pid()")
LAST_RUN = text("SELECT pg_catalog.max(run_id) FROM public.llm_train_run WHERE model = :model")


@dataclass(frozen=True)
class Evaluation:
    """A model on a split of its data: `loss` is the mean negative log-likelihood in nats per token."""

    tokens: int
    loss: float
    perplexity: float


@dataclass(frozen=True)
class Recall:
    """An encoder on a split of its pairs: `recall` is the share of them whose positive is among the k that
    are nearest to the anchor, of all the `candidates`.
    """

    pairs: int
    candidates: int
    recall: float


@dataclass(frozen=True)
class FineTuning:
    """A fine-tuned copy: its name, and its perplexity on held-out text before and after."""

    model: str
    perplexity_before: float
    perplexity_after: float


def select_evaluation(
    model: str, split: str, stride: int | None, query: str | None, log: bool = False
) -> Select[Any]:
    if log:
        if query is not None:
            raise UsageError("log stores the loss of a split", hint="Omit the query.")
        logged = functions.log_evaluation(model, split, **not_none({"stride": stride}))
        return select(logged.c.tokens, logged.c.nll, logged.c.perplexity)
    row = functions.evaluate(model, split, **not_none({"stride": stride, "query": query}))
    return select(row.c.tokens, row.c.nll, row.c.perplexity)


def select_recall(model: str, split: str, k: int) -> Select[Any]:
    row = functions.recall(model, split, k)
    return select(row.c.pairs, row.c.candidates, row.c.recall)


def select_stream(prompt: str, model: str, options: Sampling) -> Select[Any]:
    rows = functions.generate_stream(check_text(prompt), model=model, **given(Sampling, options))
    return select(rows.c.step, rows.c.token_id, rows.c.token, rows.c.text, rows.c.is_complete)


def stream_query(prompt: str, model: str, options: Sampling, dialect: Dialect) -> Query:
    """The stream's statement as psycopg takes it."""
    compiled = select_stream(prompt, model, options).compile(dialect=dialect)
    return str(compiled), compiled.params


def select_finetuning(model: str, query: str, steps: int, options: Finetuning) -> Select[Any]:
    row = functions.finetune(model, query, steps, **given(Finetuning, options))
    return select(row.c.name, row.c.perplexity_before, row.c.perplexity_after)


def select_perplexity(model: str, text: str, stride: int | None) -> Select[Any]:
    return select(functions.perplexity(model, text, **not_none({"stride": stride})))


def select_embedding(text: str, model: str, layer: int | None, pooling: str) -> Select[Any]:
    return select(functions.embed_text(text, model, pooling=pooling, **not_none({"layer": layer})))


def select_saving(model: str, note: str | None, keep: int | None) -> Select[Any]:
    return select(functions.checkpoint_save(model, **not_none({"note": note, "keep": keep})))


def select_adapter(
    name: str, base: str, rank: int, alpha: float, targets: str | Sequence[str] | None, seed: int
) -> Select[Any]:
    names = None if targets is None else [targets] if isinstance(targets, str) else list(targets)
    given = not_none({"rank": rank, "alpha": alpha, "targets": names, "seed": seed})
    return select(functions.create_adapter(name, base, **given))


def select_beams(prompt: str, model: str, options: BeamSearch) -> Select[Any]:
    rows = functions.beam_search(prompt, model=model, **given(BeamSearch, options))
    return select(rows.c.score, rows.c.text, rows.c.token_ids).order_by(rows.c.rank)


def import_weights(
    connection: Connection,
    path: str | os.PathLike[str],
    model: str,
    tokenizer: bool,
    megatron_version: float | None,
    progress: weights.Advance | None,
) -> int:
    """The weights of a file or directory and, if wanted, the directory's tokenizer; the number of weights."""
    directory = Path(path)
    if directory.is_dir():
        directory = encoder_files.transformer(directory)
    # A tokenizer that is refused should not wait for a gigabyte of weights.
    files = tokenizer_files.read_directory(directory) if tokenizer and directory.is_dir() else None
    with atomic(connection):
        if files is not None:
            tokenizer_files.load(connection, model, files)
        return weights.import_weights(
            connection, directory, model, megatron_version=megatron_version, progress=progress
        )


def export_weights(
    connection: Connection,
    model: str,
    path: str | os.PathLike[str],
    format: str | None,
    progress: weights.Advance | None,
) -> int:
    """The weights as a file, or with all that belongs to them as a directory; the number of weights."""
    if directory_export.is_directory(Path(path), format):
        return directory_export.export_directory(connection, model, Path(path), progress=progress)
    return weights.export_weights(connection, model, path, format=format, progress=progress)


def load_tokenizer(
    connection: Connection,
    model: str,
    vocab: str | os.PathLike[str],
    merges: str | os.PathLike[str] | None,
) -> int:
    files = tokenizer_files.read_files(Path(vocab), None if merges is None else Path(merges))
    with atomic(connection):
        return tokenizer_files.load(connection, model, files)


class LanguageModel:
    """A model by name. Options that are left out, or None, have the database's defaults."""

    def __init__(self, session: Session, model: str) -> None:
        self.session = session
        self.model = model

    def __repr__(self) -> str:
        return f"LanguageModel({self.model!r})"

    @classmethod
    def create(
        cls,
        session: Session,
        model: str,
        *,
        n_layer: int,
        n_head: int,
        d_model: int,
        n_positions: int,
        vocab: int,
        arch: str = "gpt2",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> LanguageModel:
        """Register a new model and initialise its weights from the seed. `settings`: what its architecture
        knows beyond sizes (llm_arch.settings).
        """
        session.execute(
            select(
                functions.create_model(
                    model, arch, n_layer, n_head, d_model, n_positions, vocab, seed, dict(settings or {})
                )
            )
        )
        return cls(session, model)

    @classmethod
    def import_model(
        cls,
        session: Session,
        model: str,
        source: str | os.PathLike[str],
        *,
        tokenizer: bool = True,
        settings: Mapping[str, Any] | None = None,
        progress: weights.Advance | None = None,
    ) -> LanguageModel:
        """A model from a GGUF file or a directory with config.json or a GGUF file here, package:NAME of an
        installed Python package, or hf:NAME of the Hugging Face hub: registered, with tokenizer and weights.

        `settings` stand above those that a sentence encoder's files ask for: prompts={"query": "query: "}.
        """
        found = importing.read(source, tokenizer=tokenizer, settings=settings)
        importing.store(session.connection(), model, found, progress=progress)
        return cls(session, model)

    @takes(Sampling)
    def generate(self, prompt: str, **options: Unpack[Sampling]) -> str:
        """The continuation of the prompt."""
        query = select(functions.generate(check_text(prompt), model=self.model, **given(Sampling, options)))
        return str(self.session.scalar(query))

    @takes(Sampling)
    def generate_many(self, prompts: Sequence[str], **options: Unpack[Sampling]) -> list[str]:
        """The continuation of each prompt, equal to what `generate` gives for it alone."""
        query = select(functions.generate(list(prompts), model=self.model, **given(Sampling, options)))
        return list(self.session.scalars(query).one())

    @takes(Sampling)
    def stream(self, prompt: str, **options: Unpack[Sampling]) -> Iterator[StreamEvent]:
        """The continuation token by token, each as soon as the server has it.

        The session may be used, committed or rolled back meanwhile: the first statement completes the
        generation, and what is left of the events then comes from memory.
        """
        if self._dialect().driver == "psycopg":
            return Stream(self._driver, stream_query(prompt, self.model, options, self._dialect()))
        return self._stream_rows(select_stream(prompt, self.model, options))

    def _dialect(self) -> Dialect:
        return self.session.get_bind().dialect

    def _driver(self) -> psycopg.Connection[Any]:
        return cast("psycopg.Connection[Any]", self.session.connection().connection.driver_connection)

    def _stream_rows(self, query: Select[Any]) -> Generator[StreamEvent, None, None]:
        """By another driver: row by row where there is a transaction for a cursor, else all at once."""
        connection = self.session.connection()
        is_autocommit = getattr(connection.connection.dbapi_connection, "autocommit", False)
        options = {} if is_autocommit else STREAMING
        with self.session.execute(query, execution_options=options) as rows:
            for row in rows.all() if is_autocommit else rows:
                yield StreamEvent(*row)

    @takes(Chat)
    def chat(self, messages: Sequence[Mapping[str, str]], **options: Unpack[Chat]) -> str:
        """The answer to a conversation, [{"role": "user", "content": "a text"}, ...], by the model's own chat
        template. One that the server does not know is rendered here, with jinja2.
        """
        conversation = self._ask(conversations.prepare(messages, self.model, options))
        return str(self.session.scalar(conversations.select_chat(conversation, self.model, options)))

    @takes(Chat)
    def chat_stream(
        self, messages: Sequence[Mapping[str, str]], **options: Unpack[Chat]
    ) -> Iterator[StreamEvent]:
        """The answer to a conversation token by token, as `stream` gives a text."""
        conversation = self._ask(conversations.prepare(messages, self.model, options))
        if self._dialect().driver == "psycopg":
            return Stream(
                self._driver, conversations.chat_query(conversation, self.model, options, self._dialect())
            )
        return self._stream_rows(conversations.select_chat_stream(conversation, self.model, options))

    def _ask(self, asking: conversations.Asking) -> Any:
        return conversations.answered(self.session, asking)

    @takes(BeamSearch)
    def beam_search(self, prompt: str, **options: Unpack[BeamSearch]) -> list[BeamResult]:
        """The best continuations that beam search finds, best first."""
        query = select_beams(prompt, self.model, options)
        return [BeamResult(*row) for row in self.session.execute(query)]

    def loss(self, tokens: Sequence[int], targets: Sequence[int]) -> float:
        """Mean negative log-likelihood of the targets in nats; a target below 0 is ignored."""
        return float(
            self.session.scalars(select(functions.loss(self.model, list(tokens), list(targets)))).one()
        )

    def perplexity(self, text: str, *, stride: int | None = None) -> float:
        """exp of the mean negative log-likelihood of the text's tokens, in windows of the context's length
        that begin `stride` tokens apart (None: half of it).
        """
        return float(self.session.scalars(select_perplexity(self.model, text, stride)).one())

    def embed(self, texts: str | Sequence[str], *, prompt: str | None = None) -> NDArray[np.float32]:
        """The embeddings [n, d] of texts, or [d] of one, as the model's settings say. prompt: the name of one
        of its prompts, to be put before each.

        A text that is None is refused. Computed by statements of 1,024 texts.
        """
        embeddings: list[NDArray[np.float32]] = []
        for statement in embedding.statements(embedding.texts_of(texts), self.model, prompt):
            embeddings += self.session.scalars(statement)
        width = 0 if embeddings else int(self.session.scalars(embedding.WIDTH, {"model": self.model}).one())
        return embedding.as_array(texts, embeddings, width)

    def embed_text(
        self, text: str, *, layer: int | None = None, pooling: str = "mean"
    ) -> NDArray[np.float32]:
        """A text's states in a layer (None: the last), pooled 'mean' or 'last' [d_model], or 'none'
        [T, d_model].
        """
        query = select_embedding(text, self.model, layer, pooling)
        return cast("NDArray[np.float32]", self.session.scalars(query).one())

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """Token ids of the text. special: what reads like a special token is one; bos: the token that begins
        a text stands in front.
        """
        query = select(functions.encode(text, self.model, special, bos))
        return list(self.session.scalars(query).one())

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        return str(self.session.scalars(select(functions.decode(list(tokens), self.model))).one())

    def evaluate(
        self,
        split: str = "validation",
        *,
        stride: int | None = None,
        query: str | None = None,
        log: bool = False,
    ) -> Evaluation:
        """Loss and perplexity over a split of the model's data set, or over a query's documents; with a
        stride in windows of the context's length that begin so many tokens apart. log: store a split's loss
        in llm_eval_log, too, from which `llm-sql visualize training` draws held-out loss.
        """
        statement = select_evaluation(self.model, split, stride, query, log)
        return Evaluation(*self.session.execute(statement).one())

    def recall(self, split: str = "validation", k: int = 10) -> Recall:
        """An encoder's share of pairs of a split whose positive is among the k nearest to the anchor."""
        return Recall(*self.session.execute(select_recall(self.model, split, k)).one())

    def import_weights(
        self,
        path: str | os.PathLike[str],
        *,
        tokenizer: bool = True,
        megatron_version: float | None = None,
        progress: weights.Advance | None = None,
    ) -> int:
        """Replace the weights by those of a file here (.safetensors, .npz, gzip) or of a directory in the
        hub's layout; returns their number. The model's sizes must stand in llm_model_config.

        A directory's tokenizer (tokenizer.json, vocab.json and merges.txt, or vocab.txt) becomes the
        model's, unless `tokenizer` is false.
        """
        return import_weights(
            self.session.connection(), path, self.model, tokenizer, megatron_version, progress
        )

    def load_tokenizer(
        self, vocab: str | os.PathLike[str], merges: str | os.PathLike[str] | None = None
    ) -> int:
        """Replace the tokenizer by that of files here: vocab.json and merges.txt, a .tiktoken file or a
        vocab.txt alone, or a directory that holds such files or a tokenizer.json; returns the number of
        tokens.
        """
        return load_tokenizer(self.session.connection(), self.model, vocab, merges)

    def export_weights(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        progress: weights.Advance | None = None,
    ) -> int:
        """Write the weights to a file here, in the format of its suffix or the given one; returns their
        number.

        Without a suffix and a format `path` is a new directory, which transformers loads a decoder from and
        sentence-transformers a sentence encoder, with its modules and tokenizer.
        """
        return export_weights(self.session.connection(), self.model, path, format, progress)

    def create_adapter(
        self,
        name: str,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        targets: str | Sequence[str] | None = None,
        seed: int = 0,
    ) -> LanguageModel:
        """A LoRA adapter of this model, which does not change and which it needs from then on. `targets`:
        matrices of its blocks, None for those of attention.
        """
        self.session.execute(select_adapter(name, self.model, rank, alpha, targets, seed))
        return type(self)(self.session, name)

    def rename(self, new_name: str) -> None:
        """Give the model another name, with all that belongs to it; this object goes by it from now on."""
        self.session.execute(select(functions.rename_model(self.model, new_name)))
        self.model = new_name

    def save_checkpoint(self, note: str | None = None, *, keep: int | None = None) -> int:
        """Save all there is to the model in the server's checkpoint directory; returns the id."""
        return int(self.session.scalars(select_saving(self.model, note, keep)).one())

    def load_checkpoint(self, id: int) -> int:
        """Make the model what it was when the checkpoint was saved; returns its step."""
        return int(self.session.scalars(select(functions.checkpoint_load(self.model, id))).one())

    @takes(Training)
    def train(
        self,
        n_steps: int,
        *,
        commit: bool = False,
        commit_every: int | None = None,
        write_back_every: int | None = None,
        progress: ProgressCallback | None = None,
        **options: Unpack[Training],
    ) -> int:
        """Train for n_steps and return the run's id.

        The run is part of the session's transaction. With `commit`, or one of the two numbers, it uses a
        connection of its own and commits as it goes: its log every `commit_every` steps (about once a
        second), its weights every `write_back_every` steps (when that costs at most 5% of the time) and at
        the end. The session must not hold uncommitted changes to the model then. `progress` is called from
        another thread while the run goes on, and must leave the session alone; an error of its own is raised
        when the run has ended.
        """
        if not commit and commit_every is None and write_back_every is None:
            statement = select(functions.train(self.model, n_steps, **given(Training, options)))
            return int(self._watched(lambda: self.session.scalars(statement).one(), progress))
        if self.session.in_transaction():
            check_nothing_blocks(self.session.scalars(BLOCKING).one())
        bind = self.session.get_bind()
        engine = separate_engine(bind.engine)
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                with watching(connection, self.model, progress, None):
                    loop = functions.train_loop(
                        self.model, n_steps, commit_every, write_back_every, **given(Training, options)
                    )
                    connection.execute(loop)
                return int(connection.scalars(LAST_RUN, {"model": self.model}).one())
        finally:
            engine.dispose()

    def _watched(self, work: Callable[[], Any], progress: ProgressCallback | None) -> Any:
        """Work in the session's transaction, and its progress."""
        if progress is None:
            return work()
        pid = self.session.scalars(BACKEND_PID).one()
        with watching(self.session.connection(), self.model, progress, pid):
            return work()

    @takes(Finetuning)
    def finetune(
        self,
        query: str,
        steps: int,
        *,
        progress: ProgressCallback | None = None,
        **options: Unpack[Finetuning],
    ) -> FineTuning:
        """Fit a copy of the model to the query's documents, in the session's transaction."""
        statement = select_finetuning(self.model, query, steps, options)
        found = self._watched(lambda: self.session.execute(statement).one(), progress)
        return FineTuning(*found)
