"""Writes wordpiece_vocab.txt, a small vocabulary learnt by Hugging Face's tokenizers, and
wordpiece_cases.json: what they make of difficult strings with it.

    python -m tests.golden.make_wordpiece

It learns from the project's own prose, and from words in several scripts.
"""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from ..reference import bpe, wordpiece

ROOT = bpe.GOLDEN.parents[1]
WORDS = (
    "Größe naïve café señor Ελλάδα ΣΊΣΥΦΟΣ Москва 日本語 日本 東京 한국어 각 العربية हिन्दी ไทย İstanbul "
    "Model model TOKENS tokens don't we'll it's [ ] ! ? . , ' \u302e\u302e a\u0323\u0307 ẞ ﬁ e\u0301e\u0301 "
)
SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {"lowercase": False},
    {"lowercase": False, "strip_accents": True},
    {"strip_accents": False},
    {"clean_text": False, "handle_chinese_chars": False},
    {"max_input_chars_per_word": 5, "cleanup": False},
)


def learn() -> None:
    tokenizer = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=700,
        min_frequency=2,
        limit_alphabet=220,
        special_tokens=list(wordpiece.SPECIAL),
        show_progress=False,
    )
    prose = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/overview.md")]
    lower = [text.lower() for text in prose]
    tokenizer.train_from_iterator([*prose, *lower, WORDS * 40, WORDS.lower() * 40], trainer)
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=lambda token: vocab[token])
    wordpiece.VOCAB.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def main() -> None:
    learn()
    vocab = wordpiece.read_vocab()
    found = []
    for settings in SETTINGS:
        tokenizer = wordpiece.theirs(vocab, **settings)  # type: ignore[arg-type]
        cases = []
        for text in wordpiece.HARD:
            tokenizer.encode_special_tokens = False
            ids = tokenizer.encode(text).ids
            tokenizer.encode_special_tokens = True
            plain = tokenizer.encode(text).ids
            cases.append([text, ids, plain, tokenizer.decode(ids, skip_special_tokens=False)])
        found.append({"settings": settings, "cases": cases})
    wordpiece.CASES.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
