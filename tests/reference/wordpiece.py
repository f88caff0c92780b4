"""WordPiece by Hugging Face's tokenizers, where they are installed, and strings that tokenizers get wrong."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_sql.kernels import BPE_FLAGS, WordPiece

from . import bpe

if TYPE_CHECKING:
    import tokenizers

VOCAB = bpe.GOLDEN / "wordpiece_vocab.txt"
CASES = bpe.GOLDEN / "wordpiece_cases.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NORMALIZER = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")

HARD = (
    *bpe.HARD,
    "[CLS] typed by a user [SEP]",
    "[CLS][SEP][MASK] [UNK][PAD]x[cls] [ CLS ]",
    "x" * 100 + " " + "y" * 101 + " " + "é" * 100 + " " + "e\u0301" * 100 + " " + "中" * 101,
    "İstanbul I\u0307 i\u0307 ΣΊΣΥΦΟΣ ς ẞ ﬁ Ǆǅǆ ſ K Å",
    "각 가 \u1100\u1161\u11a8 \uac00\u11a8 \u1100\u1100\u1161",
    "a\u0323\u0307 a\u0307\u0323 \u1e69 \u1e9b\u0323 q\u0307\u0323 \u0344 \u0340\u0345",
    "\u302e\U0001d165\u302e \U0001d15e \U0001d160 \U00016ff0 a\u034f\u0301 \u0e33\u0e49",
    "神社神社 \u2f80 \U0002f800 \U0002b740\U0002b820\U0002b920 ㌀ 々〇ー ｶﾞ",
    "\u00a0\u3000\u2028\u2029\u0085\u180e\u200b\u202f\u205f tab\tnew\nline\rreturn\x0b\x0c",
    "\ufffd\u0000x\u00ad\u200e\ufeff\U000e0001 \ufdd0\uffff\U0010ffff \ue000 \u0378 \U0001fc00",
    "hello-world it's $5 ^a `b` ~c |d| <e> +1 =2 ¡¿§¶«» … – — ‘’“” 。、！？ ⸺ 𑁍 𖬷",
    "##ing ##a a##b ### #",
    "👩‍👩‍👧‍👦🏳️‍🌈 \u20dd1️⃣",
    "   ",
    "\u0301",
    "\u0301 \u0301a",
)
MARKS = tuple(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and unicodedata.combining(chr(c)))
PIECES = (
    *bpe.PIECES,
    *SPECIAL,
    *("[CLS", "SEP]", "##", "##ing", "ing", "tokens", "model", "Model", "İ", "Σ", "ς", "ẞ", "ﬁ", "中", "国"),
    *("한글", "각", "\u1100", "\u1161", "\u11a8", "\u302e", "\U0001d165", "\ufffd", "\0", "神", "\u0345"),
)


def read_vocab() -> dict[str, int]:
    return {token: id_ for id_, token in enumerate(VOCAB.read_text(encoding="utf-8").splitlines())}


def random_strings(seed: int, count: int) -> Iterator[str]:
    """Strings of up to 40 characters: of bpe.random_strings' kinds, of PIECES, of combining marks."""
    numbers = random.Random(seed)
    plain = bpe.random_strings(seed, count, nul=True)
    for text in plain:
        kind = numbers.randrange(4)
        if kind == 0:
            yield "".join(numbers.choice(PIECES) for _ in range(numbers.randrange(1, 30)))
        elif kind == 1:
            yield "".join(
                numbers.choice(MARKS) if numbers.random() < 0.7 else numbers.choice(PIECES)
                for _ in range(numbers.randrange(1, 30))
            )
        else:
            yield text


def flags(names: Sequence[str]) -> int:
    return sum(BPE_FLAGS[name] for name in names)


def ours(vocab: dict[str, int], special: Sequence[str] = SPECIAL, **settings: Any) -> WordPiece:
    """Our tokenizer, with these of its tokens special."""
    bits = flags(("added", "base", "special"))
    return WordPiece(
        [(id_, token) for token, id_ in vocab.items()],
        flags={vocab[token]: bits for token in special},
        **settings,
    )


def theirs(
    vocab: dict[str, int],
    special: Sequence[str] = SPECIAL,
    *,
    unk_token: str = "[UNK]",
    continuing_subword_prefix: str = "##",
    max_input_chars_per_word: int = 100,
    cleanup: bool = True,
    **normalizer: Any,
) -> tokenizers.Tokenizer:
    """The same tokenizer of Hugging Face's."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            vocab,
            unk_token=unk_token,
            continuing_subword_prefix=continuing_subword_prefix,
            max_input_chars_per_word=max_input_chars_per_word,
        )
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece(prefix=continuing_subword_prefix, cleanup=cleanup)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def cases() -> list[dict[str, Any]]:
    """What tokenizers made of HARD under several settings: tests/golden/make_wordpiece.py."""
    found: list[dict[str, Any]] = json.loads(CASES.read_text(encoding="utf-8"))
    return found


def combinations() -> Iterator[dict[str, Any]]:
    """Every normalizer."""
    for bits in range(8):
        for strip_accents in (None, True, False):
            yield {
                "clean_text": bool(bits & 1),
                "handle_chinese_chars": bool(bits & 2),
                "lowercase": bool(bits & 4),
                "strip_accents": strip_accents,
            }


def local(path: Path) -> tokenizers.Tokenizer:
    """A tokenizer.json, without what it says of truncation and padding."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
