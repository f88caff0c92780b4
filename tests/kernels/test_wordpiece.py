"""WordPiece in C against Hugging Face's tokenizers; its parser on damaged files; hostile strings."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sql.kernels import BPE_FLAGS, WordPiece, bert_normalize, parse_wordpiece_vocab

from ..reference import wordpiece as reference

VOCAB = reference.read_vocab()


@pytest.mark.parametrize("number", range(len(reference.cases())))
def test_what_tokenizers_made_of_difficult_strings(number: int) -> None:
    given = reference.cases()[number]
    tokenizer = reference.ours(VOCAB, **given["settings"])
    assert len(given["cases"]) > 30
    for text, ids, plain, decoded in given["cases"]:
        assert tokenizer.encode(text, special=True).tolist() == ids, text
        assert tokenizer.encode(text).tolist() == plain, text
        assert tokenizer.decode(ids) == decoded, text


@functools.cache
def pair() -> tuple[WordPiece, Any]:
    return reference.ours(VOCAB), reference.theirs(VOCAB)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(reference.PIECES), max_size=20).map("".join))
def test_any_text_as_tokenizers(text: str) -> None:
    pytest.importorskip("tokenizers")
    ours, theirs = pair()
    ids = ours.encode(text).tolist()
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


def test_random_strings_as_tokenizers() -> None:
    pytest.importorskip("tokenizers")
    ours, theirs = pair()
    for text in reference.random_strings(13, 3000):
        ids = ours.encode(text).tolist()
        assert ids == theirs.encode(text).ids, text


def test_the_normalizer() -> None:
    plain = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    assert bert_normalize("A\0\ufffdé中\t", **plain) == "A\0\ufffdé中\t"
    assert bert_normalize("A\0\ufffdé中\t") == "ae 中  "
    assert bert_normalize("A\x01\u00a0B", **{**plain, "clean_text": True}) == "A B"
    assert bert_normalize("İΣςẞ", **{**plain, "lowercase": True}) == "i\u0307σςß"
    assert bert_normalize("İ", lowercase=False) == "İ"
    assert bert_normalize("İ", lowercase=False, strip_accents=True) == "I"
    # Marks that are no accents stay, in their canonical order: 216 before 224, equal ones as they were.
    assert bert_normalize("a\u302e\U0001d165\u302f") == "a\U0001d165\u302e\u302f"
    # A grapheme joiner is removed, but parts the run that is ordered.
    assert bert_normalize("a\u302e\u034f\U0001d165") == "a\u302e\U0001d165"
    assert bert_normalize("각가") == "\u1100\u1161\u11a8\u1100\u1161"
    assert bert_normalize(b"a\xff\xf0\x9f\x98b", **plain) == "a\ufffd\ufffdb"


@pytest.mark.parametrize("count", [5, 33, 100, 5000])
def test_long_runs_of_marks_are_ordered(count: int) -> None:
    """Few marks are ordered where they stand, many counted: by class, equal ones as they were."""
    marks = [("\u302e", "\U0001d165", "\u302f", "\U0001d16d")[i * i % 7 % 4] for i in range(count)]
    classes = {"\u302e": 224, "\u302f": 224, "\U0001d165": 216, "\U0001d16d": 226}
    expected = "".join(sorted(marks, key=classes.__getitem__))
    assert bert_normalize("a" + "".join(marks) + "b") == f"a{expected}b"


def test_words_and_their_parts() -> None:
    vocab = {t: i for i, t in enumerate(["[UNK]", "a", "ab", "##b", "##c", "##bcd", "!", "##"])}
    tokenizer = WordPiece([(i, t) for t, i in vocab.items()], max_input_chars_per_word=6)
    for text, expected in {
        "ab": ["ab"],
        "abc": ["ab", "##c"],
        "abcd": ["[UNK]"],  # ab takes what ##bcd would need
        "acbcd": ["a", "##c", "##bcd"],
        "b": ["[UNK]"],
        "a!b ab!": ["a", "!", "[UNK]", "ab", "!"],
        "abcccc": ["ab", "##c", "##c", "##c", "##c"],
        "abccccc": ["[UNK]"],  # seven characters
        "##b": ["[UNK]", "[UNK]", "[UNK]"],
        "": [],
        " \n": [],
    }.items():
        assert tokenizer.encode(text).tolist() == [vocab[token] for token in expected], text


def test_other_prefixes() -> None:
    tokenizer = WordPiece([(0, "?"), (1, "a"), (2, "b")], unk_token="?", continuing_subword_prefix="")
    assert tokenizer.encode("abba c").tolist() == [1, 2, 2, 1, 0]
    assert tokenizer.decode([1, 2, 2, 0]) == "abb?"
    nothing = WordPiece([(0, "?"), (1, "a")], unk_token="?", continuing_subword_prefix="@@@")
    assert nothing.encode("a aa").tolist() == [1, 0]


def test_decoding() -> None:
    tokens = ["[UNK]", "hello", "##s", ".", "'", "s", "##", "n't", "a ' b"]
    tokenizer = WordPiece(list(enumerate(tokens)))
    assert tokenizer.decode([1, 2, 3, 0]) == "hellos. [UNK]"
    assert tokenizer.decode([2, 1]) == "##s hello"
    assert tokenizer.decode([1, 7, 6, 4, 5]) == "hellon't ' s"
    assert tokenizer.decode([1, 8]) == "hello a'b"
    assert WordPiece(list(enumerate(tokens)), cleanup=False).decode([1, 2, 3]) == "hellos ."
    assert tokenizer.decode([]) == ""
    with pytest.raises(KeyError, match="token 9"):
        tokenizer.decode([9])
    with pytest.raises(KeyError, match="token -1"):
        tokenizer.decode([-1])


def test_what_is_no_tokenizer() -> None:
    with pytest.raises(ValueError, match="lacks '\\[UNK\\]'"):
        WordPiece([(0, "a")])
    with pytest.raises(ValueError, match="lacks '\\[UNK\\]'"):
        WordPiece([(0, "[UNK]"), (1, "a")], flags={0: BPE_FLAGS["added"]})  # no word of the vocabulary
    with pytest.raises(ValueError, match="another has this text"):
        WordPiece([(0, "[UNK]"), (1, "[UNK]")])
    with pytest.raises(ValueError, match="two tokens have id 0"):
        WordPiece([(0, "[UNK]"), (0, "a")])
    for token in ("", "x" * 1025):
        with pytest.raises(ValueError, match="not a token"):
            WordPiece([(0, "[UNK]"), (1, token)])
    added = BPE_FLAGS["added"] | BPE_FLAGS["normalized"]
    with pytest.raises(ValueError, match="not a token"):  # the normalizer leaves nothing of it
        WordPiece([(0, "[UNK]"), (1, "\u0301")], flags={1: added})
    assert WordPiece([(7, "[UNK]"), (2147483647, "a")]).encode("a b").tolist() == [2147483647, 7]


def test_vocab_txt() -> None:
    assert parse_wordpiece_vocab(b"[UNK]\na \n##b\r\n") == [(0, "[UNK]"), (1, "a"), (2, "##b")]
    assert parse_wordpiece_vocab("é\u3000\n中".encode()) == [(0, "é"), (1, "中")]
    assert parse_wordpiece_vocab(b"a\n\n\n \n") == [(0, "a")]
    assert parse_wordpiece_vocab(b"") == parse_wordpiece_vocab(b"\n") == []
    for contents, message in {
        b"a\n\nb": "line 2: a line without a token",
        b"a\nb\na": "line 3: a duplicate token",
        b"a\nb\nb ": "line 3: a duplicate token",
        b"a\nb\0": "line 2: a token contains U\\+0000",
        b"\xff": "line 1: a token is not UTF-8",
        b"a\n\xf0\x9f\x98\nb": "line 2: a token is not UTF-8",
        b"a\n" + b"x" * 1025: "line 2: a token is longer than 1024 bytes",
    }.items():
        with pytest.raises(ValueError, match=message):
            parse_wordpiece_vocab(contents)


HOSTILE = {
    "accents": "a" + "\u0301" * 1000,
    "marks that stay": "a" + "\u302e\U0001d165" * 500,
    "one word": "a" * 1000,
    "punctuation": "!" * 1000,
    "ideographs": "中" * 1000,
    "half a special token": "[CL" * 333,
    "syllables": "각" * 1000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_what_is_hard(name: str) -> None:
    """What takes more than linear time, for normalizer, search or parts of a word, takes hours."""
    text = HOSTILE[name] * 1000
    for longest in (100, 2**31):
        ids = reference.ours(VOCAB, max_input_chars_per_word=longest).encode(text)
        assert 0 < len(ids) <= len(text)
