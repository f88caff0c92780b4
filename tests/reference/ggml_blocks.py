"""ggml's quantized blocks, taken apart number by number as ggml-quants.c has it, in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

BLOCKS = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
"""Numbers and bytes of a block."""
SCALES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where float16 scales stand in it; elsewhere at the beginning."""

F = np.float32


def half(block: bytes, at: int) -> np.float32:
    return F(np.frombuffer(block[at : at + 2], "<f2")[0])


def signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def q4_0(b: bytes) -> Iterator[np.float32]:
    for i in range(32):
        yield half(b, 0) * F((b[2 + i % 16] >> 4 * (i // 16) & 15) - 8)


def q4_1(b: bytes) -> Iterator[np.float32]:
    for i in range(32):
        yield half(b, 0) * F(b[4 + i % 16] >> 4 * (i // 16) & 15) + half(b, 2)


def q5_0(b: bytes) -> Iterator[np.float32]:
    high = int.from_bytes(b[2:6], "little")
    for i in range(32):
        yield half(b, 0) * F((b[6 + i % 16] >> 4 * (i // 16) & 15 | (high >> i & 1) << 4) - 16)


def q5_1(b: bytes) -> Iterator[np.float32]:
    high = int.from_bytes(b[4:8], "little")
    for i in range(32):
        yield half(b, 0) * F(b[8 + i % 16] >> 4 * (i // 16) & 15 | (high >> i & 1) << 4) + half(b, 2)


def q8_0(b: bytes) -> Iterator[np.float32]:
    for i in range(32):
        yield half(b, 0) * F(signed(b[2 + i]))


def six_bits(b: bytes, j: int) -> tuple[int, int]:
    """get_scale_min_k4: scale and minimum of the block's part j."""
    s = b[4:16]
    if j < 4:
        return s[j] & 63, s[j + 4] & 63
    return s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4


def q4_k(b: bytes) -> Iterator[np.float32]:
    for i in range(256):
        j = i // 32
        scale, least = six_bits(b, j)
        q = b[16 + j // 2 * 32 + i % 32] >> 4 * (j % 2) & 15
        yield half(b, 0) * F(scale) * F(q) - half(b, 2) * F(least)


def q5_k(b: bytes) -> Iterator[np.float32]:
    for i in range(256):
        j = i // 32
        scale, least = six_bits(b, j)
        q = b[48 + j // 2 * 32 + i % 32] >> 4 * (j % 2) & 15 | (b[16 + i % 32] >> j & 1) << 4
        yield half(b, 0) * F(scale) * F(q) - half(b, 2) * F(least)


def q6_k(b: bytes) -> Iterator[np.float32]:
    for i in range(256):
        n, part, low = i // 128, i // 32 % 4, i % 32
        q = b[n * 64 + part % 2 * 32 + low] >> 4 * (part // 2) & 15
        q |= (b[128 + n * 32 + low] >> 2 * part & 3) << 4
        yield half(b, 208) * F(signed(b[192 + i // 16])) * F(q - 32)


TAKEN_APART: dict[str, Callable[[bytes], Iterator[np.float32]]] = {
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "Q8_0": q8_0,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
}
