"""The header of a GGUF file: its metadata, and where its tensors lie, checked before anything else is read.

Read here, not by the gguf library: that believes what a file says of sizes and places, and makes several
objects of every token. Its tables of element types are used. What a file costs is bounded by its length and
by the limits below, whatever it says of itself.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.kernels import WeightsFileError

MAGIC = b"GGUF"
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
"""Element types that can be read. Q5_0 and Q5_1 stand where rows are too short for Q4_K and Q5_K."""

# A header of 256,000 tokens and their merges takes 20 MB.
_MOST_HEADER = 64 << 20
_MOST_STRINGS = 1 << 21
_MOST_DIMENSIONS = 4
_SCALARS = {
    0: ("<B", "u1"),
    1: ("<b", "i1"),
    2: ("<H", "<u2"),
    3: ("<h", "<i2"),
    4: ("<I", "<u4"),
    5: ("<i", "<i4"),
    6: ("<f", "<f4"),
    7: ("<B", "u1"),
    10: ("<Q", "<u8"),
    11: ("<q", "<i8"),
    12: ("<d", "<f8"),
}
_FLOAT32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9
_ALIGNMENT = "general.alignment"


class Entry(NamedTuple):
    """A tensor: its element type, its shape with the rows first, the bytes of a row, and where it begins."""

    name: str
    type: str
    shape: tuple[int, ...]
    row_bytes: int
    offset: int

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


@dataclass(frozen=True)
class Header:
    """Numeric arrays of the metadata are NumPy's, those of strings lists."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Entry]


