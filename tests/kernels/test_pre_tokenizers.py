"""How texts are cut and normalized before merging: against the regular expressions, and Python's own NFC."""

from __future__ import annotations

import random
import unicodedata

import pytest
import regex

from llm_sql.bpe_files import PATTERNS
from llm_sql.kernels import BPE, BPE_FLAGS, PRE_TOKENIZERS, bpe_pieces, nfc

ALPHABET = [*"  \n\r\t'sStTrReEvVmMlLdD019aZz.,!/-_éß中日あ한½²Ⅷǅʰſ"]
ALPHABET += [
    "\u0301",
    "\u0300",
    "\u0345",
    "\u0327",
    "\u1100",
    "\u1161",
    "\u11a8",
    "\u00a0",
    "\u3000",
    "\u200d",
]
ALPHABET += [
    "\u212b",
    "\u2126",
    "\u0958",
    "\u09c7",
    "\u09be",
    "\ufb06",
    "\U0001f600",
    "\U000110ba",
    "\U00011099",
]
BYTES = [(i, bytes([i])) for i in range(256)]


def strings(seed: int, count: int, most: int = 24) -> list[str]:
    numbers = random.Random(seed)
    return ["".join(numbers.choices(ALPHABET, k=numbers.randrange(1, most))) for _ in range(count)]


def pieces(name: str, text: str) -> list[str]:
    if name != "smollm":
        return regex.findall(PATTERNS[name], text)
    return [p for part in regex.split(r"(\p{N})", text) for p in regex.findall(PATTERNS["gpt2"], part)]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pieces_are_those_of_the_regular_expression(name: str) -> None:
    for text in strings(PRE_TOKENIZERS.index(name), 4000):
        assert [piece.decode() for piece in bpe_pieces(text, name)] == pieces(name, text), ascii(text)


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_what_is_no_text_is_cut_nevertheless(name: str) -> None:
    numbers = random.Random(7)
    parts = [
        b"\xff",
        b"\xe0\xa0",
        b"\x80",
        b"\xf0\x9f",
        b"a",
        b" ",
        b"\n",
        b"1",
        b"'",
        b"A",
        "\u0301".encode(),
    ]
    for _ in range(2000):
        data = b"".join(numbers.choices(parts, k=numbers.randrange(1, 12)))
        found = bpe_pieces(data, name)
        assert b"".join(found) == data
        assert all(found)


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_long_runs_take_linear_time(name: str) -> None:
    for run in (" ", " \n", "A", "a", "Aa", "\u0301", "中A", "1", "!", "'", "\n ", "/"):
        assert len(b"".join(bpe_pieces(run * 200_000, name))) == len((run * 200_000).encode())


def test_a_pre_tokenizer_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"no pre-tokenizer 'x'; there are gpt2"):
        bpe_pieces("a", "x")
    with pytest.raises(ValueError, match="no normalizer 'nfkc'"):
        BPE([], [], normalizer="nfkc")


def test_nfc_of_every_character() -> None:
    """Of every one that the library knows ours agrees with: its version of Unicode is an older one."""
    for code in range(1, 0x110000):
        if not 0xD800 <= code < 0xE000 and unicodedata.ucd_3_2_0.category(chr(code)) != "Cn":
            for text in (chr(code), f"a{chr(code)}\u0301", f"{chr(code)}\u0327\u0301b"):
                assert nfc(text).decode() == unicodedata.normalize("NFC", text), ascii(text)


def test_nfc_of_strings() -> None:
    marks = ["\u0301", "\u0327", "\u0345", "\u05b4", "\u0338", "\u1161", "\u11a8", "\u3099", *"aeoéう가ᄀ"]
    numbers = random.Random(3)
    for text in [*strings(9, 3000), *("".join(numbers.choices(marks, k=60)) for _ in range(3000))]:
        assert nfc(text).decode() == unicodedata.normalize("NFC", text), ascii(text)
    assert (
        nfc("e\u0301".encode() + b"\xff\xcc" + "e\u0301".encode())
        == "é".encode() + b"\xff\xcc" + "é".encode()
    )
    assert len(nfc("\u0301" * 300_000 + "\u0316" * 300_000)) == 1_200_000


def test_normalized_added_tokens_are_found_as_they_read_then() -> None:
    flags = {256: BPE_FLAGS["added"] | BPE_FLAGS["normalized"], 257: BPE_FLAGS["added"]}
    tokens = [*BYTES, (256, "<e\u0301>".encode()), (257, "<a\u0301>".encode())]
    bpe = BPE(tokens, [], flags=flags, normalizer="nfc")
    assert bpe.encode("<é>").tolist() == bpe.encode("<e\u0301>").tolist() == [256]
    assert bpe.encode("<a\u0301>").tolist() == [257]
    assert 257 not in bpe.encode("<á>")
    assert bpe.decode([256]) == "<e\u0301>"


def test_a_piece_that_is_a_token_is_that_token() -> None:
    tokens = [*BYTES, (256, b"ab"), (257, b"abc")]
    assert BPE(tokens, [(b"a", b"b")]).encode("abc abc").tolist() == [256, 99, 32, 256, 99]
    assert BPE(tokens, [(b"a", b"b")], ignore_merges=True).encode("abc abc").tolist() == [257, 32, 256, 99]
