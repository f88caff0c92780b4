"""Byte pair encoding by tiktoken, from the same files, and strings that tokenizers get wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import tiktoken

GOLDEN = Path(__file__).parents[1] / "golden"
CORPUS = Path(__file__).parents[1] / "corpus"
END = "<|endoftext|>"
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

CONTRACTIONS = (
    "I'm don't we'll they've it's you're he'd 's 't 're 've 'm 'll 'd 'S 'LL I'M ''s 'x ' s don't'll"
)
HARD = (
    "",
    " ",
    "  ",
    "a",
    "Hello world!",
    CONTRACTIONS,
    "a  b   c\n\n\nd\t\te \n f\r\ng ",
    "   leading and trailing   ",
    "\u00a0x\u00a0\u00a0y\u3000z\u2003\u2003w\u1680q\u200b\ufeff\x85\x1c\x1d",
    "\x01\x02\x1f\x7f\x80\x9f control",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈🇩🇪🇯🇵 1️⃣",
    "\u0301\u0302 a\u0301 \u0e31\u0e31 \u20dd",
    "日本語とEnglishと한국어 العربية עברית हिन्दी ไทย",
    "123 ١٢٣ ½ Ⅷ ² 1,234.5e-6 0x1F 三",
    "ǅ ª º ʰ ʻ \u10fc\ua7f8 \U0001e5f0",
    "_foo-bar's_ (x)[y]{z} <html> && || !== ...",
    "<|endoftext|",
    "|endoftext|>",
    "a" * 65 + "b" * 64 + "c" * 63,
    "ab" * 500 + "é" * 300,
    "\U0010ffff\U000e0001\ue000\ufffd\ufffe\uffff",
)

PIECES = (
    *CONTRACTIONS.split(" "),
    *("the", "of", "Hello", "tokenizer", "über", "naïve", "Москва", "日本", "한국어", "👩‍👩‍👧", "é"),
    *("1", "23", "٣", "½", "!", "...", "_", "'", '"', "<|", "|>", "<", ">"),
    *(
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n",
        "\u00a0",
        "\u3000",
        "\u200b",
        "\x85",
        "\x01",
        "\x7f",
        "\u0301",
        "\u200d",
    ),
)


def read_vocab(path: Path) -> dict[str, int]:
    vocab: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return vocab


def byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes (Radford et al. 2019, encoder.py): others than printable from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def tiktoken_encoding(path: Path) -> tiktoken.Encoding:
    """tiktoken's tokenizer of a vocab.json, whose merged tokens have ids in the order of their ranks."""
    alphabet = byte_alphabet()
    vocab = read_vocab(path)
    return tiktoken.Encoding(
        name="reference",
        pat_str=PATTERN,
        mergeable_ranks={bytes(alphabet[c] for c in t): i for t, i in vocab.items() if t != END},
        special_tokens={END: vocab[END]},
    )


def random_strings(seed: int, count: int, *, nul: bool = False) -> Iterator[str]:
    """Strings of up to 40 characters, from all of Unicode, its begin or ASCII, or of PIECES."""
    numbers = random.Random(seed)
    low = 0 if nul else 1
    for _ in range(count):
        kind, length = numbers.randrange(4), numbers.randrange(1, 41)
        if kind == 0:
            yield "".join(numbers.choice(PIECES) for _ in range(length))
            continue
        limit = (0, 0x110000, 0x3000, 0x80)[kind]
        codes = (numbers.randrange(low, limit) for _ in range(length))
        yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)