def library() -> Any:
    """The gguf library; UsageError says how to install it."""
    try:
        import gguf
    except ImportError as error:
        raise UsageError(
            "GGUF files are read with the gguf library, which is not installed",
            hint='pip install "llm-sql[gguf]" (or: pip install gguf)',
        ) from error
    return gguf


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF does, or is called so."""
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """UsageError: the file cannot be read. LLMSQLError: it is damaged, or of a kind that is not supported."""
    types = _element_types()
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header(types)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except WeightsFileError as error:
        raise LLMSQLError(f"{path} is refused: {error}") from error


def _element_types() -> dict[int, tuple[str, int, int]]:
    """By their numbers: name, elements and bytes of a block."""
    sizes = library().GGML_QUANT_SIZES
    return {int(type_): (type_.name, *size) for type_, size in sizes.items()}


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0
        self.strings = 0

    def header(self, types: dict[int, tuple[str, int, int]]) -> Header:
        if self.size < len(MAGIC) or self.bytes(len(MAGIC), "the magic number") != MAGIC:
            raise WeightsFileError("it is not a GGUF file")
        version = self.number("<I", "the version")
        if version == 1 or not 1 < version < 1 << 16:
            what = "is big-endian" if version > 1 and not version % (1 << 16) else f"has version {version}"
            raise WeightsFileError(f"it {what}; versions 2 and 3, little-endian, can be read")
        if version > 3:
            raise WeightsFileError(f"it has version {version}; versions 2 and 3 can be read")
        n_tensors = self.count("<Q", 8 + 4 + 8 + 4 + 8, "tensors")
        n_keys = self.count("<Q", 8 + 4 + 1, "metadata keys")
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self.string("a metadata key")
            if key in metadata:
                raise WeightsFileError(f'the metadata key "{key[:100]}" occurs twice')
            metadata[key] = self.value(self.number("<I", f'the type of "{key[:100]}"'), key[:100])
        infos = [self.tensor(types) for _ in range(n_tensors)]
        alignment = metadata.get(_ALIGNMENT, 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise WeightsFileError(f"{_ALIGNMENT} is {alignment!r}, which is no power of two")
        start = -(-self.position // alignment) * alignment
        return Header(self.path, metadata, self.placed(infos, start, alignment))

    def bytes(self, n: int, what: str) -> bytes:
        if n > self.size - self.position:
            raise WeightsFileError(f"{what} would end beyond the file")
        if self.position + n > _MOST_HEADER:
            raise WeightsFileError(f"its header is longer than {_MOST_HEADER >> 20} MiB")
        found = self.file.read(n)
        if len(found) != n:
            raise WeightsFileError(f"{what} would end beyond the file")
        self.position += n
        return found

    def number(self, form: str, what: str) -> int:
        return int(struct.unpack(form, self.bytes(struct.calcsize(form), what))[0])

    def count(self, form: str, each: int, what: str) -> int:
        """A number of things, each of which takes at least some bytes of what is left."""
        n = self.number(form, f"the number of {what}")
        if n > (self.size - self.position) // each:
            raise WeightsFileError(f"it says that it has {n} {what}, more than its length allows")
        return n

    def string(self, what: str) -> str:
        self.strings += 1
        if self.strings > _MOST_STRINGS:
            raise WeightsFileError(f"it has more than {_MOST_STRINGS:,} strings")
        n = self.count("<Q", 1, f"bytes in {what}")
        try:
            return self.bytes(n, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise WeightsFileError(f"{what} is not UTF-8") from error

    def value(self, type_: int, key: str) -> Any:
        what = f'the value of "{key}"'
        if type_ == _STRING:
            return self.string(what)
        if type_ == _ARRAY:
            return self.array(what)
        if type_ not in _SCALARS:
            raise WeightsFileError(f'"{key}" has a value of the unknown type {type_}')
        form = _SCALARS[type_][0]
        [value] = struct.unpack(form, self.bytes(struct.calcsize(form), what))
        if type_ == _BOOL:
            if value > 1:
                raise WeightsFileError(f"{what} is neither true nor false")
            return bool(value)
        # The shortest number that is this one: 1e-05, as config.json has it, not 9.999999747378752e-06.
        return float(str(np.float32(value))) if type_ == _FLOAT32 else value

    def array(self, what: str) -> Any:
        type_ = self.number("<I", what)
        if type_ == _STRING:
            n = self.count("<Q", 8, f"strings in {what}")
            return [self.string(what) for _ in range(n)]
        if type_ not in _SCALARS:
            raise WeightsFileError(f"{what} is an array of the unknown type {type_}")
        form, dtype = _SCALARS[type_]
        width = struct.calcsize(form)
        n = self.count("<Q", width, f"numbers in {what}")
        return np.frombuffer(self.bytes(n * width, what), np.dtype(dtype))

    def tensor(self, types: dict[int, tuple[str, int, int]]) -> Entry:
        name = self.string("the name of a tensor")
        what = f'tensor "{name[:100]}"'
        n = self.number("<I", what)
        if not 1 <= n <= _MOST_DIMENSIONS:
            raise WeightsFileError(f"{what} has {n} dimensions")
        shape = struct.unpack(f"<{n}Q", self.bytes(8 * n, what))[::-1]
        number = self.number("<I", what)
        offset = self.number("<Q", what)
        if not all(shape):
            raise WeightsFileError(f"{what} has the shape {list(shape)}")
        type_, elements, n_bytes = types.get(number, (f"number {number}", 1, 1))
        if type_ not in TYPES:
            raise WeightsFileError(f"{what} has elements of type {type_}; supported are {', '.join(TYPES)}")
        if shape[-1] % elements:
            raise WeightsFileError(
                f"{what} has rows of {shape[-1]} numbers, which are no blocks of {elements}"
            )
        return Entry(name, type_, shape, shape[-1] // elements * n_bytes, offset)

    def placed(self, infos: list[Entry], start: int, alignment: int) -> dict[str, Entry]:
        """The tensors where they lie in the file, each in a place of its own."""
        found: dict[str, Entry] = {}
        end, before = start, ""
        for info in sorted(infos, key=lambda info: info.offset):
            name = info.name[:100]
            if info.name in found:
                raise WeightsFileError(f'tensor "{name}" occurs twice')
            if info.offset % alignment:
                raise WeightsFileError(f'tensor "{name}" begins at {info.offset}, no multiple of {alignment}')
            entry = info._replace(offset=start + info.offset)
            if entry.offset + entry.n_bytes > self.size:
                raise WeightsFileError(
                    f'tensor "{name}" of shape {list(info.shape)} would end beyond the file'
                )
            if entry.offset < end:
                raise WeightsFileError(f'tensors "{before}" and "{name}" overlap')
            end, before = entry.offset + entry.n_bytes, name
            found[info.name] = entry
        return {info.name: found[info.name] for info in infos}
