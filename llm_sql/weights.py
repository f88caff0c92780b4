"""Weights between files here and a database there, through the connection: no file of the server is touched.

Files are read and written by the parsers of kernels/core, those the server has. Which tensor of a file
becomes which parameter is the database's decision (llm_import_plan); this module only arranges what it names
and sends it.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from llm_sql import gguf_files
from llm_sql.connections import atomic, unprepared
from llm_sql.errors import LLMSQLError, LLMSQLWarning, UsageError
from llm_sql.files import replacing
from llm_sql.kernels import WeightsFile, WeightsFileError, WeightsWriter, megatron_rows
from llm_sql.streaming import refusing

Format = Literal["safetensors", "npz", "gzip"]
Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Advance = Callable[[int, int], None]
"""Called with the elements done so far and in all."""

SUFFIXES: dict[str, Format] = {".safetensors": "safetensors", ".npz": "npz", ".gz": "gzip"}
# Half of a row's elements at a time keeps memory flat; the database stores parts of its own size.
PIECE_ELEMENTS = 4 * 1024 * 1024


class Parameter(NamedTuple):
    """What to send: a parameter, its shape, the file's tensors it is made of, and how (llm_import_plan)."""

    name: str
    shape: list[int]
    sources: list[str]
    how: str


class Tensors(Protocol):
    """What an import reads: tensors by their names, under which llm_import_plan knows them.

    Files of other forms are presented so (a GGUF file, under Hugging Face's names and in their layout):
    import_weights takes such an object in place of a path, and closes it.
    """

    @property
    def path(self) -> Path:
        """Where they come from, for messages."""

    @property
    def tensors(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, type of the elements (F32, F16, BF16, F64, or one that is not read) and shape of each."""

    def read(self, name: str, first_row: int = 0, rows: int | None = None) -> Floats:
        """A tensor, or some of its rows, as float32; LLMSQLError for a damaged one."""

    def close(self) -> None: ...


class Source:
    """The tensors of one file, or of a directory in the hub's layout, perhaps in several files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = ExitStack()
        self._of: dict[str, WeightsFile] = {}
        self.tensors: list[tuple[str, str, tuple[int, ...]]] = []
        try:
            for part in weight_files(path):
                file = self._files.enter_context(_open(part))
                for name, dtype, shape in file.tensors():
                    if name in self._of:
                        raise WeightsFileError(f'tensor "{name}" occurs in two files of {path}')
                    self._of[name] = file
                    self.tensors.append((name, dtype, shape))
        except WeightsFileError as error:
            self.close()
            raise LLMSQLError(f"{path} is refused: {error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._files.close()

    def read(self, name: str, first_row: int = 0, rows: int | None = None) -> Floats:
        """A tensor, or some of its rows, as float32."""
        try:
            return self._of[name].read(name, first_row, rows)
        except WeightsFileError as error:
            raise LLMSQLError(f"{self.path} is refused: {error}") from error


def _listing(source: Tensors) -> str:
    """The tensors as llm_import_begin takes them: JSON."""
    return json.dumps([{"name": n, "dtype": t, "shape": list(s)} for n, t, s in source.tensors])


def _is_bf16(source: Tensors, names: Sequence[str]) -> bool:
    """Whether all of these tensors, and there are some, have elements of bf16."""
    types = [dtype for name, dtype, _ in source.tensors if name in names]
    return bool(types) and all(dtype == "BF16" for dtype in types)


def open_source(path: Path) -> Tensors:
    """The tensors of a weight file, of a directory in the hub's layout, or of a GGUF file or directory."""
    whole = gguf_files.of(path)
    return Source(path) if whole is None else gguf_files.GGUF(whole).tensors


def _open(path: Path) -> WeightsFile:
    try:
        return WeightsFile(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def weight_files(path: Path) -> list[Path]:
    """The file itself, or the weight files of a directory in the hub's layout."""
    if not path.is_dir():
        return [path]
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"{index} is not understood: {error}") from error
        # An index names its neighbours and nothing else.
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise UsageError(f"{index} names files outside its directory")
        return [path / name for name in names]
    whole = path / "model.safetensors"
    if not whole.exists():
        raise UsageError(
            f"{path} has no model.safetensors",
            hint="PyTorch's pickles (pytorch_model.bin) are not supported.",
        )
    return [whole]


def bf16_of(values: NDArray[np.float32]) -> Halves:
    """Numbers that bf16 has, as such: the upper halves of float32."""
    return (values.view(np.uint32) >> 16).astype("<u2")


def _rows_of(shape: Sequence[int]) -> int:
    return max(1, PIECE_ELEMENTS // max(1, math.prod(shape[1:])))


def _arrange(source: Tensors, parameter: Parameter, n_head: int) -> Floats:
    """A parameter that is not simply rows of one tensor, as `how` says."""
    if parameter.how == "zeros":
        return np.zeros(parameter.shape, np.float32)
    pieces = [source.read(name) for name in parameter.sources]
    value = np.concatenate(pieces, axis=1 if parameter.how == "joined columns" else 0)
    if parameter.how.startswith("megatron"):
        version = 2 if parameter.how.startswith("megatron 2") else 1
        value = value[megatron_rows(n_head, value.shape[0] // 3 // n_head, version)]
    elif parameter.how.startswith("part"):
        # One of queries, keys and values, which the tensor has head by head.
        number = int(parameter.how.split()[1]) - 1
        heads = value.reshape(n_head, 3, -1, *value.shape[1:])
        value = heads[:, number].reshape(-1, *value.shape[1:])
    elif parameter.how.startswith("after"):
        value = value[int(parameter.how.split()[1]) :]
    if parameter.how.endswith("transposed"):
        value = value.T
    return np.ascontiguousarray(value)


def _heads_equal(source: Tensors, head: str, embedding: str, vocab: int) -> bool:
    shapes = {name: shape for name, _, shape in source.tensors}
    rows = _rows_of(shapes[embedding])
    if shapes[head][1:] != shapes[embedding][1:] or min(shapes[head][0], shapes[embedding][0]) < vocab:
        return False
    return all(
        np.array_equal(
            source.read(head, first, min(rows, vocab - first)),
            source.read(embedding, first, min(rows, vocab - first)),
        )
        for first in range(0, vocab, rows)
    )


_NAMED = text(
    "SELECT min(n) FILTER (WHERE public.llm_file_name(n) = 'lm_head.weight'),"
    " min(n) FILTER (WHERE public.llm_file_name(n) = 'wte.weight')"
    " FROM unnest(CAST(:names AS text[])) AS n"
)
_CONFIG = text(
    "SELECT (c).n_head, (c).vocab, (c).tied"
    " FROM (SELECT public.llm_config(CAST(:model AS text)) AS c OFFSET 0) AS q"
)
_BEGIN = text(
    "SELECT name, shape, sources, how FROM public.llm_import_begin(CAST(:model AS text),"
    " CAST(:tensors AS jsonb), CAST(:tied AS boolean), CAST(:version AS double precision))"
)
_PARTS = text("SELECT first_row, n_rows FROM public.llm_parts(CAST(:shape AS integer[]))")
_PART = text(
    "SELECT public.llm_import_part(CAST(:model AS text), CAST(:name AS text), CAST(:first AS integer),"
    " public.tensor(CAST(:data AS bytea), CAST(:shape AS integer[]), CAST(:dtype AS text)))"
)
_END = text("SELECT public.llm_import_end(CAST(:model AS text))")
_IMPORTING = "an import is going on on this connection: use another one in its progress callback"


def import_weights(
    connection: Connection,
    path: str | os.PathLike[str] | Tensors,
    model: str,
    *,
    megatron_version: float | None = None,
    progress: Advance | None = None,
) -> int:
    """Replace a model's weights by those of a file or hub directory, in the connection's transaction.

    All or nothing, in autocommit too, also when `progress` raises: it must leave this connection alone. The
    model must stand in llm_model_config. Returns the number of weights. LLMSQLError: a damaged file; the
    database refuses (22023) tensors that are missing, unknown, or of other shapes than the configuration's.
    """
    found = open_source(Path(path)) if isinstance(path, str | os.PathLike) else path
    with closing(found) as source, atomic(connection), unprepared(connection):
        n_head, vocab, was_tied = connection.execute(_CONFIG, {"model": model}).one()
        head, embedding = connection.execute(_NAMED, {"names": [name for name, _, _ in source.tensors]}).one()
        tied: bool | None = head is None
        if head is not None:
            # A head alone does not tell: it is the embedding of a model that is tied, and no other's.
            tied = None if embedding is None else _heads_equal(source, head, embedding, vocab)
        arguments = {"model": model, "tensors": _listing(source), "tied": tied, "version": megatron_version}
        plan = [Parameter(*row) for row in connection.execute(_BEGIN, arguments)]
        _tell_tied(connection, model, was_tied)
        total = sum(math.prod(parameter.shape) for parameter in plan)
        done = 0
        for parameter in plan:
            # What is only moved about is bf16 still.
            from_bf16 = _is_bf16(source, parameter.sources)
            for first, part in _parts(connection, source, parameter, n_head):
                is_bf16 = from_bf16 and not (part.view(np.uint32) & 0xFFFF).any()
                data = (bf16_of(part) if is_bf16 else part).tobytes()
                values = {"model": model, "name": parameter.name, "first": first, "data": data}
                form = {"shape": list(part.shape), "dtype": "bf16" if is_bf16 else "float32"}
                connection.execute(_PART, values | form)
                done += part.size
                if progress is not None:
                    with refusing(connection.connection.driver_connection, _IMPORTING):
                        progress(done, total)
        return int(connection.execute(_END, {"model": model}).scalar_one())


def _tell_tied(connection: Connection, model: str, before: bool) -> None:
    after = connection.execute(_CONFIG, {"model": model}).one()[2]
    if before and not after:
        message = (
            f'the file\'s output head differs from its token embedding: model "{model}" is no longer tied'
        )
        warnings.warn(message, LLMSQLWarning, stacklevel=3)
    elif after and not before:
        message = f'the file has no separate output head: model "{model}" now uses its token embedding (tied)'
        warnings.warn(message, LLMSQLWarning, stacklevel=3)


def _parts(
    connection: Connection, source: Tensors, parameter: Parameter, n_head: int
) -> Iterator[tuple[int, Floats]]:
    whole = None if parameter.how in ("same", "rows") else _arrange(source, parameter, n_head)
    for first, rows in connection.execute(_PARTS, {"shape": parameter.shape}).all():
        if whole is None:
            yield first, source.read(parameter.sources[0], first, rows)
        else:
            yield first, whole[first : first + rows]


def format_of(path: str | os.PathLike[str], given: str | None = None) -> Format:
    """The format to write: the given one, else the one of the file's suffix."""
    found = given or SUFFIXES.get(Path(path).suffix.lower())
    for format_ in SUFFIXES.values():
        if found == format_:
            return format_
    raise UsageError(
        f"no format for {path}", hint=f"Use a suffix of {', '.join(SUFFIXES)}, or name the format."
    )


_STORED = text("SELECT t.name, t.shape, t.dtype FROM public.llm_export_tensors(CAST(:model AS text)) AS t")
# One statement, so one snapshot.
_DATA = text(
    "SELECT d.data::bytea, public.shape(d.data) AS shape"
    " FROM (SELECT e.data FROM public.llm_export_data(CAST(:model AS text)) AS e OFFSET 0) AS d"
)
_EXPORTING = "an export is going on on this connection: use another one in its progress callback"


def export_weights(
    connection: Connection,
    model: str,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    progress: Advance | None = None,
) -> int:
    """Write a model's weights to a file under Hugging Face's names; the file appears whole or not at all.

    What it holds is one version of the model, even while somebody trains. In safetensors, parameters that are
    stored as bf16 are BF16, all else is float32. Returns the number of weights.
    """
    format_ = format_of(path, format)
    with atomic(connection, "ISOLATION LEVEL REPEATABLE READ READ ONLY"), unprepared(connection):
        connection.execute(_CONFIG, {"model": model})
        tensors = [
            (name, shape, dtype if format_ == "safetensors" else "F32")
            for name, shape, dtype in connection.execute(_STORED, {"model": model})
        ]
        if not tensors:
            raise LLMSQLError(
                f'model "{model}" has no weights', hint="Initialise the model or import its weights."
            )
        total: int = sum(math.prod(shape) for _, shape, _ in tensors)
        with replacing(Path(path)) as descriptor:
            metadata = {"format": "pt"} if format_ == "safetensors" else None
            writer = WeightsWriter(descriptor, format_, tensors, metadata)
            _write_rows(connection, model, tensors, writer, total, progress)
            writer.finish()
    return total


def _write_rows(
    connection: Connection,
    model: str,
    tensors: Sequence[tuple[str, Sequence[int], str]],
    writer: WeightsWriter,
    total: int,
    progress: Advance | None,
) -> None:
    done = 0
    ends = np.cumsum([math.prod(shape) for _, shape, _ in tensors])
    options = {"stream_results": True, "max_row_buffer": 1}
    with connection.execute(_DATA, {"model": model}, execution_options=options) as rows:
        for row in rows:
            of_bf16 = tensors[int(np.searchsorted(ends, done, "right"))][2] == "BF16" if row.data else False
            writer.write(bf16_of(np.frombuffer(row.data, "<f4")).tobytes() if of_bf16 else row.data)
            done += math.prod(row.shape)
            if progress is not None:
                with refusing(connection.connection.driver_connection, _EXPORTING):
                    progress(done, total)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    format: str | None = None,
    progress: Advance | None = None,
) -> int:
    """Write the tensors of a file or hub directory to another file as float32, names kept.

    Returns the number of elements. Tensors that are not floating-point numbers (masks) are left out.
    """
    format_ = format_of(target, format)
    with closing(open_source(Path(source))) as read:
        tensors = [
            (name, shape) for name, dtype, shape in read.tensors if dtype in ("F32", "F16", "BF16", "F64")
        ]
        total = sum(math.prod(shape) for _, shape in tensors)
        done = 0
        with replacing(Path(target)) as descriptor:
            metadata = {"format": "pt"} if format_ == "safetensors" else None
            writer = WeightsWriter(descriptor, format_, tensors, metadata)
            for name, shape in tensors:
                rows = _rows_of(shape)
                for first in range(0, shape[0] if shape else 1, rows):
                    part = read.read(name, first, min(rows, shape[0] - first)) if shape else read.read(name)
                    writer.write(part)
                    done += part.size
                    if progress is not None:
                        progress(done, total)
            writer.finish()
        return total
