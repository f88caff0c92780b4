"""Writes tests/kernels/hostile: weight files that must be refused, and small valid ones fuzzers begin with.

Run as a script; the results are committed. `bad_*` must be refused with an error, `good_*` must be read.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "hostile"
A = np.arange(6, dtype="<f4").reshape(2, 3)


def npy(array: np.ndarray[Any, Any] = A) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(header: str, data: bytes = A.tobytes(), version: int = 1) -> bytes:
    text = header.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def safetensors(header: object, data: bytes = A.tobytes(), *, raw: bytes | None = None) -> bytes:
    text = json.dumps(header).encode() if raw is None else raw
    return struct.pack("<Q", len(text)) + text + data


def entry(
    begin: int = 0, end: int = 24, dtype: str = "F32", shape: tuple[int, ...] = (2, 3)
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def described(
    dtype: str = '"F32"', shape: str = "[2,3]", offsets: str = "[0,24]", data: bytes = A.tobytes()
) -> bytes:
    """One tensor whose fields are written as they are given."""
    header = f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'
    return safetensors(None, data, raw=header.encode())


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def record(name: bytes, data: bytes) -> bytes:
    return struct.pack("<H", len(name)) + name + data


def gz(*records: bytes) -> bytes:
    return gzip.compress(b"".join(records), mtime=0)


def patch(data: bytes, at: int, new: bytes) -> bytes:
    at %= len(data)
    return data[:at] + new + data[at + len(new) :]


def deflate_bomb(declared: int, actual: int) -> bytes:
    """A member that declares `declared` bytes and inflates to `actual`."""
    count = (declared - 128) // 4
    header = npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},)}}".ljust(118), b"")
    whole = npz({"a.npy": header + bytes(actual - len(header))}, zipfile.ZIP_DEFLATED)
    at = whole.index(b"PK\x01\x02")
    whole = patch(whole, at + 24, struct.pack("<I", declared))
    return patch(whole, 22, struct.pack("<I", declared))


def overlapping_npz() -> bytes:
    """Two directory entries that share one local header."""
    whole = npz({"a.npy": npy(), "b.npy": npy()})
    second = whole.index(b"PK\x01\x02", whole.index(b"PK\x01\x02") + 1)
    return patch(whole, second + 42, struct.pack("<I", 0))


def zip64(whole: bytes, inflated: int, compressed: int, offset: int) -> bytes:
    """An archive of one member, `whole`, that says its sizes and its place in a zip64 field."""
    central, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entry = patch(whole[central:end], 20, b"\xff" * 8)
    entry = patch(patch(entry, 42, b"\xff" * 4), 30, struct.pack("<H", 28))
    entry += struct.pack("<HHQQQ", 1, 24, inflated, compressed, offset)
    return whole[:central] + entry + patch(whole[end:], 12, struct.pack("<I", len(entry)))


def raw_gzip(deflated: bytes, data: bytes) -> bytes:
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return header + deflated + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def safetensors_files() -> dict[str, bytes]:
    good = safetensors({"__metadata__": {"format": "pt"}, "a": entry()})
    two = {"a": entry(), "b": entry(24, 48)}
    return {
        "good.safetensors": good,
        "good_empty_tensor.safetensors": safetensors({"a": entry(), "e": entry(24, 24, shape=(0, 3))}),
        "bad_truncated.safetensors": good[:-1],
        "bad_truncated_header.safetensors": good[:40],
        "bad_trailing.safetensors": good + b"\0",
        "bad_header_length.safetensors": patch(good, 0, struct.pack("<Q", 2**63)),
        "bad_header_over_limit.safetensors": patch(good, 0, struct.pack("<Q", 100_000_001)),
        "bad_overlap.safetensors": safetensors({**two, "b": entry(12, 36)}, bytes(36)),
        "bad_same_bytes.safetensors": safetensors({**two, "b": entry(0, 24)}),
        "bad_hole.safetensors": safetensors({**two, "b": entry(28, 52)}, bytes(52)),
        "bad_offset_beyond.safetensors": safetensors({"a": entry(0, 2**40)}),
        "bad_offset_reversed.safetensors": safetensors({"a": entry(24, 0)}),
        "bad_offset_negative.safetensors": safetensors({"a": entry(-24, 0)}),
        "bad_shape.safetensors": safetensors({"a": entry(shape=(2, 4))}),
        "bad_shape_overflow.safetensors": safetensors({"a": entry(shape=(2**62, 2**62))}),
        "bad_shape_wraps.safetensors": safetensors({"a": entry(0, 0, shape=(2**32, 2**32))}, b""),
        "bad_axes.safetensors": safetensors({"a": entry(shape=(1, 1, 1, 1, 1, 1, 1, 2, 3))}),
        "bad_dtype.safetensors": safetensors({"a": entry(dtype="C64")}),
        "bad_duplicate.safetensors": safetensors(
            None, bytes(48), raw=json.dumps(two).replace('"b"', '"a"').encode()
        ),
        "bad_duplicate_field.safetensors": safetensors(
            None, raw=b'{"a":{"dtype":"F32","dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
        ),
        "bad_duplicate_metadata.safetensors": safetensors(
            None, b"", raw=b'{"__metadata__":{"k":"1","k":"2"}}'
        ),
        "bad_extra_field.safetensors": safetensors({"a": {**entry(), "x": 1}}),
        "bad_nul_name.safetensors": safetensors({"a\0b": entry()}),
        "bad_surrogate.safetensors": safetensors(
            None, raw=b'{"\\ud800":' + json.dumps(entry()).encode() + b"}"
        ),
        "bad_surrogate_last.safetensors": safetensors(
            None, raw=b'{"a\\ud800":' + json.dumps(entry()).encode() + b"}"
        ),
        "bad_control_character.safetensors": safetensors(
            None, raw=b'{"a\n":' + json.dumps(entry()).encode() + b"}"
        ),
        "bad_utf8.safetensors": safetensors(None, raw=b'{"\xff":' + json.dumps(entry()).encode() + b"}"),
        "bad_deep.safetensors": safetensors(None, b"", raw=b"{" + b'"a":[' * 300),
        "bad_not_json.safetensors": safetensors(None, raw=b"[1, 2, 3]"),
        "bad_open_string.safetensors": safetensors(None, b"", raw=b'{"a\\'),
        "bad_shape_nan.safetensors": described(shape="[NaN,3]"),
        "bad_shape_infinite.safetensors": described(shape="[1e999,3]"),
        "bad_shape_fraction.safetensors": described(shape="[2.0,3]"),
        "bad_shape_exponent.safetensors": described(shape="[2e0,3]"),
        "bad_shape_negative.safetensors": described(shape="[-2,-3]"),
        "bad_shape_octal.safetensors": described(shape="[02,3]"),
        "bad_shape_string.safetensors": described(shape='["2",3]'),
        "bad_shape_null.safetensors": described(shape="null"),
        "bad_shape_64_bits.safetensors": described(shape="[18446744073709551618,3]"),
        "bad_offset_nan.safetensors": described(offsets="[0,NaN]"),
        "bad_offset_64_bits.safetensors": described(offsets="[18446744073709551616,18446744073709551640]"),
        "bad_offset_single.safetensors": described(offsets="[24]"),
        "bad_offset_three.safetensors": described(offsets="[0,12,24]"),
        "bad_dtype_null.safetensors": described(dtype="null"),
        "bad_metadata_number.safetensors": safetensors({"__metadata__": {"k": 1}}, b""),
        "bad_metadata_twice.safetensors": safetensors(
            None, b"", raw=b'{"__metadata__":{},"__metadata__":{}}'
        ),
        "bad_metadata_long_key.safetensors": safetensors({"__metadata__": {"k" * 5000: ""}}, b""),
        "bad_long_name.safetensors": safetensors({"n" * 5000: entry()}),
        "bad_trailing_comma.safetensors": safetensors(
            None, raw=b'{"a":' + json.dumps(entry()).encode() + b",}"
        ),
        "bad_empty_header.safetensors": safetensors(None, bytes(8), raw=b""),
        "bad_empty.bin": b"",
        "bad_seven_bytes.bin": b"\2\0\0\0\0\0\0",
        "bad_pickle.bin": b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.",
    }


def npz_files() -> dict[str, bytes]:
    good = npz({"a.npy": npy()})
    central = good.index(b"PK\x01\x02")
    objects = npy(np.array([{"a": 1}], dtype=object))
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
    return {
        "good.npz": good,
        "good_deflated.npz": npz({"a.npy": npy(), "b.npy": npy(np.zeros(300, "<f4"))}, zipfile.ZIP_DEFLATED),
        "good_fortran.npz": npz({"a.npy": npy(np.asfortranarray(A))}),
        "bad_truncated.npz": good[:-5],
        "bad_trailing.npz": good + b"\0",
        "bad_checksum.npz": patch(good, good.index(A.tobytes()) + 4, b"\xff"),
        "bad_pickle.npz": npz({"a.npy": objects}),
        "bad_big_endian.npz": npz({"a.npy": npy(A.astype(">f4"))}),
        "bad_structured.npz": npz({"a.npy": npy(np.zeros(2, [("x", "<f4"), ("y", "<f4")]))}),
        "bad_complex.npz": npz({"a.npy": npy(A.astype("<c8"))}),
        "bad_header_code.npz": npz({"a.npy": npy_header("__import__('os').system('true')")}),
        "bad_header_long.npz": npz(
            {"a.npy": npy_header(header.ljust(70000), version=2)}, zipfile.ZIP_DEFLATED
        ),
        "bad_header_twice.npz": npz({"a.npy": npy_header(header[:-1] + "'shape': (6,)}")}),
        "bad_header_missing.npz": npz({"a.npy": npy_header("{'descr': '<f4', 'shape': (2, 3)}")}),
        "bad_shape_negative.npz": npz({"a.npy": npy_header(header.replace("(2, 3)", "(-2, -3)"))}),
        "bad_shape_huge.npz": npz({"a.npy": npy_header(header.replace("(2, 3)", f"({2**62}, 4)"))}),
        "bad_shape_short.npz": npz({"a.npy": npy_header(header.replace("(2, 3)", "(2, 2)"))}),
        "bad_version.npz": npz({"a.npy": patch(npy(), 6, b"\x09")}),
        "bad_not_npy.npz": npz({"a.npy": b"hello, world"}),
        "bad_other_member.npz": npz({"a.npy": npy(), "evil.pkl": b"\x80\x04."}),
        "bad_duplicate.npz": npz({"a.npy": npy(), "b.npy": npy()}).replace(b"b.npy", b"a.npy"),
        "bad_overlap.npz": overlapping_npz(),
        "bad_encrypted.npz": patch(good, central + 8, b"\x01"),
        "bad_method.npz": patch(patch(good, central + 10, b"\x0c"), 8, b"\x0c"),
        "bad_directory_offset.npz": patch(good, -6, struct.pack("<I", 2**31)),
        "bad_directory_count.npz": patch(good, -14, struct.pack("<HH", 9, 9)),
        "bad_local_offset.npz": patch(good, central + 42, struct.pack("<I", 2**31)),
        "bad_shape_nan.npz": npz({"a.npy": npy_header(header.replace("(2, 3)", "(nan, 3)"))}),
        "bad_shape_fraction.npz": npz({"a.npy": npy_header(header.replace("(2, 3)", "(2.0, 3)"))}),
        "bad_shape_wraps.npz": npz(
            {"a.npy": npy_header(header.replace("(2, 3)", f"({2**32}, {2**32})"), b"")}
        ),
        "bad_shape_list.npz": npz({"a.npy": npy_header(header.replace("(2, 3)", "[2, 3]"))}),
        "bad_shape_number.npz": npz({"a.npy": npy_header(header.replace("(2, 3)", "(6)"))}),
        "bad_axes.npz": npz({"a.npy": npy_header(header.replace("(2, 3)", "(1,1,1,1,1,1,1,2,3)"))}),
        "bad_order.npz": npz({"a.npy": npy_header(header.replace("False", "0"))}),
        "bad_fortran_short.npz": npz(
            {"a.npy": npy_header(header.replace("False", "True").replace("(2, 3)", "(3, 3)"))}
        ),
        "bad_header_open.npz": npz({"a.npy": npy_header(header[:-1])}),
        "bad_header_beyond.npz": npz({"a.npy": patch(npy(), 8, b"\xff\xff")}),
        "bad_header_escape.npz": npz({"a.npy": npy_header(header.replace("'<f4'", "'<f4\\x00'"))}),
        "bad_void.npz": npz({"a.npy": npy(np.zeros(3, "V4"))}),
        "bad_string.npz": npz({"a.npy": npy(np.array(["abc"]))}),
        "bad_date.npz": npz({"a.npy": npy(np.zeros(3, "<M8[s]"))}),
        "bad_empty_member.npz": npz({"a.npy": b""}),
        "bad_name_utf8.npz": good.replace(b"a.npy", b"\xff.npy"),
        "bad_name_nul.npz": good.replace(b"a.npy", b"\0.npy"),
        "bad_name_none.npz": npz({".npy": npy()}),
        "bad_comment.npz": patch(good, -2, b"\x01\0") + b"c",
        "bad_zip64_missing.npz": patch(good, central + 24, b"\xff" * 4),
        "bad_zip64_size.npz": zip64(good, 2**64 - 1, 2**64 - 1, 0),
        "bad_zip64_offset.npz": zip64(good, len(npy()), len(npy()), 2**64 - 16),
        "bad_zip64_end.npz": patch(good, -6, b"\xff" * 4),
        "bad_local_names.npz": patch(good, 26, b"\xff\xff"),
        "bad_only_end.npz": b"PK\x05\x06" + bytes(17),
        "bad_bomb_ratio.npz": deflate_bomb(2**31, 4096),
        "bad_bomb_more.npz": deflate_bomb(4096, 1 << 18),
        "bad_bomb_less.npz": deflate_bomb(1 << 16, 4096),
    }


def gzip_files() -> dict[str, bytes]:
    good = gz(record(b"a", npy()), record(b"b", npy(A.astype("<f8"))))
    data = record(b"a", npy())
    bomb = npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }", b"")
    return {
        "good.gz": good,
        "good_stored.gz": raw_gzip(b"\x01" + struct.pack("<HH", len(data), len(data) ^ 0xFFFF) + data, data),
        "good_members.gz": gz(record(b"a", npy())) + gz(record(b"b", npy())),
        "bad_truncated.gz": good[:-9],
        "bad_no_trailer.gz": good[:-4],
        "bad_checksum.gz": patch(good, -8, b"\0\0\0\0"),
        "bad_length.gz": patch(good, -4, b"\0\0\0\0"),
        "bad_trailing.gz": good + b"trailing",
        "bad_half_record.gz": gz(record(b"a", npy()), b"\x01\x00b\x93NUM"),
        "bad_half_data.gz": gz(record(b"a", npy()[:-4])),
        "bad_no_name.gz": gz(record(b"", npy())),
        "bad_long_name.gz": gz(record(b"n" * 5000, npy())),
        "bad_name_utf8.gz": gz(record(b"\xc0\x80", npy())),
        "bad_duplicate.gz": gz(data, data),
        "bad_pickle.gz": gz(record(b"a", npy(np.array([None], dtype=object)))),
        "bad_bomb.gz": gz(record(b"a", bomb + bytes(1 << 18))),
        "bad_record_header.gz": gz(record(b"a", b"\x93NUMPY\x01\0\xff\xff{}")),
        "bad_shape_wraps.gz": gz(
            record(
                b"a",
                npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**32}, {2**32})}}", b""),
            )
        ),
        "bad_name_nul.gz": gz(record(b"a\0b", npy())),
        "bad_flags.gz": patch(good, 3, b"\xe0"),
        "bad_method.gz": patch(good, 2, b"\x07"),
        "bad_extra_field.gz": patch(good, 3, b"\x04")[:12] + b"\xff\xff",
        "bad_open_name.gz": patch(good, 3, b"\x08")[:10] + b"name",
        "bad_second_member.gz": good + good[:6],
        "bad_block_type.gz": raw_gzip(b"\x07", b""),
        "bad_codes.gz": raw_gzip(b"\x05" + b"\xff" * 40, b""),
        "bad_distance.gz": raw_gzip(b"\x03\x02\x00\x00", b""),
        "bad_stored_length.gz": raw_gzip(b"\x01\x05\x00\x05\x00hello", b"hello"),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, data in (safetensors_files() | npz_files() | gzip_files()).items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
