"""WordPiece and Hugging Face's tokenizers: 20,000 strings, every code point and normalizer, added tokens."""

from __future__ import annotations

import os
import random

import pytest

from llm_sql.kernels import BPE_FLAGS, WordPiece, bert_normalize

from ..reference import wordpiece as reference

tokenizers = pytest.importorskip("tokenizers")

STRINGS = int(os.environ.get("LLM_SQL_TEST_STRINGS", "20000"))
VOCAB = reference.read_vocab()
CONTENTS = [
    *(
        "[CLS]",
        "[SEP]",
        "[C",
        "S]",
        "<x>",
        "<X>",
        "<xx>",
        "<É>",
        "<e>",
        "the",
        "The",
        "th",
        "中",
        "a 中",
        " b",
    ),
    *("Ab c", "\u00a0", "  ", "e\u0301", "##s", "!", "İ", "각"),
]
ALPHABET = [
    *"ab1x!_ .<[]>\n\t",
    *CONTENTS,
    "é",
    "İ",
    "\u0301",
    "\u200d",
    "\u00a0",
    "\u3000",
    "國",
    "\0",
    "[CLS",
]


def test_random_strings() -> None:
    for number, settings in enumerate(
        [
            {},
            {"lowercase": False},
            {"clean_text": False, "strip_accents": False, "handle_chinese_chars": False},
        ]
    ):
        ours, theirs = reference.ours(VOCAB, **settings), reference.theirs(VOCAB, **settings)
        for text in reference.random_strings(31 + number, STRINGS // 3):
            ids = theirs.encode(text).ids
            assert ours.encode(text, special=True).tolist() == ids, (settings, text)
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), (settings, text)


def test_every_code_point() -> None:
    """kernels/core/tokenizer/unicode_bert.h: alone, within a word, and among marks of all classes."""
    ours, theirs = reference.ours(VOCAB), reference.theirs(VOCAB)
    options = [
        {"lowercase": False, "strip_accents": True, "clean_text": False},
        {"lowercase": True, "strip_accents": False, "clean_text": False},
    ]
    normalizers = [(kinds, tokenizers.normalizers.BertNormalizer(**kinds)) for kinds in options]
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for first in range(0, len(characters), 1024):
        text = "".join(
            f"a{c}b\u0334{c}\u0323\u302e\U0001d165{c}\u0345 " for c in characters[first : first + 1024]
        )
        found = ours.encode(text, special=True).tolist()
        assert found == theirs.encode(text).ids, hex(ord(characters[first]))
        for kinds, normalizer in normalizers:
            assert bert_normalize(text, **kinds) == normalizer.normalize_str(text), (kinds, first)


@pytest.mark.parametrize("number", range(len(list(reference.combinations()))))
def test_normalizers(number: int) -> None:
    kinds = list(reference.combinations())[number]
    normalizer = tokenizers.normalizers.BertNormalizer(**kinds)
    for text in (*reference.HARD, *reference.random_strings(100 + number, 500)):
        assert bert_normalize(text, **kinds) == normalizer.normalize_str(text), text


def draw(numbers: random.Random) -> list[tuple[str, dict[str, bool]]]:
    """Some added tokens with random flags, but no normalized ones that read alike: theirs finds any."""
    names = ("special", "lstrip", "rstrip", "single_word", "normalized")
    drawn = [(c, {n: numbers.random() < 0.4 for n in names}) for c in numbers.sample(CONTENTS, 8)]
    alike = {bert_normalize(c): c for c, flags in drawn if flags["normalized"]}
    return [(c, flags) for c, flags in drawn if not flags["normalized"] or c in alike.values()]


@pytest.mark.parametrize("seed", range(60))
def test_added_tokens(seed: int) -> None:
    numbers = random.Random(seed)
    settings = [{}, {"lowercase": False}, {"strip_accents": False, "clean_text": False}][seed % 3]
    added = draw(numbers)
    theirs = reference.theirs(VOCAB, (), **settings)
    theirs.add_tokens([tokenizers.AddedToken(c, **flags) for c, flags in added])
    tokens, flags = [], {}
    for content, given in added:
        id_ = theirs.token_to_id(content)
        names = [
            "added",
            *(n for n, is_set in given.items() if is_set),
            *(["base"] if content in VOCAB else []),
        ]
        flags[id_] = sum(BPE_FLAGS[name] for name in names)
        tokens.append((id_, content))
    tokens += [(id_, token) for token, id_ in VOCAB.items() if id_ not in flags]
    try:
        ours = WordPiece(tokens, flags=flags, **settings)
    except ValueError:
        # Theirs finds what the normalizer leaves nothing of between all characters; ours refuses it.
        assert any(given["normalized"] and not bert_normalize(c, **settings) for c, given in added)
        return
    for _ in range(300):
        text = "".join(numbers.choice(ALPHABET) for _ in range(numbers.randint(0, 12)))
        for special in (True, False):
            theirs.encode_special_tokens = not special
            try:
                expected = theirs.encode(text).ids
            except BaseException as error:
                # A token that strips what the one before it stripped: theirs gives up, ours leaves it out.
                if type(error).__name__ != "PanicException":
                    raise
                continue
            assert ours.encode(text, special=special).tolist() == expected, (added, text, special)
