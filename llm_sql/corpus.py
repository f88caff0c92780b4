"""A model's data set from files or a query of any size: split, encoded, cut into rows, sent by COPY.

Documents stand between end-of-text tokens, are joined and cut into rows of `block_size` tokens, as
llm_fill_dataset does; or each is a row of its own. What a load has sent and what it still holds is committed
together in llm_dataset_load: the same load, started again, goes on there.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from llm_sql import functions
from llm_sql.connections import separate_engine
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.sources import FileSource, QuerySource, Source
from llm_sql.tokenizer import read_bpe, read_encoding, read_sentencepiece, read_wordpiece

Ids = NDArray[np.int32]
COMMIT_TOKENS = 4 * 1024 * 1024
"""About how many tokens go into one transaction."""

COPY = "COPY public.llm_dataset (model, split, tokens, target) FROM STDIN (FORMAT binary)"


Boundaries = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""What stands before the first document, between two, and after the last: llm_boundaries."""


class Encoder(Protocol):
    def __call__(self, text: str) -> Ids: ...


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What makes two loads the same one, beside their sources.

    `validation`: the share held out; `stride`: tokens between the beginnings of rows; `tokenizer`: 'own' or
    'tiktoken', with equal results. `one_per_row`: each document is a row, in the source's order, between the
    tokens that begin and end it, cut to block_size; one that occurs again is left out unless `duplicates`.
    """

    block_size: int
    stride: int
    validation: float = 0.1
    seed: int = 0
    tokenizer: str = "own"
    one_per_row: bool = False
    duplicates: bool = True


@dataclass
class LoadProgress:
    """What has been sent so far; `fraction` of the source, 0 to 1, None when its size is unknown.

    Of documents that are rows: how many were cut, and how many left out because they had occurred before.
    """

    train_rows: int = 0
    validation_rows: int = 0
    tokens: int = 0
    fraction: float | None = None
    cut: int = 0
    repeated: int = 0


class Blocks:
    """One split's stream of tokens, cut into rows of `block_size`, a row every `stride` tokens."""

    n_cut = 0  # of documents: none, however long

    def __init__(
        self,
        block_size: int,
        stride: int,
        boundaries: Boundaries,
        carry: Sequence[int] = (),
        *,
        is_first: bool = True,
    ) -> None:
        self.block_size = block_size
        self.stride = stride
        self.first, self.between, self.last = boundaries
        self.is_first = is_first
        self.held = np.asarray(carry, dtype=np.int32)
        self._new: list[Ids] = []
        self._n_new = 0

    def begin_document(self) -> None:
        self.add(np.asarray(self.first if self.is_first else self.between, dtype=np.int32))
        self.is_first = False

    def add(self, ids: Ids) -> None:
        self._new.append(ids)
        self._n_new += len(ids)

    @property
    def is_empty(self) -> bool:
        return len(self.held) + self._n_new == 0

    def full_rows(self) -> list[NDArray[np.int32]]:
        """Rows [n, block_size + 1] that are full by now: tokens and, shifted by one, their targets."""
        stream = np.concatenate([self.held, *self._new])
        n = max(0, (len(stream) - self.block_size - 1) // self.stride + 1)
        starts = np.arange(n) * self.stride
        self.held = stream[n * self.stride :]
        self._new, self._n_new = [], 0
        rows: NDArray[np.int32] = stream[starts[:, None] + np.arange(self.block_size + 1)]
        return [rows]

    def last_rows(self, is_first: bool) -> list[NDArray[np.int32]]:
        """What remains at the end: shorter rows, none that only repeats the one before it."""
        self.add(np.asarray(self.last, dtype=np.int32))
        rows = self.full_rows()
        is_first = is_first and len(rows[0]) == 0
        while len(self.held) >= 2 and (is_first or len(self.held) > self.block_size - self.stride + 1):
            rows.append(self.held[None, : self.block_size + 1])
            self.held = self.held[self.stride :]
            is_first = False
        return rows


class Documents:
    """One split's documents, each a row between the tokens that begin and end it, cut to `block_size`."""

    def __init__(self, block_size: int, boundaries: Boundaries) -> None:
        self.block_size = block_size
        self.first, _, self.last = boundaries
        self.is_first = True
        self.held = np.asarray((), dtype=np.int32)
        self.n_cut = 0
        self._rows: list[Ids] = []

    def begin_document(self) -> None:
        """Nothing is joined, so a document begins with its text."""

    def add(self, ids: Ids) -> None:
        row = np.concatenate([self.first, ids, self.last]).astype(np.int32)
        self.n_cut += len(row) > self.block_size + 1
        if len(row) > 1:
            self._rows.append(row[None, : self.block_size + 1])

    @property
    def is_empty(self) -> bool:
        return not self._rows

    def full_rows(self) -> list[NDArray[np.int32]]:
        rows, self._rows = self._rows, []
        return rows

    def last_rows(self, is_first: bool) -> list[NDArray[np.int32]]:
        return self.full_rows()


def load(
    engine: Engine,
    model: str,
    source: Source,
    options: LoadOptions,
    *,
    restart: bool = False,
    progress: Callable[[LoadProgress], None] | None = None,
) -> LoadProgress:
    """Replace the model's rows of llm_dataset by the source's documents; returns what was sent in all.

    A load of the same source and options that was cut off goes on unless `restart`. Commits as it goes, on a
    connection of its own: what a session of the engine holds is not touched.
    """
    source.check()
    beside = separate_engine(engine)
    try:
        with Session(beside) as session:
            encode, boundaries = _tokenizer(session, model, options.tokenizer)
        with beside.connect() as pooled:
            connection = cast("psycopg.Connection[Any]", pooled.connection.driver_connection)
            connection.autocommit = False  # whatever the engine's level: rows and state are one
            connection.prepare_threshold = None  # a pooler may give every transaction another server
            run = _Load(connection, model, source, options, encode, boundaries)
            try:
                run.begin(restart)
                run.send(progress)
            except BaseException:
                connection.rollback()
                raise
            return run.done
    finally:
        beside.dispose()


def _tokenizer(session: Session, model: str, kind: str) -> tuple[Encoder, Boundaries]:
    row = functions.boundaries(model)
    first, between, last = session.execute(select(row.c.first_ids, row.c.between_ids, row.c.last_ids)).one()
    boundaries = (first, between, last)
    own = session.scalar(select(functions.tokenizer_kind(model)))
    if own == "char":
        return _character_encoder(session, model), boundaries
    if own == "wordpiece":
        bert = read_wordpiece(session, model)
        return bert.encode, boundaries
    if own == "sentencepiece":
        pieces = read_sentencepiece(session, model)
        return pieces.encode, boundaries
    if kind == "tiktoken":
        encoding = read_encoding(session, model)
        return lambda text: np.asarray(encoding.encode_ordinary(text), dtype=np.int32), boundaries
    bpe = read_bpe(session, model)
    return bpe.encode, boundaries


def _character_encoder(session: Session, model: str) -> Encoder:
    rows = session.execute(
        text("SELECT token, token_id FROM public.llm_bpe_vocab WHERE model = :model AND token <> '<|bos|>'"),
        {"model": model},
    )
    ids = {row.token: row.token_id for row in rows}

    def encode(text: str) -> Ids:
        try:
            return np.fromiter((ids[c] for c in text), dtype=np.int32, count=len(text))
        except KeyError as error:
            raise LLMSQLError(
                f'the tokenizer of model "{model}" does not know the character {error.args[0]!r}',
                hint="llm-sql tokenizer chars builds one from text that contains it",
            ) from None

    return encode


class _Load:
    """One call of `load`: the connection, the two streams of tokens, the position in the source."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        model: str,
        source: Source,
        options: LoadOptions,
        encode: Encoder,
        boundaries: Boundaries,
    ) -> None:
        self.connection = connection
        self.model = model
        self.source = source
        self.options = options
        self.encode = encode
        self.boundaries = boundaries
        self.settings = {**asdict(options), "source": source.identity()}
        self.position: Any = None
        self.spare: str | None = None
        self.held_out_any = False
        self.done = LoadProgress()
        self.cut_before = 0
        self.streams: dict[str, Blocks | Documents] = {}

    def begin(self, restart: bool) -> None:
        row = self.connection.execute(
            "SELECT state, done FROM public.llm_dataset_load WHERE model = %s AND settings = %s FOR UPDATE",
            (self.model, Jsonb(self.settings)),
        ).fetchone()
        goes_on = row is not None and not row[1] and not restart and self.source.resumable
        state = row[0] if row is not None and goes_on else {}
        if not state:
            self.connection.execute("DELETE FROM public.llm_dataset WHERE model = %s", (self.model,))
        self.position = state.get("position")
        self.spare = json.loads(state.get("spare", "null"))
        self.held_out_any = state.get("held_out_any", False)
        self.done = LoadProgress(**state.get("done", {}))
        self.cut_before = self.done.cut
        self.streams = {
            split: Documents(self.options.block_size, self.boundaries)
            if self.options.one_per_row
            else Blocks(
                self.options.block_size,
                self.options.stride,
                self.boundaries,
                state.get(split, ()),
                is_first=split not in state.get("begun", ()),
            )
            for split in ("train", "validation")
        }

    def send(self, progress: Callable[[LoadProgress], None] | None) -> None:
        pending = 0
        for piece in self.source.pieces(self.position, self.options.validation):
            if piece.held_out is None:
                self._whole(piece.text)
            else:
                stream = self.streams["validation" if piece.held_out else "train"]
                if piece.begins:
                    stream.begin_document()
                stream.add(self.encode(piece.text))
            pending += len(piece.text)
            self.position = piece.position
            self.done.fraction = piece.fraction
            # Characters bound the tokens from above.
            if pending >= COMMIT_TOKENS:
                self._commit()
                pending = 0
                if progress is not None:
                    progress(self.done)
        self._finish()
        if progress is not None:
            progress(self.done)

    def _whole(self, document: str) -> None:
        """A document that is held out or not as a whole, by its content: equal ones stay together."""
        digest = hashlib.sha256(f"{self.options.seed}/{document}".encode()).digest()
        if int.from_bytes(digest[:8], "big") < self.options.validation * 2.0**64:
            self.held_out_any = True
            self._add("validation", document)
        elif self.options.one_per_row:
            self._add("train", document)
        elif self.spare is None and self.options.validation > 0 and not self.held_out_any:
            # Held back, so that at least one document can be held out in the end.
            self.spare = document
        elif document != self.spare:
            self._add("train", document)

    def _add(self, split: str, document: str) -> None:
        self.streams[split].begin_document()
        self.streams[split].add(self.encode(document))

    def _commit(self) -> None:
        with self.connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.write(COPY_HEADER)
            for split, stream in self.streams.items():
                for rows in stream.full_rows():
                    self._copy_rows(copy, split, rows)
            copy.write(COPY_TRAILER)
        self._save(done=False)

    def _finish(self) -> None:
        if self.spare is not None:
            alone = self.done.train_rows == 0 and self.streams["train"].is_empty
            self._add("train" if self.held_out_any or alone else "validation", self.spare)
            self.spare = None
        with self.connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.write(COPY_HEADER)
            for split, stream in self.streams.items():
                sent = self.done.train_rows if split == "train" else self.done.validation_rows
                if sent > 0 or not stream.is_empty:
                    for rows in stream.last_rows(sent == 0):
                        self._copy_rows(copy, split, rows)
            copy.write(COPY_TRAILER)
        # Statistics do not know the new rows yet: for a few rows the planner would compare each with each.
        self.connection.execute("SET LOCAL enable_nestloop = off")
        if self.options.one_per_row:
            self._finish_documents()
        if self.done.train_rows == 0:
            raise LLMSQLError("the source has no text to train on")
        repeated = self.connection.execute(
            "DELETE FROM public.llm_dataset v USING public.llm_dataset t"
            " WHERE v.model = %(model)s AND v.split = 'validation'"
            " AND t.model = %(model)s AND t.split = 'train' AND t.tokens = v.tokens",
            {"model": self.model},
        )
        self.done.validation_rows -= repeated.rowcount
        self.done.fraction = 1.0
        self._save(done=True)

    def _finish_documents(self) -> None:
        """Documents that occur again are left out unless wanted; one is held out if any is to be."""
        if not self.options.duplicates:
            repeated = self.connection.execute(
                "DELETE FROM public.llm_dataset WHERE id IN ("
                " SELECT id FROM (SELECT id,"
                " row_number() OVER (PARTITION BY split, tokens, target ORDER BY id) AS n"
                " FROM public.llm_dataset WHERE model = %(model)s AND split IN ('train', 'validation')) AS d"
                " WHERE n > 1) RETURNING split",
                {"model": self.model},
            ).fetchall()
            n_train = sum(split == "train" for (split,) in repeated)
            self.done.repeated = len(repeated)
            self.done.train_rows -= n_train
            self.done.validation_rows -= len(repeated) - n_train
        if self.options.validation > 0 and self.done.validation_rows == 0:
            # The last one with all its copies, unless nothing else would be left to train on.
            moved = self.connection.execute(
                "UPDATE public.llm_dataset AS d SET split = 'validation' FROM"
                " (SELECT tokens FROM public.llm_dataset WHERE model = %(model)s AND split = 'train'"
                " ORDER BY id DESC LIMIT 1) AS last WHERE d.model = %(model)s AND d.tokens = last.tokens"
                " AND EXISTS (SELECT FROM public.llm_dataset AS o WHERE o.model = %(model)s"
                " AND o.split = 'train' AND o.tokens <> last.tokens)",
                {"model": self.model},
            )
            self.done.train_rows -= moved.rowcount
            self.done.validation_rows += moved.rowcount

    def _copy_rows(self, copy: psycopg.Copy, split: str, rows: NDArray[np.int32]) -> None:
        if len(rows) == 0:
            return
        copy.write(binary_rows(self.model, split, rows, self.connection.info.encoding))
        if split == "train":
            self.done.train_rows += len(rows)
        else:
            self.done.validation_rows += len(rows)
        self.done.tokens += len(rows) * (rows.shape[1] - 1)
        self.done.cut = self.cut_before + sum(stream.n_cut for stream in self.streams.values())

    def _save(self, done: bool) -> None:
        state = {
            "position": self.position,
            # Escaped twice: the database's encoding may not have its characters.
            "spare": json.dumps(self.spare),
            "held_out_any": self.held_out_any,
            "done": asdict(self.done),
            "begun": [split for split, stream in self.streams.items() if not stream.is_first],
            **{split: stream.held.tolist() for split, stream in self.streams.items()},
        }
        self.connection.execute(
            "INSERT INTO public.llm_dataset_load (model, settings, state, done) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (model) DO UPDATE SET settings = excluded.settings, state = excluded.state,"
            " done = excluded.done, updated_at = now()",
            (self.model, Jsonb(self.settings), Jsonb({} if done else state), done),
        )
        self.connection.commit()


# ---- COPY's binary format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format" ----

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
_INT4_OID = 23


def binary_rows(model: str, split: str, rows: NDArray[np.int32], encoding: str = "utf-8") -> bytes:
    """Rows [n, length + 1] of a stream as tuples (model, split, tokens, target) of COPY's binary format,
    whose text has the connection's encoding.
    """
    n, length = rows.shape[0], rows.shape[1] - 1
    names = [name.encode("utf-8" if encoding == "ascii" else encoding) for name in (model, split)]
    prefix = b"\0\4" + b"".join(len(t).to_bytes(4, "big") + t for t in names)
    # An int4[]: size, 1 dimension, no NULLs, element type, length, lower bound 1; each element with its size.
    head = np.array([20 + 8 * length, 1, 0, _INT4_OID, length, 1], dtype=">i4")
    array = np.dtype([("head", ">i4", (6,)), ("elements", ">i4", (length, 2))])
    out = np.empty(n, dtype=[("prefix", "u1", (len(prefix),)), ("tokens", array), ("target", array)])
    out["prefix"] = np.frombuffer(prefix, dtype="u1")
    for name, values in (("tokens", rows[:, :-1]), ("target", rows[:, 1:])):
        out[name]["head"] = head
        out[name]["elements"][:, :, 0] = 4
        out[name]["elements"][:, :, 1] = values
    return out.tobytes()


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that paths and globs (`**` too) name, each once, in order. UsageError: one names none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        matches = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())  # noqa: PTH207
        if not matches and Path(pattern).is_dir():
            example = Path(pattern) / "*.txt"
            raise UsageError(f"{pattern} is a folder", hint=f"name its files, for example '{example}'")
        if not matches:
            raise UsageError(f"no file matches {pattern}")
        found.update(dict.fromkeys(matches))
    return list(found)


__all__ = ["FileSource", "LoadOptions", "LoadProgress", "QuerySource", "find_files", "load"]
