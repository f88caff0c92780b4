"""Writes unicode_bert.h: what BERT's normalizer and pre-tokenizer know of every code point.

The result must equal Hugging Face's tokenizers, whose tables are of several versions of Unicode (white space
and lower case of Rust's, categories and decompositions of older crates), so the installed package is asked
about every code point. Canonical combining classes, which it tells only by the order it gives marks, are
those of Python's unicodedata, each of which is held against the package.

    python kernels/core/tokenizer/make_unicode_bert.py > kernels/core/tokenizer/unicode_bert.h
"""

from __future__ import annotations

import itertools
import textwrap
import unicodedata
from collections.abc import Iterable

import tokenizers
from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

PAGE = 128
OTHER, SPACE, PUNCTUATION, IDEOGRAPH, MARK, DECOMPOSES, UPPER = (1 << i for i in range(7))
HANGUL = range(0xAC00, 0xD7A4)
HEAD = """\
/*
 * unicode_bert.h -- what BERT's normalizer asks of code points, as tokenizers {version} has it.
 *
 * Written by make_unicode_bert.py; do not edit. bert_page[c / {page}] is a page of {page} code points,
 * which holds the number of each one's entry in bert_kinds: flags and canonical combining class.
 * Decompositions are complete (Hangul's, which are computed, are left out), in the order of code points.
 * Lower case, of first to last in steps: plus delta; it is that of Rust's char::to_lowercase, but for
 * U+0130, which becomes two: i and U+0307.
 */
#ifndef LLM_UNICODE_BERT_H
#define LLM_UNICODE_BERT_H

#include <stdint.h>

enum {{
    BERT_OTHER = 1,       /* removed by clean_text */
    BERT_SPACE = 2,       /* white space */
    BERT_PUNCTUATION = 4, /* a word of its own */
    BERT_IDEOGRAPH = 8,   /* gets blanks around it */
    BERT_MARK = 16,       /* an accent, removed after decomposition */
    BERT_DECOMPOSES = 32, /* found in bert_decompositions */
    BERT_UPPER = 64       /* has another lower case */
}};
"""


def code_points() -> Iterable[int]:
    return (c for c in range(0x110000) if not 0xD800 <= c < 0xE000)


def normalizer(**on: bool) -> BertNormalizer:
    off = dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False)
    return BertNormalizer(**{**off, **on})


def kind(c: int, decomposition: str) -> int:
    """The flags of a code point but UPPER."""
    character = chr(c)
    cleaned = CLEAN.normalize_str(character)
    words = [word for word, _ in SPLIT.pre_tokenize_str(f"a{character}a")]
    flags = 0 if cleaned else OTHER
    if words == ["a", "a"]:
        flags |= SPACE
    elif words == ["a", character, "a"]:
        flags |= PUNCTUATION
    else:
        assert words == [f"a{character}a"], c
    assert cleaned == ("" if flags & OTHER else " " if flags & SPACE else character), c
    spaced = IDEOGRAPHS.normalize_str(character)
    if spaced != character:
        assert spaced == f" {character} ", c
        flags |= IDEOGRAPH
    if decomposition != character:
        return flags | DECOMPOSES
    stripped = STRIP.normalize_str(character)
    assert stripped in ("", character), c
    return flags if stripped else flags | MARK


def combining_classes(decompositions: dict[int, str]) -> dict[int, int]:
    """Canonical combining classes as the package orders marks."""
    # A character for every class; of the first and the last class every version of Unicode has these.
    first, last = "\u0334", "\u0345"

    def moves(x: str) -> bool:
        """Whether it is no starter: starters stay, the others go before or behind one of the two."""
        return NFD_.normalize_str(last + x) != last + x or NFD_.normalize_str(x + first) != x + first

    known: dict[int, str] = {}
    for c in code_points():
        if unicodedata.combining(chr(c)) and c not in decompositions and moves(chr(c)):
            known.setdefault(unicodedata.combining(chr(c)), chr(c))
    order = sorted(known)
    for low, high in itertools.pairwise(order):
        assert NFD_.normalize_str(known[high] + known[low]) == known[low] + known[high], (low, high)
    found: dict[int, int] = {}
    for c in code_points():
        x = chr(c)
        if c in decompositions or c in HANGUL or not moves(x):
            continue
        class_ = unicodedata.combining(x)
        if class_ not in known or not has_class(x, class_, known, order):
            [class_] = [k for k in order if has_class(x, k, known, order)]
        found[c] = class_
    return found


