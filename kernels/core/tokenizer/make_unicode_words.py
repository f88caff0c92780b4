"""Writes unicode_words.h: which code points are word characters (\\w), for tokens that are single words.

Hugging Face's tokenizers ask this of the characters beside such a token, so the installed ones are asked
about every code point.

    python kernels/core/tokenizer/make_unicode_words.py > kernels/core/tokenizer/unicode_words.h
"""

from __future__ import annotations

import tokenizers

HEAD = """\
/*
 * unicode_words.h -- word characters (\\w) of Unicode, as tokenizers {version} has them.
 *
 * Written by make_unicode_words.py; do not edit. Ranges of code points, first and last, in ascending order.
 */
#ifndef LLM_UNICODE_WORDS_H
#define LLM_UNICODE_WORDS_H

#include <stdint.h>
"""


def ranges() -> list[tuple[int, int]]:
    """First and last of every run of word characters."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({}, []))
    tokenizer.add_tokens([tokenizers.AddedToken("@@", single_word=True, normalized=False)])
    found: list[tuple[int, int]] = []
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000 or tokenizer.encode(chr(c) + "@@").ids:
            continue
        if found and found[-1][1] == c - 1:
            found[-1] = (found[-1][0], c)
        else:
            found.append((c, c))
    return found


def main() -> None:
    found = [f"{{0x{first:X}, 0x{last:X}}}" for first, last in ranges()]
    print(HEAD.format(version=tokenizers.__version__))
    print(f"static const struct {{ uint32_t first, last; }} unicode_words[{len(found)}] = {{")
    print(",\n".join("    " + ", ".join(found[i : i + 5]) for i in range(0, len(found), 5)))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
