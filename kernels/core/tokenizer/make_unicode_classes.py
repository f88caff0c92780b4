"""Writes unicode_classes.h: the kinds of code points that pre-tokenizers ask about.

They must be those of the tokenizers ours agrees with: the regular expressions of the installed tiktoken are
asked about every code point, and so is the step Digits of Hugging Face's tokenizers, which knows a later
Unicode. (Python's own unicodedata may be of an older one than they are; tests/kernels/test_bpe.py holds the
table against tiktoken, tests/parity/test_bpe_kinds.py against tokenizers, whose expressions have the same
classes.)

    python kernels/core/tokenizer/make_unicode_classes.py > kernels/core/tokenizer/unicode_classes.h
"""

from __future__ import annotations

import tiktoken
import tokenizers
from tokenizers.pre_tokenizers import Digits

PAGE = 128
# In the order of enum kind in bpe_internal.h, from 1 on; what comes later wins.
KINDS = (
    r"[\p{Lm}\p{Lo}]",
    r"[\p{Lu}\p{Lt}]",
    r"\p{Ll}",
    r"\p{M}",
    r"\p{N}",
    "late",
    r"\s",
    r"[\r\n]",
    "[ ]",
    "/",
)
BYTES = {bytes([i]): i for i in range(256)}
HEAD = """\
/*
 * unicode_classes.h -- kinds of code points, as tiktoken {tiktoken} and tokenizers {tokenizers} have them.
 *
 * Written by make_unicode_classes.py; do not edit. A code point's kind is 4 bits, one of enum kind.
 * unicode_page[c / {page}] names a page of {page} code points; pages hold 2 kinds a byte, the lower code
 * point in the lower bits. From UNICODE_END on every kind is 0.
 */
#ifndef LLM_UNICODE_CLASSES_H
#define LLM_UNICODE_CLASSES_H

#include <stdint.h>

#define UNICODE_END 0x{end:X}u
"""


def code_points() -> list[int]:
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def classify() -> bytearray:
    """The kind of every code point."""
    kinds = bytearray(0x110000)
    for number, pattern in enumerate(KINDS, 1):
        if pattern == "late":
            digits = Digits(individual_digits=True)
            for c in code_points():
                if kinds[c] != number - 1 and len(digits.pre_tokenize_str(chr(c) * 2)) == 2:
                    assert kinds[c] == 0, c
                    kinds[c] = number
            continue
        encoding = tiktoken.Encoding(name=pattern, pat_str=pattern, mergeable_ranks=BYTES, special_tokens={})
        for c in code_points():
            if encoding.encode_ordinary(chr(c)):
                kinds[c] = number
    return kinds


def rows(values: list[str], per_row: int) -> str:
    return ",\n".join("    " + ", ".join(values[i : i + per_row]) for i in range(0, len(values), per_row))


def main() -> None:
    kinds = classify()
    end = (len(kinds.rstrip(b"\0")) + PAGE - 1) // PAGE * PAGE
    pages: dict[bytes, int] = {}
    index = []
    for start in range(0, end, PAGE):
        page = kinds[start : start + PAGE]
        packed = bytes(page[i] | page[i + 1] << 4 for i in range(0, PAGE, 2))
        index.append(pages.setdefault(packed, len(pages)))
    assert len(pages) <= 256, len(pages)
    print(HEAD.format(tiktoken=tiktoken.__version__, tokenizers=tokenizers.__version__, page=PAGE, end=end))
    print(f"static const uint8_t unicode_page[{len(index)}] = {{\n{rows([str(i) for i in index], 27)}\n}};\n")
    print(f"static const uint8_t unicode_kind[{len(pages)}][{PAGE // 2}] = {{")
    print(",\n".join("    {" + ",".join(str(b) for b in page) + "}" for page in pages))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
