"""Added tokens of every combination of flags: the core finds those that Hugging Face's tokenizers find."""

from __future__ import annotations

import json
import random

import pytest

from llm_sql.kernels import BPE, BPE_FLAGS, bpe_alphabet_bytes, parse_bpe_merges

from ..reference import bpe as reference

tokenizers = pytest.importorskip("tokenizers")

VOCAB = json.loads((reference.GOLDEN / "bpe_vocab.json").read_text(encoding="utf-8"))
MERGES = (reference.GOLDEN / "bpe_merges.txt").read_bytes()
CONTENTS = [
    "<|x|>",
    "<|xx|>",
    "the",
    " the",
    "th",
    "\n",
    "  ",
    "   ",
    " ",
    "é",
    "naïve",
    "日本",
    "a\tb",
    "<",
    "x|>",
    "!!",
]
ALPHABET = [*"ab1x!_ .<\n\t", "<|x|>", "<|xx|>", "the", "  ", "é", "naïve", "日本", "|>", "中", "²"]
# A combining mark, a joiner, white space of other widths, a letter that lower case makes longer.
ALPHABET += ["\u0301", "\u200d", "\u00a0", "\u2003", "\u0085", "\u0130"]


def draw(rng: random.Random) -> list[tuple[str, dict[str, bool]]]:
    """Some added tokens with random flags."""
    names = ("special", "lstrip", "rstrip", "single_word", "normalized")
    return [(c, {n: rng.random() < 0.4 for n in names}) for c in rng.sample(CONTENTS, rng.randint(1, 8))]


def make(added: list[tuple[str, dict[str, bool]]]) -> tuple[tokenizers.Tokenizer, BPE]:
    base = {token: id_ for token, id_ in VOCAB.items() if token != reference.END}
    merges = parse_bpe_merges(MERGES)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(base, merges))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.add_tokens([tokenizers.AddedToken(c, **flags) for c, flags in added])
    tokens = [(id_, bpe_alphabet_bytes(token)) for token, id_ in base.items() if token not in dict(added)]
    flags = {}
    for content, given in added:
        id_ = theirs.token_to_id(content)
        bits = (
            {"added"}
            | {name for name, is_set in given.items() if is_set}
            | ({"base"} if content in base else set())
        )
        tokens.append((id_, content.encode()))
        flags[id_] = sum(BPE_FLAGS[name] for name in bits)
    pairs = [(bpe_alphabet_bytes(left), bpe_alphabet_bytes(right)) for left, right in merges]
    return theirs, BPE(tokens, pairs, (), flags)


@pytest.mark.parametrize("seed", range(60))
def test_they_find_the_same(seed: int) -> None:
    rng = random.Random(seed)
    added = [(c, f) for c, f in draw(rng) if c != "é"] if seed % 2 else draw(rng)
    added = [(c, f) for c, f in added if not (c in VOCAB and not c.isascii())]
    theirs, ours = make(added)
    for _ in range(200):
        text = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, 12)))
        for special in (True, False):
            theirs.encode_special_tokens = not special
            ids = ours.encode(text, special=special).tolist()
            try:
                expected = theirs.encode(text).ids
            except BaseException as error:
                # A token that strips what the one before it stripped: theirs gives up, ours leaves it out.
                if type(error).__name__ != "PanicException":
                    raise
                continue
            assert ids == expected, (added, text, special)


def test_word_characters_are_those_of_tokenizers() -> None:
    """kernels/core/tokenizer/unicode_words.h: every code point beside a token that must be a single word."""
    theirs, ours = make([("@@", {"single_word": True})])
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    end = theirs.token_to_id("@@")
    for first in range(0, len(characters), 4096):
        text = " ".join(f"{c}@@" for c in characters[first : first + 4096])
        assert ours.encode(text).tolist().count(end) == theirs.encode(text).ids.count(end), hex(
            ord(characters[first])
        )
