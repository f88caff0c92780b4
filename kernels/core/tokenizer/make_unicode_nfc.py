"""Writes unicode_nfc.h: which two code points compose to one in NFC.

The normalizers of the installed tokenizers are asked about every code point, so that the table has their
version of Unicode. What decomposes, and how marks are ordered, is in unicode_bert.h; Hangul is computed.

    python kernels/core/tokenizer/make_unicode_nfc.py > kernels/core/tokenizer/unicode_nfc.h
"""

from __future__ import annotations

import tokenizers
from tokenizers.normalizers import NFC, NFD

HEAD = """\
/*
 * unicode_nfc.h -- the pairs of code points that NFC composes, as tokenizers {version} has them, in their
 * order.
 *
 * Written by make_unicode_nfc.py; do not edit. The second of a pair lies between NFC_FIRST_SECOND and
 * NFC_LAST_SECOND or from NFC_FIRST_SUPPLEMENTARY on.
 */
#ifndef LLM_UNICODE_NFC_H
#define LLM_UNICODE_NFC_H

#include <stdint.h>
"""
HANGUL = range(0xAC00, 0xD7A4)


def main() -> None:
    nfc, nfd = NFC(), NFD()
    pairs: dict[tuple[int, int], int] = {}
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000 or c in HANGUL:
            continue
        parts = nfd.normalize_str(chr(c))
        if parts == chr(c) or nfc.normalize_str(chr(c)) != chr(c):
            continue
        first = nfc.normalize_str(parts[:-1])
        assert len(first) == 1, c
        assert nfc.normalize_str(first + parts[-1]) == chr(c), c
        pairs[ord(first), ord(parts[-1])] = c
    seconds = sorted({second for _, second in pairs})
    basic = [second for second in seconds if second < 0x10000]
    print(HEAD.format(version=tokenizers.__version__))
    print(f"#define NFC_FIRST_SECOND        0x{basic[0]:x}u")
    print(f"#define NFC_LAST_SECOND         0x{basic[-1]:x}u")
    print(f"#define NFC_FIRST_SUPPLEMENTARY 0x{next(s for s in seconds if s >= 0x10000):x}u\n")
    print(f"static const struct {{ uint32_t first, second, into; }} nfc_pairs[{len(pairs)}] = {{")
    entries = [f"{{{a},{b},{c}}}" for (a, b), c in sorted(pairs.items())]
    print(",\n".join("    " + ", ".join(entries[i : i + 7]) for i in range(0, len(entries), 7)))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
