"""Directories of tokenizers, every way their files tell of added tokens, each as contents of files.

What transformers makes of them stands in golden/tokenizer_layouts.json (made by golden/make_layouts.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import bpe as reference

VOCAB: dict[str, int] = json.loads((reference.GOLDEN / "bpe_vocab.json").read_text(encoding="utf-8"))
MERGES = (reference.GOLDEN / "bpe_merges.txt").read_text(encoding="utf-8")
VOCAB_SIZE = 520
X = "<|x|>"
TEXTS = [
    "a<|x|>b <|endoftext|> the cat",
    "  <|x|>  <|y|> xyz axyzb the",
    "<|pad|>\n\nnaïve  日本<u>",
    "<|bos|> <|im_end|>",
]


def token(content: str, id: int | None = None, **flags: bool) -> dict[str, Any]:
    """An added token as tokenizers write it."""
    all_flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False) | flags
    return ({} if id is None else {"id": id}) | {"content": content} | all_flags


END = token(reference.END, 511, special=True)


def tokenizer_json(*added: dict[str, Any], pairs: bool = False, **changes: Any) -> dict[str, Any]:
    """The golden tokenizer as tokenizers write it, with these added tokens."""
    lines = MERGES.splitlines()[1:]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {t: i for t, i in VOCAB.items() if t != reference.END},
        "merges": [line.split(" ") for line in lines] if pairs else lines,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [END, *added],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    } | changes


def decoder(*added: dict[str, Any], **more: Any) -> dict[str, Any]:
    """tokenizer_config.json with these tokens as its added_tokens_decoder."""
    tokens = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in (END, *added)}
    return {"added_tokens_decoder": tokens, "tokenizer_class": "GPT2Tokenizer"} | more


def _layouts() -> dict[str, dict[str, Any]]:
    config = {"model_type": "gpt2", "vocab_size": VOCAB_SIZE}
    pair = {"config.json": config, "vocab.json": VOCAB, "merges.txt": MERGES}
    alone = {"config.json": config, "tokenizer.json": tokenizer_json()}
    x = token(X, 512, special=True)
    return {
        "a pair": pair,
        "a pair with an ordinary token that looks special": pair
        | {"vocab.json": VOCAB | {"<|bos|>": 512}, "config.json": config},
        "tokenizer.json": alone,
        "merges as pairs": alone | {"tokenizer.json": tokenizer_json(pairs=True)},
        "a pair beside a tokenizer.json that adds": pair | {"tokenizer.json": tokenizer_json(x)},
        "a pair beside a tokenizer.json of other merges": pair
        | {"tokenizer.json": tokenizer_json(model=tokenizer_json()["model"] | {"merges": []})},
        "added_tokens.json": pair | {"added_tokens.json": {X: 512, "xyz": 513}},
        "added_tokens.json with a special one": pair
        | {"added_tokens.json": {"xyz": 512}, "special_tokens_map.json": {"pad_token": "xyz"}},
        "tokenizer.json and added_tokens.json": alone | {"added_tokens.json": {X: 512}},
        "added_tokens_decoder": pair | {"tokenizer_config.json": decoder(x)},
        "added_tokens_decoder of any flags": pair
        | {
            "tokenizer_config.json": decoder(
                token(X, 512, special=True, lstrip=True, rstrip=True),
                token("xyz", 513, single_word=True),
                token("  ", 514, normalized=True),
                token("the", 515, rstrip=True),
                token("日本", 516),
            )
        },
        "added_tokens_decoder beside tokenizer.json": alone
        | {
            "tokenizer.json": tokenizer_json(token(X, 512, lstrip=True)),
            "tokenizer_config.json": decoder(x),
        },
        "special_tokens_map.json": pair
        | {
            "special_tokens_map.json": {
                "eos_token": X,
                "pad_token": token("<|pad|>", lstrip=True),
                "additional_special_tokens": ["<u>", "<|y|>"],
            }
        },
        "tokenizer_config.json's names": pair
        | {
            "tokenizer_config.json": {
                "bos_token": "<|bos|>",
                "eos_token": token(X) | {"__type": "AddedToken"},
                "tokenizer_class": "GPT2Tokenizer",
                "model_max_length": 16,
            }
        },
        "no end of text at all": pair
        | {
            "vocab.json": {t: i for t, i in VOCAB.items() if t != reference.END},
            "config.json": config | {"vocab_size": 512},
        },
        "a hole in the vocabulary": pair | {"vocab.json": VOCAB | {reference.END: 515}},
        "a hole that added tokens fill": pair
        | {"vocab.json": VOCAB | {reference.END: 515}, "added_tokens.json": {"xyz": 512}},
        "a vocabulary's token marked as added": pair
        | {"added_tokens.json": {"e": VOCAB["e"]}, "special_tokens_map.json": {"pad_token": "!"}},
        "one that takes all from tokenizer.json": alone
        | {
            "tokenizer.json": tokenizer_json(x, token("xyz", 513)),
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": X},
        },
        "padding and truncation of an earlier call": alone
        | {
            "tokenizer.json": tokenizer_json(
                truncation={
                    "direction": "Right",
                    "max_length": 3,
                    "strategy": "LongestFirst",
                    "stride": 0,
                }
            )
        },
    }


LAYOUTS = _layouts()


def write(folder: Path, layout: dict[str, Any]) -> Path:
    """The layout's files in a folder."""
    for name, contents in layout.items():
        as_text = contents if isinstance(contents, str) else json.dumps(contents)
        (folder / name).write_text(as_text, encoding="utf-8")
    return folder
