"""Weight files: what is written is read, by NumPy too; what is damaged is refused, whatever the damage."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sql.errors import UsageError
from llm_sql.kernels import WeightsFile, WeightsFileError, WeightsWriter, megatron_rows
from llm_sql.weights import convert

from ..amount import EXTENDED, grows

Arrays = dict[str, np.ndarray[Any, Any]]
HOSTILE = sorted((Path(__file__).parent / "hostile").iterdir())
FORMATS = ("safetensors", "npz", "gzip")
LIMIT = 1 << 20


def arrays() -> Arrays:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(7, 5)).astype(np.float32)
    return {
        "f4": values,
        "f2": values.astype("<f2"),
        "f8": values.astype("<f8"),
        "vector": values[0].copy(),
        "scalar": np.array(2.5, "<f4"),
        "empty": np.zeros((0, 3), "<f4"),
        "cube": rng.normal(size=(3, 4, 2)).astype(np.float32),
        "special": np.array([np.inf, -np.inf, np.nan, -0.0, 1e-45, 65504], "<f4"),
        "halves": np.arange(65536, dtype="<u2").view("<f2"),
    }


def write(path: Path, format_: str, tensors: Arrays, piece: int = 1 << 20, **metadata: str) -> Path:
    with path.open("wb", buffering=0) as file:
        writer = WeightsWriter(file.fileno(), format_, [(n, a.shape) for n, a in tensors.items()], metadata)
        for a in tensors.values():
            data = a.astype("<f4").tobytes()
            for at in range(0, len(data), piece):
                writer.write(data[at : at + piece])
        writer.finish()
    return path


def numpy_gzip(path: Path, tensors: Arrays) -> None:
    """The records as their public predecessor writes them: by gzip and NumPy."""
    with gzip.open(path, "wb") as file:
        for name, a in tensors.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, a, allow_pickle=False)
            file.write(len(name).to_bytes(2, "little") + name.encode() + buffer.getvalue())


def read_all(path: Path, max_bytes: int = LIMIT) -> Arrays:
    with WeightsFile(path, max_bytes=max_bytes) as file:
        return {name: file.read(name) for name, _, _ in file.tensors()}


def same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.astype("<f4").tobytes() == b.astype("<f4").tobytes()


@pytest.mark.parametrize("piece", [4, 28, 1 << 20])
@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_written_is_read(tmp_path: Path, format_: str, piece: int) -> None:
    tensors = {name: a.astype("<f4") for name, a in arrays().items()}
    path = write(tmp_path / "w", format_, tensors, piece)
    found = read_all(path)
    assert list(found) == list(tensors)
    for name, a in tensors.items():
        assert same(found[name], a), name
    with WeightsFile(path) as file:
        assert file.format == format_


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    tensors = arrays()
    with np.load(write(tmp_path / "w.npz", "npz", tensors)) as found:
        assert set(found) == set(tensors)
        for name in found:
            assert same(found[name], tensors[name])
    stream = io.BytesIO(gzip.decompress(write(tmp_path / "w.gz", "gzip", tensors).read_bytes()))
    for name, a in tensors.items():
        assert stream.read(int.from_bytes(stream.read(2), "little")).decode() == name
        assert same(np.lib.format.read_array(stream), a)
    assert stream.read() == b""


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, numpy_gzip])
def test_what_numpy_writes_is_read(tmp_path: Path, save: Callable[..., None]) -> None:
    tensors = arrays()
    tensors["fortran"] = np.asfortranarray(tensors["cube"])
    tensors["fortran8"] = np.asfortranarray(tensors["f8"])
    path = tmp_path / "w.npz"
    if save is numpy_gzip:
        save(path, tensors)
    else:
        save(path, **tensors)
    found = read_all(path, 1 << 22)
    for name, a in tensors.items():
        if name == "halves":
            assert np.array_equal(found[name], a.astype("<f4"), equal_nan=True)
        else:
            assert same(found[name], a), name


def test_safetensors_of_its_own_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    tensors = arrays()
    library.save_file(tensors, tmp_path / "theirs", metadata={"note": 'é "\\\n'})
    found = read_all(tmp_path / "theirs")
    for name, a in tensors.items():
        if name != "halves":
            assert same(found[name], a), name
    with WeightsFile(tmp_path / "theirs") as file:
        assert file.metadata("note") == 'é "\\\n'
        assert file.metadata("other") is None
    ours = write(tmp_path / "ours", "safetensors", tensors, note='é "\\\n')
    for name, a in library.load_file(ours).items():
        assert same(a, tensors[name])


def test_bfloat16(tmp_path: Path) -> None:
    bits = np.arange(65536, dtype="<u2")
    header = json.dumps({"b": {"dtype": "BF16", "shape": [65536], "data_offsets": [0, 131072]}}).encode()
    path = tmp_path / "b"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bits.tobytes())
    expected = (bits.astype("<u4") << 16).view("<f4")
    assert read_all(path)["b"].tobytes() == expected.tobytes()


@pytest.mark.parametrize("format_", ["safetensors", "npz", "compressed", "gzip"])
def test_rows_in_any_order(tmp_path: Path, format_: str) -> None:
    a = np.random.default_rng(1).normal(size=(500, 300)).astype(np.float32)
    tensors = {"first": a, "second": -a, "fortran": np.asfortranarray(a)}
    path = tmp_path / "w"
    if format_ == "compressed":
        with path.open("wb") as file:
            np.savez_compressed(file, **tensors)
    elif format_ == "gzip":
        numpy_gzip(path, tensors)
    else:
        write(path, format_, tensors)
    with WeightsFile(path) as file:
        for first, rows in ((400, 100), (0, 1), (250, 0), (499, 1), (3, 200)):
            for name in ("second", "first", "fortran"):
                assert same(file.read(name, first, rows), tensors[name][first : first + rows])
        with pytest.raises(ValueError, match="500 rows"):
            file.read("first", 400, 101)
        with pytest.raises(KeyError):
            file.read("third")


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.name)
def test_hostile_files_are_refused(path: Path) -> None:
    if path.name.startswith("good"):
        assert read_all(path)
    else:
        with pytest.raises(WeightsFileError) as refused:
            read_all(path)
        assert str(refused.value)


@grows
@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.name)
def test_cut_and_changed_files_do_no_harm(path: Path, tmp_path: Path) -> None:
    """Prefixes, and single bytes changed: read or refused, nothing else."""
    whole = path.read_bytes()[:2000]
    damaged = tmp_path / "damaged"
    rng = random.Random(path.name)
    n_cut, n_changed = (100, 200) if EXTENDED else (20, 30)
    variants = [whole[:n] for n in range(0, len(whole), 1 + len(whole) // n_cut)]
    for _ in range(n_changed if whole else 0):
        at = rng.randrange(len(whole))
        variants.append(whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :])
    for variant in variants:
        damaged.write_bytes(variant)
        with contextlib.suppress(WeightsFileError):
            read_all(damaged)


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "gz"])
def test_every_prefix_of_a_good_file_is_refused(tmp_path: Path, suffix: str) -> None:
    whole = next(path for path in HOSTILE if path.name == f"good.{suffix}").read_bytes()
    cut = tmp_path / "cut"
    for n in range(len(whole)):
        cut.write_bytes(whole[:n])
        with pytest.raises(WeightsFileError):
            read_all(cut)


def test_declared_sizes_are_limited(tmp_path: Path) -> None:
    a = {"a": np.zeros((1000, 1000), np.float32)}
    for format_ in FORMATS:
        path = write(tmp_path / "w", format_, a)
        with pytest.raises(WeightsFileError, match="more than is allowed"):
            WeightsFile(path, max_bytes=3_999_999)
        assert read_all(path, 4_000_000)["a"].shape == (1000, 1000)


def test_a_table_of_contents_is_limited(tmp_path: Path) -> None:
    """Names and shapes compress a thousandfold: a small file may not fill the memory with them."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}"
    record = b"\x01\x00a\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    path = tmp_path / "w"
    path.write_bytes(gzip.compress(record * 1_000_000, 6))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(WeightsFileError, match="table of contents is longer than"):
        WeightsFile(path)


