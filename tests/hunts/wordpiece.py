"""WordPiece against Hugging Face's tokenizers on many random strings, under every normalizer.

    python -m tests.hunts.wordpiece --strings 200000 --seed 1 [--directory MODEL]

With a directory, that of a real model with a tokenizer.json, its vocabulary and settings; else the small one
of tests/golden. Prints the first difference and ends with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_sql.kernels import BPE_FLAGS, WordPiece, bert_normalize
from llm_sql.tokenizer_files import read_directory

from ..reference import wordpiece as reference

LEFT_OUT = ("template",)


def small() -> Iterator[tuple[str, WordPiece, Any]]:
    vocab = reference.read_vocab()
    for settings in reference.combinations():
        yield str(settings), reference.ours(vocab, **settings), reference.theirs(vocab, **settings)


def of(directory: Path) -> Iterator[tuple[str, WordPiece, Any]]:
    files = read_directory(directory)
    if files is None or files.settings is None:
        raise SystemExit(f"{directory} has no WordPiece tokenizer")
    theirs = reference.local(directory / "tokenizer.json")
    flags = {
        row["id"]: sum(BPE_FLAGS.get(name, 0) for name in ("base", *row["flags"]))
        for row in files.added or []
    }
    settings = {name: value for name, value in files.settings.items() if name not in LEFT_OUT}
    tokens = [(id_, token) for token, id_ in theirs.get_vocab(with_added_tokens=True).items()]
    yield str(directory), WordPiece(tokens, flags=flags, **settings), theirs


def differs(ours: WordPiece, theirs: Any, text: str) -> str | None:
    """What is not the same for the text."""
    for special in (True, False):
        theirs.encode_special_tokens = not special
        expected = theirs.encode(text, add_special_tokens=False).ids
        found = ours.encode(text, special=special).tolist()
        if found != expected:
            return f"special {special}: {found}, theirs {expected}"
        if ours.decode(found) != theirs.decode(found, skip_special_tokens=False):
            return f"decoded: {ours.decode(found)!r}"
    normalizer = theirs.normalizer
    options = {name: getattr(normalizer, name) for name in reference.NORMALIZER}
    if bert_normalize(text, **options) != normalizer.normalize_str(text):
        return "normalized"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strings", type=int, default=200000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    pairs = list(small() if arguments.directory is None else of(arguments.directory))
    share = -(-arguments.strings // len(pairs))
    count = 0
    for number, (name, ours, theirs) in enumerate(pairs):
        for text in (*reference.HARD, *reference.random_strings(arguments.seed * 1000 + number, share)):
            difference = differs(ours, theirs, text)
            if difference is not None:
                print(f"seed {arguments.seed}, {name}, {text!r}: {difference}")
                sys.exit(1)
            count += 1
    print(f"seed {arguments.seed}: {count} strings, {len(pairs)} tokenizers, all the same")


if __name__ == "__main__":
    main()
