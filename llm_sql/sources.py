"""Where documents come from: files, read piece by piece, or a query, row by row.

A source can be taken up at any position that one of its pieces carries.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from sqlalchemy import Engine, text

from llm_sql.connections import separate_engine
from llm_sql.errors import UsageError
from llm_sql.streaming import as_text

PIECE_BYTES = 1 << 20
BOM = codecs.BOM_UTF8.decode()
# GPT-2's pattern takes no space or line break into a piece after anything but white space: cut there, a text
# encodes as it does whole. No white space of Unicode ends in the bytes from 0xb0 on.
CUT = re.compile(rb"[!-~\xb0-\xbf](?=[ \n])")


@dataclass(frozen=True)
class Piece:
    """A part of a document. `held_out` None: a whole one, for the load to decide on. `begins`: the first of
    its document in its split. `position`: where to go on after it.
    """

    text: str
    position: Any
    held_out: bool | None
    begins: bool = True
    fraction: float | None = None


class Source(Protocol):
    @property
    def resumable(self) -> bool:
        """Whether a position means the same to the next run."""

    def identity(self) -> Any:
        """What tells this source from another, as JSON."""

    def check(self) -> None:
        """UsageError, before anything is loaded, for what no database can hold."""

    def pieces(self, position: Any, validation: float) -> Iterator[Piece]:
        """The pieces after `position`, None for the beginning."""


class FileSource:
    """UTF-8 files, each a document whose end is held out; with `lines` each line that is not blank is one.
    `whole`: a file is held out as a whole or not at all.
    """

    resumable = True

    def __init__(self, files: Sequence[Path], *, lines: bool = False, whole: bool = False) -> None:
        self.files = list(files)
        self.lines = lines
        self.whole = whole
        self.sizes = [path.stat().st_size for path in self.files]

    def identity(self) -> Any:
        return {
            "files": [
                [str(path.absolute()), size, path.stat().st_mtime_ns]
                for path, size in zip(self.files, self.sizes, strict=True)
            ],
            "lines": self.lines,
        }

    def check(self) -> None:
        for path in self.files:
            decoder = codecs.getincrementaldecoder("utf-8")()
            line, offset = 1, 0
            with path.open("rb") as file:
                while data := file.read(PIECE_BYTES):
                    at = data.find(b"\0")
                    if at >= 0:
                        line += data.count(b"\n", 0, at)
                        raise UsageError(
                            f"{path}, line {line}: a NUL character, which PostgreSQL's type text cannot hold",
                            hint="Is it a text file in UTF-8? tr -d '\\000' removes such characters.",
                        )
                    self._check_utf8(path, decoder, data, offset)
                    line += data.count(b"\n")
                    offset += len(data)
                self._check_utf8(path, decoder, b"", offset)

    @staticmethod
    def _check_utf8(path: Path, decoder: codecs.IncrementalDecoder, data: bytes, offset: int) -> None:
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{path} is not UTF-8 text: byte {offset - pending + error.start}",
                hint="convert it, for example with iconv -t UTF-8",
            ) from None

    def pieces(self, position: Any, validation: float) -> Iterator[Piece]:
        first, offset = position or (0, 0)
        for number in range(first, len(self.files)):
            read = self._lines if self.lines else self._whole if self.whole else self._halves
            yield from read(number, offset if number == first else 0, validation)

    def _fraction(self, number: int, offset: int) -> float:
        return (sum(self.sizes[:number]) + offset) / max(sum(self.sizes), 1)

    def _decode(self, number: int, data: bytes, offset: int) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{self.files[number]} is not UTF-8 text: byte {offset + error.start}",
                hint="convert it, for example with iconv -t UTF-8",
            ) from None

    def _lines(self, number: int, offset: int, _: float) -> Iterator[Piece]:
        with self.files[number].open("rb") as file:
            file.seek(offset)
            for line in file:
                start, offset = offset, offset + len(line)
                text = self._decode(number, line, start).rstrip("\r\n")
                if start == 0:
                    text = text.removeprefix(BOM)
                if text.strip():
                    yield Piece(text, (number, offset), None, fraction=self._fraction(number, offset))

    def _whole(self, number: int, _: int, __: float) -> Iterator[Piece]:
        text = self._decode(number, self.files[number].read_bytes(), 0).removeprefix(BOM)
        if text:
            yield Piece(text, (number + 1, 0), None, fraction=self._fraction(number + 1, 0))

    def _halves(self, number: int, offset: int, validation: float) -> Iterator[Piece]:
        size = self.sizes[number]
        with self.files[number].open("rb") as file:
            border = self._border(file, int(size * (1 - validation))) if validation > 0 else size
            while offset < size:
                held_out = offset >= border
                end = size if held_out else border
                file.seek(offset)
                data = file.read(min(PIECE_BYTES, end - offset))
                if offset + len(data) < end:
                    data = self._shorten(file, data, end - offset)
                begins = offset in (0, border)
                text = self._decode(number, data, offset)
                if offset == 0:
                    text = text.removeprefix(BOM)
                offset += len(data)
                yield Piece(text, (number, offset), held_out, begins, self._fraction(number, offset))

    def _border(self, file: BinaryIO, at: int) -> int:
        """The first place to cut from `at` on, else the file's end."""
        file.seek(at)
        while data := file.read(PIECE_BYTES):
            cut = CUT.search(data)
            if cut is not None:
                return at + cut.end()
            at += len(data)
        return at

    def _shorten(self, file: BinaryIO, data: bytes, limit: int) -> bytes:
        """Up to the last place to cut; where there is none, as far as the next one."""
        cuts = [cut.end() for cut in CUT.finditer(data[-4096:])]
        while not cuts and len(data) < limit:
            more = file.read(min(PIECE_BYTES, limit - len(data)))
            cut = CUT.search(data[-1:] + more)
            if cut is not None:
                return data + more[: cut.end() - 1]
            data += more
        return data[: len(data[:-4096]) + cuts[-1]] if cuts else data


class QuerySource:
    """The first column of a query, fetched through a cursor on a connection of its own.

    In the order of the texts, which every run finds again; or, `in_order`, in the query's own, which none may
    rely on: such a load cannot be resumed.
    """

    def __init__(self, engine: Engine, query: str, *, in_order: bool = False) -> None:
        self.engine = engine
        self.query = query.rstrip("; \t\r\n")
        self.in_order = in_order

    @property
    def resumable(self) -> bool:
        return not self.in_order

    def identity(self) -> Any:
        return {"query": self.query, "in_order": self.in_order}

    def check(self) -> None:
        pass

    def pieces(self, position: Any, validation: float) -> Iterator[Piece]:
        done = position or 0
        # Beside the load's own connection, and beside what a pool of one connection has given away.
        engine = separate_engine(self.engine)
        try:
            yield from self._rows(engine, done)
        finally:
            engine.dispose()

    def _rows(self, engine: Engine, done: int) -> Iterator[Piece]:
        with engine.connect() as connection:
            if getattr(connection.connection.dbapi_connection, "autocommit", False):
                connection = connection.execution_options(isolation_level="READ COMMITTED")
            # The row's number is the position.
            order = (
                ""
                if self.in_order
                else " ORDER BY pg_catalog.convert_to(q.document::pg_catalog.text, 'UTF8')"
            )
            rows = connection.execution_options(stream_results=True, yield_per=100).execute(
                text(
                    "SELECT q.document::pg_catalog.text FROM ("
                    + self.query.replace(":", r"\:")
                    + "\n) AS q (document)"
                    + order
                )
            )
            for number, (document,) in enumerate(rows, 1):
                if number > done and document:
                    yield Piece(as_text(document), number, None)
