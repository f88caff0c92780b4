"""Random strings by the tokenizer of a published GGUF file, ours and Hugging Face's tokenizers side by side.

    python -m tests.hunts.smollm SmolLM2-135M-Instruct.Q4_1.gguf [--strings 200000] [--seed 0]

Needs gguf and tokenizers. Prints the strings that differ and how many were compared.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from llm_sql import bpe_files
from llm_sql.kernels import BPE, BPE_FLAGS, bpe_alphabet, bpe_alphabet_bytes

from ..reference.bpe import random_strings

CONTROL = 3
PIECES = [
    *" \n\t\r'’sStTrReElL019½٣aZéß中日あ한ﬁ.,!?/-_(){}[]<>|@#",
    "\u0301",
    "\u200d",
    "\U0001f600",
    "\u00a0",
    "\u3000",
]
PIECES += [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_",
    "the ",
    " import ",
    "    ",
    "\r\n",
    "user\n",
    "2024",
]


def strings(seed: int, count: int) -> Iterator[str]:
    numbers = random.Random(seed)
    for text in random_strings(seed, count):
        if numbers.random() < 0.5:
            yield text
        else:
            yield "".join(numbers.choices(PIECES, k=numbers.randrange(1, 40)))


def both(path: Path) -> tuple[Any, BPE]:
    """The tokenizer as the library has it (what its tokenizer.json says: Digits, ByteLevel), and as ours."""
    fields = gguf.GGUFReader(path).fields

    def read(name: str) -> Any:
        return fields[f"tokenizer.ggml.{name}"].contents()

    vocab = {token: id_ for id_, token in enumerate(read("tokens"))}
    merges = [tuple(rule.split(" ")) for rule in read("merges")]
    special = [id_ for id_, kind in enumerate(read("token_type")) if kind == CONTROL]
    contents = {id_: token for token, id_ in vocab.items()}
    theirs = tokenizers.Tokenizer(models.BPE(vocab, merges))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    theirs.decoder = decoders.ByteLevel()
    theirs.add_special_tokens([AddedToken(contents[id_], special=True) for id_ in special])
    bits = BPE_FLAGS["added"] | BPE_FLAGS["special"] | BPE_FLAGS["base"]
    settings = bpe_files.ggml_settings(read("pre"))
    chosen = {name: settings[name] for name in ("pre_tokenizer", "normalizer", "ignore_merges")}
    # It lacks the tokens of some bytes, which the library leaves out.
    chosen["drop_unknown"] = not {bpe_alphabet(bytes([byte])) for byte in range(256)} <= set(vocab)
    ours = BPE(
        [
            (id_, token.encode() if id_ in special else bpe_alphabet_bytes(token))
            for token, id_ in vocab.items()
        ],
        [(bpe_alphabet_bytes(left), bpe_alphabet_bytes(right)) for left, right in merges],
        flags=dict.fromkeys(special, bits),
        **chosen,
    )
    return theirs, ours


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--strings", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    theirs, ours = both(options.file)
    plain = tokenizers.Tokenizer.from_str(theirs.to_str())
    plain.encode_special_tokens = True
    n = bad = 0
    for text in strings(options.seed, options.strings):
        n += 1
        ids = theirs.encode(text, add_special_tokens=False).ids
        same = (
            ours.encode(text, special=True).tolist() == ids
            and ours.encode(text).tolist() == plain.encode(text, add_special_tokens=False).ids
            and ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
        )
        if not same:
            bad += 1
            print(ascii(text))
    print(f"{n} strings, seed {options.seed}: {bad} differ")
    return min(bad, 1)


if __name__ == "__main__":
    raise SystemExit(main())
