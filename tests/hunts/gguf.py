"""GGUF files with damaged and hostile headers: each is read, or refused by an error that names the file.

    python -m tests.hunts.gguf --minutes 30 --seed 1

Files of every architecture and kind of tokenizer are changed as structures (keys, types, counts, shapes,
places) and as bytes. What else is raised, what takes seconds or more memory than --memory ends the hunt
with 1 and leaves the file.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from llm_sql import importing
from llm_sql.errors import LLMSQLError
from llm_sql.gguf_files import GGUF

from ..support import gguf_models

SECONDS = 5.0
NUMBERS = (0, 1, 2, 3, 7, 8, 9, 31, 32, 255, 256, 65535, 65536, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40)
NUMBERS += ((1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("nan"), float("inf"), -float("inf"))
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}


@dataclass
class File:
    """A file as a structure: keys with their values in bytes, tensors, and the bytes of these."""

    keys: list[tuple[bytes, int, bytes]]
    tensors: list[tuple[bytes, list[int], int, int]]
    data: bytes
    version: int = 3
    counts: dict[str, int] = field(default_factory=dict)

    def bytes(self) -> bytes:
        n_tensors = self.counts.get("tensors", len(self.tensors))
        n_keys = self.counts.get("keys", len(self.keys))
        out = bytearray(struct.pack("<4sIQQ", b"GGUF", self.version, n_tensors, n_keys))
        for name, type_, value in self.keys:
            out += struct.pack("<Q", len(name)) + name + struct.pack("<I", type_) + value
        for name, dims, type_, offset in self.tensors:
            out += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
            out += struct.pack("<IQ", type_, offset)
        return bytes(out) + bytes(-len(out) % 32) + self.data


def parsed(contents: bytes) -> File:
    """A sound file."""
    at = 8

    def take(form: str) -> int:
        nonlocal at
        [value] = struct.unpack_from(form, contents, at)
        at += struct.calcsize(form)
        return int(value) if form not in ("<f", "<d") else 0

    def text() -> bytes:
        nonlocal at
        n = take("<Q")
        at += n
        return contents[at - n : at]

    n_tensors, n_keys = take("<Q"), take("<Q")
    keys, tensors = [], []
    for _ in range(n_keys):
        name, type_, begin = text(), take("<I"), at
        if type_ == 8:
            text()
        elif type_ == 9:
            of, n = take("<I"), take("<Q")
            for _ in range(n):
                text() if of == 8 else take(SCALARS[of])
        else:
            take(SCALARS[type_])
        keys.append((name, type_, contents[begin:at]))
    for _ in range(n_tensors):
        name = text()
        dims = [take("<Q") for _ in range(take("<I"))]
        tensors.append((name, dims, take("<I"), take("<Q")))
    return File(keys, tensors, contents[-(-at // 32) * 32 :])


def pieces() -> dict[str, object]:
    """A small SentencePiece."""
    words = ["<unk>", "<s>", "</s>", "<0x0A>", *"▁abcdeh", "▁a", "ab", "▁ab", "he", "<|im_end|>"]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(words))],
        "tokenizer.ggml.token_type": [2, 3, 3, 6, *[1] * (len(words) - 5), 3],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    }


def bytes_(pre: str) -> dict[str, object]:
    """A small byte-level BPE."""
    words = [*"abcdehĠ", "Ġa", "ab", "Ġab", "<|endoftext|>", "<think>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [*[1] * 10, 3, 4],
        "tokenizer.ggml.merges": ["Ġ a", "a b", "Ġa b"],
        "tokenizer.ggml.eos_token_id": 10,
        "tokenizer.chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
    }


def sound(folder: Path) -> list[File]:
    tokenizers = {
        "llama": pieces(),
        "qwen2": bytes_("qwen2"),
        "qwen3": bytes_("llama-bpe"),
        "gptneox": bytes_("olmo"),
        "gpt2": bytes_("gpt-2"),
    }
    found = []
    for elements in ("F32", "BF16", "Q8_0", "Q4_1"):
        for arch, tokenizer in tokenizers.items():
            path = gguf_models.write(folder / "sound.gguf", arch, more=tokenizer, elements=elements)
            found.append(parsed(path.read_bytes()))
            path.unlink()
    return found


def changed(sounds: list[File], rng: random.Random) -> bytes:
    file = rng.choice(sounds)
    file = File(list(file.keys), list(file.tensors), file.data)
    if rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _change(file, rng, sounds)
    contents = bytearray(file.bytes())
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 1, 2, 8))):
            _damage(contents, rng)
    if rng.random() < 0.1:
        del contents[rng.randrange(len(contents)) :]
    return bytes(contents)


def _value(rng: random.Random) -> tuple[int, bytes]:
    """A type, and a value that is perhaps of it."""
    type_ = rng.choice([*SCALARS, 8, 9, 13])
    if type_ in (6, 12):
        return type_, struct.pack(SCALARS[type_], rng.choice(FLOATS))
    if type_ in SCALARS:
        width = struct.calcsize(SCALARS[type_])
        return type_, (rng.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, "little")
    if type_ == 8:
        text = rng.choice((b"", b"llama", b"\xff", b"\0", "é▁".encode(), b"x" * 70000))
        return type_, struct.pack("<Q", rng.choice((len(text), len(text), rng.choice(NUMBERS)))) + text
    of, n = rng.choice([*SCALARS, 8, 9]), rng.choice((0, 1, 3, 12, 100, rng.choice(NUMBERS)))
    filler = struct.pack("<Q", 1) + b"a" if of == 8 else bytes(struct.calcsize(SCALARS.get(of, "<I")))
    return type_, struct.pack("<IQ", of, n) + filler * min(n, 200)


def _change(file: File, rng: random.Random, sounds: list[File]) -> None:
    kind = rng.randrange(13)
    key = rng.randrange(len(file.keys)) if file.keys else 0
    tensor = rng.randrange(len(file.tensors)) if file.tensors else 0
    if kind < 5 and file.keys:
        name, type_, value = file.keys[key]
        other = rng.choice(rng.choice(sounds).keys)
        file.keys[key : key + 1] = [
            [(name, rng.randrange(14), value)],
            [(name, *_value(rng))],
            [],
            [(name, type_, value), (rng.choice((name, other[0])), *_value(rng))],
            [(name, *other[1:])],
        ][kind]
    elif kind < 10 and file.tensors:
        name, dims, type_, offset = file.tensors[tensor]
        dims = list(dims)
        if kind == 5:
            dims = [rng.choice((n, rng.choice(NUMBERS))) for n in dims]
        elif kind == 6:
            dims = [rng.choice(NUMBERS) for _ in range(rng.randrange(7))]
        elif kind == 7:
            type_ = rng.choice((rng.randrange(45), rng.choice(NUMBERS) % (1 << 32)))
        elif kind == 8:
            offset = rng.choice((rng.choice(NUMBERS), rng.randrange(0, 1 << 16, 32)))
        else:
            name = rng.choice(
                (b"", b"output.weight", b"\xff", b"rope_freqs.weight", file.tensors[0][0], b"x" * 999)
            )
        file.tensors[tensor] = (name, dims, type_, offset)
    elif kind == 10 and file.tensors:
        rng.choice((file.tensors.pop, lambda i: file.tensors.append(file.tensors[i])))(tensor)
    elif kind == 11:
        file.counts[rng.choice(("keys", "tensors"))] = rng.choice(NUMBERS)
    else:
        file.version = rng.choice((0, 1, 2, 3, 4, 3 << 24, (1 << 32) - 1))


def _damage(contents: bytearray, rng: random.Random) -> None:
    # Nearly all of a small file's interest lies in its first bytes.
    at = rng.randrange(min(len(contents), rng.choice((64, 2000, 8000, 1 << 20))))
    kind = rng.randrange(5)
    if kind == 0:
        contents[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        contents[at : at + 4] = (rng.choice(NUMBERS) % (1 << 32)).to_bytes(4, "little")
    elif kind == 2:
        contents[at : at + 8] = rng.choice(NUMBERS).to_bytes(8, "little")
    elif kind == 3:
        del contents[at : at + rng.choice((1, 4, 8, 100))]
    else:
        contents[at:at] = rng.randbytes(rng.choice((1, 4, 8, 100)))


def outcome(path: Path) -> str:
    """'read' or 'refused'; raises what nothing should."""
    try:
        file = GGUF(path)
        with closing(file.tensors) as source:
            for name, _, shape in source.tensors:
                whole = source.read(name)
                assert whole.shape == shape
                assert (source.read(name, shape[0] - 1, 1).view("u4") == whole[-1:].view("u4")).all()
        importing.read(path)
    except LLMSQLError as error:
        message = error.message
    else:
        return "read"
    assert path.name in message, message
    assert len(message) < 4000, message
    return "refused"


def attack(folder: Path, sounds: list[File], seed: int) -> str:
    """One file."""
    path = folder / "m.gguf"
    path.write_bytes(changed(sounds, random.Random(seed)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin = time.process_time()
        found = outcome(path)
        spent = time.process_time() - begin
    assert spent < SECONDS, f"{spent:.1f} s"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--memory", type=int, default=1024, help="MB of address space beyond what it starts with"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llm-sql-gguf-") as name:
        folder = Path(name)
        sounds = sound(folder)
        for file in sounds:  # the library is imported, too
            (folder / "m.gguf").write_bytes(file.bytes())
            outcome(folder / "m.gguf")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (arguments.memory << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        count: Counter[str] = Counter()
        end = time.monotonic() + 60 * arguments.minutes
        while time.monotonic() < end:
            seed = arguments.seed * 1_000_000_000 + count.total()
            try:
                count[attack(folder, sounds, seed)] += 1
            except BaseException as error:
                left = Path(tempfile.gettempdir()) / f"llm-sql-gguf-{seed}.gguf"
                left.write_bytes((folder / "m.gguf").read_bytes())
                print(f"seed {seed}: {type(error).__name__}: {error}; the file: {left}", flush=True)
                raise
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"seed {arguments.seed}: {count.total()} files, {dict(count)}, at most {peak} MB")


if __name__ == "__main__":
    sys.exit(main())
