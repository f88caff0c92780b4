"""Byte pair encoding in C against tiktoken and Hugging Face's tokenizers; its parsers on damaged files."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sql.kernels import (
    BPE,
    bpe_alphabet,
    bpe_alphabet_bytes,
    bpe_pieces,
    parse_bpe_merges,
    parse_bpe_vocab,
    parse_tiktoken,
    recover_merges,
    train_bpe,
)

from ..amount import EXTENDED, extended, grows
from ..reference import bpe as reference

STRINGS = int(os.environ.get("LLM_SQL_TEST_STRINGS", "5000"))


def tokenizer(vocab: Path, merges: Path) -> BPE:
    tokens = parse_bpe_vocab(vocab.read_bytes())
    special = [id_ for id_, token in tokens if token == reference.END]
    rules = parse_bpe_merges(merges.read_bytes())
    return BPE(
        [(id_, bpe_alphabet_bytes(token)) for id_, token in tokens],
        [(bpe_alphabet_bytes(left), bpe_alphabet_bytes(right)) for left, right in rules],
        special,
    )


@functools.cache
def small() -> tuple[BPE, tiktoken.Encoding]:
    vocab = reference.GOLDEN / "bpe_vocab.json"
    return tokenizer(vocab, reference.GOLDEN / "bpe_merges.txt"), reference.tiktoken_encoding(vocab)


@pytest.fixture
def golden() -> tuple[BPE, tiktoken.Encoding]:
    return small()


@pytest.fixture
def gpt2(shared_data: Callable[[str], Path]) -> tuple[BPE, tiktoken.Encoding]:
    vocab = shared_data("gpt2/vocab.json")
    return tokenizer(vocab, shared_data("gpt2/merges.txt")), reference.tiktoken_encoding(vocab)


def check(both: tuple[BPE, tiktoken.Encoding], text: str) -> None:
    ours, theirs = both
    ids = ours.encode(text).tolist()
    assert ids == theirs.encode_ordinary(text), repr(text)
    assert ours.encode(text, special=True).tolist() == theirs.encode(text, allowed_special="all"), repr(text)
    assert ours.decode(ids) == text


@pytest.mark.parametrize("text", reference.HARD)
def test_hard_strings(golden: tuple[BPE, tiktoken.Encoding], text: str) -> None:
    for whole in (text, f"{text}{reference.END}{text}", f"{reference.END} {text} {reference.END}"):
        check(golden, whole)


def test_random_strings(golden: tuple[BPE, tiktoken.Encoding]) -> None:
    for text in reference.random_strings(1, STRINGS, nul=True):
        check(golden, text)


def test_random_strings_under_gpt2(gpt2: tuple[BPE, tiktoken.Encoding]) -> None:
    for text in (*reference.HARD, *reference.random_strings(2, STRINGS, nul=True)):
        check(gpt2, text)


def test_gpt2_ids(gpt2: tuple[BPE, tiktoken.Encoding]) -> None:
    assert gpt2[0].encode("Hello world! World").tolist() == [15496, 995, 0, 2159]
    assert gpt2[0].encode(reference.END, special=True).tolist() == [50256]


def test_hugging_face(shared_data: Callable[[str], Path], gpt2: tuple[BPE, tiktoken.Encoding]) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2TokenizerFast.from_pretrained(str(shared_data("gpt2/vocab.json").parent))
    for text in (*reference.HARD, f"a {reference.END} b", *reference.random_strings(3, STRINGS, nul=True)):
        ids = gpt2[0].encode(text, special=True).tolist()
        assert ids == theirs(text)["input_ids"], repr(text)
        assert gpt2[0].decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check(small(), text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes that are no UTF-8 survive, and the alphabet shows each of them."""
    ours = small()[0]
    ids = ours.encode(data)
    assert ours.decode_bytes(ids) == data
    assert ours.decode(ids) == data.decode("utf-8", "replace")
    assert b"".join(bpe_pieces(data)) == data
    assert bpe_alphabet_bytes(bpe_alphabet(data)) == data


@extended
def test_every_character_has_tiktokens_class() -> None:
    """Letters, numbers and white space are tiktoken's; make_unicode_classes.py follows a new Unicode."""
    probes = {r"\p{L}": "x", r"\p{N}": "1", r"\s": "\n"}
    for pattern, probe in probes.items():
        encoding = tiktoken.Encoding(
            name=pattern,
            pat_str=pattern,
            mergeable_ranks={bytes([i]): i for i in range(256)},
            special_tokens={},
        )
        characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
        theirs = set(encoding.decode(encoding.encode_ordinary("".join(characters))))
        wrong = [hex(ord(c)) for c in characters if (c in theirs) != (len(bpe_pieces(probe + c)) == 1)]
        assert wrong == []


def test_half_surrogates() -> None:
    ours = tokenizer(reference.GOLDEN / "bpe_vocab.json", reference.GOLDEN / "bpe_merges.txt")
    theirs = reference.tiktoken_encoding(reference.GOLDEN / "bpe_vocab.json")
    for text in ("\ud83d", "a\udc00b", "\ud83d\ude00"):
        assert ours.encode(text).tolist() == theirs.encode_ordinary(text)


