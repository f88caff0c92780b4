"""tokenizer.json as Hugging Face's tokenizers write it: its parts, by the settings that llm_tokenizer has.

What bpe_files.py, sentencepiece_files.py and wordpiece_files.py read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llm_sql import bpe_files
from llm_sql.added_tokens import FLAGS

Json = dict[str, Any]

MARK = "\u2581"
"""What SentencePiece has for a blank."""

BYTE_LEVEL: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
TO_MARK: Json = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
PREPEND: Json = {"type": "Prepend", "prepend": MARK}
STRIP: Json = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
PIECES: tuple[Json, ...] = (
    {"type": "Replace", "pattern": {"String": MARK}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
)
"""The decoder of SentencePiece's BPE."""


def added(id_: int, content: str, flags: Collection[str]) -> Json:
    """An added token."""
    return {"id": id_, "content": content, **{flag: flag in flags for flag in sorted(FLAGS)}}


def template(
    prefix: Sequence[int], suffix: Sequence[int], texts: Mapping[int, str], *, again: bool = True
) -> Json | None:
    """What puts tokens around a text, and around the second of a pair; again: those before it, too."""
    if not prefix and not suffix:
        return None

    def pieces(ids: Sequence[int], type_id: int) -> list[Json]:
        return [{"SpecialToken": {"id": texts[id_], "type_id": type_id}} for id_ in ids]

    def sequence(name: str, type_id: int) -> Json:
        return {"Sequence": {"id": name, "type_id": type_id}}

    alone = [*pieces(prefix, 0), sequence("A", 0), *pieces(suffix, 0)]
    second = [*(pieces(prefix, 1) if again else []), sequence("B", 1), *pieces(suffix, 1)]
    return {
        "type": "TemplateProcessing",
        "single": alone,
        "pair": [*alone, *second],
        "special_tokens": {
            texts[id_]: {"id": texts[id_], "ids": [id_], "tokens": [texts[id_]]} for id_ in [*prefix, *suffix]
        },
    }


def byte_level(settings: Mapping[str, Any], vocab: Mapping[str, int], merges: Sequence[Any]) -> Json:
    """Byte-level BPE, with `pre_tokenizer`, `normalizer` and `ignore_merges` of the settings."""
    return {
        "normalizer": {"type": "NFC"} if settings["normalizer"] == "nfc" else None,
        "pre_tokenizer": _cut(settings["pre_tokenizer"]),
        "post_processor": BYTE_LEVEL,
        "decoder": BYTE_LEVEL,
        "model": _bpe(vocab, merges, ignore_merges=settings["ignore_merges"]),
    }


def _cut(name: str) -> Json:
    """What cuts texts into pieces."""
    if name == "gpt2":
        return BYTE_LEVEL
    if name == "smollm":
        before: Json = {"type": "Digits", "individual_digits": True}
    else:
        pattern = {"Regex": bpe_files.PATTERNS[name]}
        before = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [before, BYTE_LEVEL | {"use_regex": name == "smollm"}]}


def sentencepiece(
    settings: Mapping[str, Any], vocab: Mapping[str, int], merges: Sequence[Any], unknown: str | None
) -> Json:
    """SentencePiece's BPE, with `prefix_space`, `split` and `strip` of the settings."""
    prepends = settings["prefix_space"] == "prepend"
    metaspace = {
        "type": "Metaspace",
        "replacement": MARK,
        "prepend_scheme": settings["prefix_space"],
        "split": settings["split"],
    }
    return {
        "normalizer": {"type": "Sequence", "normalizers": [PREPEND, TO_MARK]} if prepends else None,
        "pre_tokenizer": None if prepends else metaspace,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [*PIECES, *([STRIP] if settings["strip"] else [])]},
        "model": _bpe(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True),
    }


def _bpe(vocab: Mapping[str, int], merges: Sequence[Any], **more: Any) -> Json:
    plain: Json = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return {**plain, **more, "vocab": dict(vocab), "merges": list(merges)}


def wordpiece(settings: Mapping[str, Any], vocab: Mapping[str, int]) -> Json:
    """BERT's WordPiece, with all settings but the template."""
    prefix = settings["continuing_subword_prefix"]
    normalizer = {
        name: settings[name] for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    }
    return {
        "normalizer": {"type": "BertNormalizer", **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": prefix, "cleanup": settings["cleanup"]},
        "model": {
            "type": "WordPiece",
            "unk_token": settings["unk_token"],
            "continuing_subword_prefix": prefix,
            "max_input_chars_per_word": settings["max_input_chars_per_word"],
            "vocab": dict(vocab),
        },
    }


def whole(parts: Json, tokens: list[Json], processor: Json | None) -> Json:
    """The file of what byte_level, sentencepiece or wordpiece made, with added tokens and template."""
    contents = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, **parts}
    return contents if processor is None else contents | {"post_processor": processor}