@given(st.binary(max_size=3000), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_inflate_is_zlibs(data: bytes, level: int) -> None:
    import tempfile

    a = np.frombuffer(data + b"\0" * (-len(data) % 4), "<f4")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w"
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.tile(a, 3))
        path.write_bytes(gzip.compress(b"\x01\x00a" + buffer.getvalue(), level))
        assert read_all(path)["a"].tobytes() == np.tile(a, 3).tobytes()


def test_writers_check_what_they_are_given(tmp_path: Path) -> None:
    with (tmp_path / "w").open("wb", buffering=0) as file:
        fd = file.fileno()
        for tensors in ([("", (1,))], [("a\0b", (1,))], [("__metadata__", (1,))], [("a", (2**62, 4))]):
            with pytest.raises((WeightsFileError, OverflowError)):
                WeightsWriter(fd, "safetensors", tensors)
        with pytest.raises(ValueError, match="unknown format"):
            WeightsWriter(fd, "pickle", [])
        writer = WeightsWriter(fd, "npz", [("a", (2,))])
        writer.write(np.zeros(1, np.float32))
        with pytest.raises(WeightsFileError, match="lacks data"):
            writer.finish()
        writer = WeightsWriter(fd, "npz", [("a", (2,))])
        with pytest.raises(WeightsFileError, match="more data"):
            writer.write(np.zeros(3, np.float32))


@pytest.mark.parametrize("version", [1.0, 2.0, 3.0])
def test_megatrons_orders(version: float) -> None:
    heads, d = 3, 4
    names = np.array(
        [[[f"{part}{head}.{i}" for i in range(d)] for part in "qkv"] for head in range(heads)]
    )  # (heads, 3, d)
    fused = names if version >= 2 else names.transpose(0, 2, 1)
    expected = names.transpose(1, 0, 2).reshape(-1)
    assert (fused.reshape(-1)[megatron_rows(heads, d, version)] == expected).all()


def test_convert(tmp_path: Path) -> None:
    tensors = arrays()
    np.savez(tmp_path / "a.npz", mask=np.ones((2, 2), bool), **tensors)
    convert(tmp_path / "a.npz", tmp_path / "b.safetensors")
    convert(tmp_path / "b.safetensors", tmp_path / "c.gz")
    convert(tmp_path / "c.gz", tmp_path / "d", format="npz")
    with np.load(tmp_path / "d") as found:
        assert set(found) == set(tensors)
        for name in found:
            assert np.array_equal(found[name], tensors[name].astype("<f4"), equal_nan=True)
    assert {p.name for p in tmp_path.iterdir()} == {"a.npz", "b.safetensors", "c.gz", "d"}
    with pytest.raises(UsageError, match="no format"):
        convert(tmp_path / "a.npz", tmp_path / "e.bin")