HOSTILE = {
    "one letter": lambda n: "a" * n,
    "letters": lambda n: "".join(np.random.default_rng(0).choice(list("abcdefgh"), n)),
    "blanks": lambda n: " " * n,
    "emoji": lambda n: "😀" * (n // 4),
    "openings": lambda n: "<|" * (n // 2),
}


@grows
@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear(golden: tuple[BPE, tiktoken.Encoding], name: str) -> None:
    """Eight times a long text takes about eight times the work, not 64."""
    ours = golden[0]

    def work(n: int) -> float:
        text = HOSTILE[name](n)
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            ours.encode(text)
            best = min(best, time.thread_time() - started)
        return best

    n = 400_000 if EXTENDED else 100_000
    assert work(8 * n) < 24 * work(n)


@pytest.mark.parametrize("size", [63, 64, 65, 66, 100_000])
def test_long_words_equal_tiktokens(golden: tuple[BPE, tiktoken.Encoding], size: int) -> None:
    """On both sides of the length from which a heap merges."""
    numbers = np.random.default_rng(size)
    for alphabet in ("a", "ab", "the", "tokenizr", "é日"):
        check(golden, "".join(numbers.choice(list(alphabet), size)))


def test_training_equals_hugging_faces() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    texts = [
        (Path(__file__).parents[2] / name).read_text(encoding="utf-8") for name in ("README.md", "setup.py")
    ]
    texts.append("aaaa aaa aaaaaaa abab ababab " * 3)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=256 + 600,
        min_frequency=2,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer)
    ids = theirs.get_vocab()
    pairs = train_bpe(texts, 600)
    assert len(pairs) == 600
    alphabet = sorted(reference.byte_alphabet())
    tokens = list(alphabet)
    for left, right in pairs:
        tokens.append(tokens[left] + tokens[right])
    assert ids == {token: i for i, token in enumerate(tokens)}


def test_training_is_bounded() -> None:
    assert train_bpe([], 10) == []
    assert train_bpe(["a b c"], 10) == []
    pairs = train_bpe(["a" * 100_000] * 2, 100)
    lengths = [1] * 256
    for left, right in pairs:
        lengths.append(lengths[left] + lengths[right])
    assert max(lengths) == 1024


def test_merges_behind_a_tiktoken_file(shared_data: Callable[[str], Path]) -> None:
    vocab, merges = shared_data("gpt2/vocab.json"), shared_data("gpt2/merges.txt")
    tokens = [
        (i, bpe_alphabet_bytes(t)) for i, t in parse_bpe_vocab(vocab.read_bytes()) if t != reference.END
    ]
    rules = [
        (bpe_alphabet_bytes(left), bpe_alphabet_bytes(right))
        for left, right in parse_bpe_merges(merges.read_bytes())
    ]
    assert recover_merges(tokens) == rules


PARSERS: dict[str, Callable[[bytes], object]] = {
    "bpe_vocab": parse_bpe_vocab,
    "bpe_merges": parse_bpe_merges,
    "bpe_tiktoken": parse_tiktoken,
}


@pytest.mark.parametrize("kind", PARSERS)
def test_damaged_files(kind: str) -> None:
    files = sorted((reference.CORPUS / kind).iterdir())
    assert len(files) > 10
    for file in files:
        if file.name.startswith("good"):
            assert isinstance(PARSERS[kind](file.read_bytes()), list)
        else:
            with pytest.raises(ValueError, match=r"line [1-9]"):
                PARSERS[kind](file.read_bytes())


@pytest.mark.parametrize("kind", PARSERS)
def test_damaged_bytes(kind: str) -> None:
    """Every prefix of a good file and every byte changed: read or refused, never anything else."""
    good = (reference.CORPUS / kind / "good_small").read_bytes()
    damaged = [good[:n] for n in range(len(good))]
    damaged += [
        good[:i] + bytes([b]) + good[i + 1 :] for i in range(len(good)) for b in (0, 32, 34, 92, 128, 255)
    ]
    for contents in damaged:
        with contextlib.suppress(ValueError):
            PARSERS[kind](contents)


def test_the_encoders_corpus(golden: tuple[BPE, tiktoken.Encoding]) -> None:
    for file in (reference.CORPUS / "bpe_encode").iterdir():
        data = file.read_bytes()
        assert golden[0].decode_bytes(golden[0].encode(data)) == data


def test_version_line_and_hash_merges() -> None:
    assert parse_bpe_merges(b"#version: 0.2\n# #\n## #\n") == [("#", "#"), ("##", "#")]
    assert parse_bpe_merges(b"# #\n") == [("#", "#")]
    with pytest.raises(ValueError, match="line 2"):
        parse_bpe_merges(b"# #\n#version\n")


def test_what_is_no_tokenizer() -> None:
    with pytest.raises(ValueError, match="another stands for these bytes"):
        BPE([(0, b"a"), (1, b"a")], [])
    with pytest.raises(ValueError, match="two tokens have id 0"):
        BPE([(0, b"a"), (0, b"b")], [])
    with pytest.raises(ValueError, match="not all of it is in the vocabulary"):
        BPE([(0, b"a"), (1, b"b")], [(b"a", b"b")])
    with pytest.raises(ValueError, match="there before"):
        BPE([(0, b"a"), (1, b"aa")], [(b"a", b"a"), (b"a", b"a")])
    for bad in ((-1, b"a"), (0, b""), (0, b"a" * 1025)):
        with pytest.raises(ValueError, match="not a token"):
            BPE([bad], [])
    with pytest.raises(ValueError, match="another stands for these bytes"):
        BPE([(0, b"end"), (1, b"end")], [], [0, 1])
    with pytest.raises(ValueError, match="no token for the byte 0x62"):
        BPE([(0, b"a")], []).encode("ab")
    with pytest.raises(KeyError, match="token 5"):
        BPE([(0, b"a")], []).decode([5])
