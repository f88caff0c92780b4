"""Writes bpe_vocab.json and bpe_merges.txt: a small tokenizer, learnt by Hugging Face's tokenizers.

    python tests/golden/make_bpe.py

It learns from the project's own prose, and from words in several scripts, so that merges cross bytes of a
character.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
WORDS = (
    "Größe naïve café señor Ελλάδα Москва 日本語 日本 東京 "
    "한국어 العربية 👩‍👩‍👧‍👦 👍🏽 don't we'll they've I'm it's you're he'd "
)
VOCAB = 512


def main() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prose = [
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/develop/architecture.md")
    ]
    tokenizer.train_from_iterator([*prose, WORDS * 40], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"] | {"<|endoftext|>": len(model["vocab"])}
    (HERE / "bpe_vocab.json").write_text(json.dumps(vocab) + "\n", encoding="utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (HERE / "bpe_merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")


if __name__ == "__main__":
    main()
