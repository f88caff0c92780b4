"""Writes unicode_classes.h: which code points are letters (\\p{L}), numbers (\\p{N}) and white space (\\s).

GPT-2's pre-tokenizer asks for these classes, so they must be those of the tokenizers ours agrees with: the
regular expressions of the installed tiktoken are asked about every code point. (Python's own unicodedata
may be of an older Unicode than they are; tests/kernels/test_bpe.py holds the table against tiktoken.)

    python kernels/core/tokenizer/make_unicode_classes.py > kernels/core/tokenizer/unicode_classes.h
"""

from __future__ import annotations

import tiktoken

PAGE = 128
CLASSES = {1: r"\p{L}", 2: r"\p{N}", 3: r"\s"}
BYTES = {bytes([i]): i for i in range(256)}
HEAD = """\
/*
 * unicode_classes.h -- letters, numbers and white space of Unicode, as tiktoken {version} has them.
 *
 * Written by make_unicode_classes.py; do not edit. A code point's class is 2 bits: 0 other, 1 letter
 * (\\p{{L}}), 2 number (\\p{{N}}), 3 white space (\\s). unicode_page[c / {page}] names a page of {page} code
 * points; pages hold 4 classes a byte, the lowest code point in the lowest bits. From UNICODE_END on every
 * class is 0.
 */
#ifndef LLM_UNICODE_CLASSES_H
#define LLM_UNICODE_CLASSES_H

#include <stdint.h>

#define UNICODE_END 0x{end:X}u
"""


def code_points() -> list[int]:
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def classify() -> bytearray:
    """The class of every code point."""
    classes = bytearray(0x110000)
    for number, pattern in CLASSES.items():
        encoding = tiktoken.Encoding(name=pattern, pat_str=pattern, mergeable_ranks=BYTES, special_tokens={})
        for c in code_points():
            if encoding.encode_ordinary(chr(c)):
                classes[c] = number
    return classes


def rows(values: list[str], per_row: int) -> str:
    return ",\n".join("    " + ", ".join(values[i : i + per_row]) for i in range(0, len(values), per_row))


def main() -> None:
    classes = classify()
    end = (len(classes.rstrip(b"\0")) + PAGE - 1) // PAGE * PAGE
    pages: dict[bytes, int] = {}
    index = []
    for start in range(0, end, PAGE):
        page = classes[start : start + PAGE]
        packed = bytes(sum(page[i + k] << 2 * k for k in range(4)) for i in range(0, PAGE, 4))
        index.append(pages.setdefault(packed, len(pages)))
    assert len(pages) <= 256
    print(HEAD.format(version=tiktoken.__version__, page=PAGE, end=end))
    print(f"static const uint8_t unicode_page[{len(index)}] = {{\n{rows([str(i) for i in index], 27)}\n}};\n")
    print(f"static const uint8_t unicode_class[{len(pages)}][{PAGE // 4}] = {{")
    print(",\n".join("    {" + ",".join(str(b) for b in page) + "}" for page in pages))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