def has_class(x: str, k: int, known: dict[int, str], order: list[int]) -> bool:
    i = order.index(k)
    below = [known[order[i - 1]]] if i > 0 else []
    above = [known[order[i + 1]]] if i + 1 < len(order) else []
    same = known[k]
    return (
        NFD_.normalize_str(x + same) == x + same
        and NFD_.normalize_str(same + x) == same + x
        and all(NFD_.normalize_str(x + b) == b + x for b in below)
        and all(NFD_.normalize_str(a + x) == x + a for a in above)
    )


def lower_ranges(lower: dict[int, int]) -> list[tuple[int, int, int, int]]:
    """(first, last, step, delta) of runs of code points with the same distance to their lower case."""
    ranges: list[tuple[int, int, int, int]] = []
    for c in sorted(lower):
        delta = lower[c] - c
        if ranges:
            first, last, step, distance = ranges[-1]
            if distance == delta and (c - last == step or (first == last and c - last <= 2)):
                ranges[-1] = (first, c, c - last, delta)
                continue
        ranges.append((c, c, 1, delta))
    return ranges


def rows(values: Iterable[str]) -> str:
    """Values in lines of at most 160 characters."""
    return textwrap.fill(",\n".join(values), 160, break_long_words=False, break_on_hyphens=False)


CLEAN, IDEOGRAPHS = normalizer(clean_text=True), normalizer(handle_chinese_chars=True)
STRIP, LOWER = normalizer(strip_accents=True), normalizer(lowercase=True)
SPLIT, NFD_ = BertPreTokenizer(), NFD()


def main() -> None:
    decompositions: dict[int, str] = {}
    lower: dict[int, int] = {}
    flags = {}
    for c in code_points():
        decomposed = NFD_.normalize_str(chr(c))
        if decomposed != chr(c) and c in HANGUL:
            assert decomposed == unicodedata.normalize("NFD", chr(c))
        elif decomposed != chr(c):
            decompositions[c] = decomposed
        flags[c] = kind(c, decomposed) & ~(DECOMPOSES if c in HANGUL else 0)
        lowered = LOWER.normalize_str(chr(c))
        if lowered != chr(c):
            flags[c] |= UPPER
            if c == 0x130:
                assert lowered == "i\u0307"
            else:
                [only] = lowered
                lower[c] = ord(only)
    classes = combining_classes(decompositions)
    kinds: dict[tuple[int, int], int] = {}
    numbers = bytearray()
    for c in range(0x110000):
        numbers.append(kinds.setdefault((flags.get(c, OTHER), classes.get(c, 0)), len(kinds)))
    assert len(kinds) <= 256
    pages: dict[bytes, int] = {}
    index = [pages.setdefault(bytes(numbers[i : i + PAGE]), len(pages)) for i in range(0, 0x110000, PAGE)]
    assert len(pages) <= 256
    assert all(len(to) <= 4 for to in decompositions.values())
    print(HEAD.format(version=tokenizers.__version__, page=PAGE))
    print(f"static const struct {{ uint8_t flags, class; }} bert_kinds[{len(kinds)}] = {{")
    print(rows(f"{{{f},{k}}}" for f, k in kinds) + "\n};\n")
    print(f"static const uint8_t bert_page[{len(index)}] = {{\n{rows(map(str, index))}\n}};\n")
    print(f"static const uint8_t bert_kind[{len(pages)} * {PAGE}] = {{")
    print(rows(str(kind) for page in pages for kind in page) + "\n};\n")
    print(f"static const struct {{ uint32_t from, to[4]; }} bert_decompositions[{len(decompositions)}] = {{")
    print(
        rows(f"{{{c},{{{','.join(str(ord(x)) for x in to)}}}}}" for c, to in sorted(decompositions.items()))
    )
    ranges = lower_ranges(lower)
    print(
        "};\n\nstatic const struct { uint32_t first, last, step; int32_t delta; }"
        f" bert_lower[{len(ranges)}] = {{"
    )
    print(rows(f"{{{a},{b},{s},{d}}}" for a, b, s, d in ranges) + "\n};\n\n#endif")


if __name__ == "__main__":
    main()
