"""Byte-level BPE as tokenizer.json and GGUF describe it: the settings that llm_load_bpe takes.

What cuts a text into pieces is recognised by the steps and the regular expressions that models are published
with; anything else is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.tokenizer_steps import refuse, steps, template

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = f"(?i:{_CONTRACTIONS})"
_REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"

PATTERNS = {
    "gpt2": _CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": rf"{_ANY_CASE}|{_WORD}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*" + _REST,
    "qwen2": rf"{_ANY_CASE}|{_WORD}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*" + _REST,
    "o200k": (
        rf"{_WORD}{_UPPER}*{_LOWER}+{_ANY_CASE}?|{_WORD}{_UPPER}+{_LOWER}*{_ANY_CASE}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _REST
    ),
    "tekken": (
        rf"{_WORD}{_UPPER}*{_LOWER}+|{_WORD}{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*" + _REST
    ),
}
"""The regular expressions of pre-tokenizers, by the names that llm_tokenizer has for them."""

_GGML = {
    "gpt2": "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat",
    "gpt2 nfc": "olmo mpt",
    "smollm": "smollm starcoder refact codeshell exaone minerva-7b",
    "llama3 ignore_merges": "llama3 llama-v3 llama-bpe falcon3",
    "llama3": "dbrx smaug-bpe",
    "qwen2 nfc": "qwen2 deepseek-r1-qwen",
    "qwen2": "stablelm2",
    "tekken ignore_merges": "tekken",
    "o200k": "gpt-4o llama4",
}
_GGML_KINDS = {pre: kind for kind, names in _GGML.items() for pre in names.split()}


def ggml_settings(pre: str, prefix: Sequence[int] = (), suffix: Sequence[int] = ()) -> dict[str, Any]:
    """The settings behind GGUF's tokenizer.ggml.pre, with the ids around a text.

    LLMSQLError: an unknown name.
    """
    if pre not in _GGML_KINDS:
        raise LLMSQLError(
            f"the pre-tokenizer {pre!r} (tokenizer.ggml.pre) is not supported",
            hint=f"Supported are {', '.join(sorted(_GGML_KINDS))}.",
        )
    name, *options = _GGML_KINDS[pre].split()
    return settings(
        name,
        nfc="nfc" in options,
        ignore_merges="ignore_merges" in options,
        around=(list(prefix), list(suffix)),
    )


def settings(
    pre_tokenizer: str = "gpt2",
    *,
    nfc: bool = False,
    ignore_merges: bool = False,
    around: tuple[list[int], list[int]] = ([], []),
) -> dict[str, Any]:
    """The settings, all of them written out."""
    return {
        "pre_tokenizer": pre_tokenizer,
        "normalizer": "nfc" if nfc else None,
        "ignore_merges": ignore_merges,
        "prefix": around[0],
        "suffix": around[1],
    }


def from_tokenizer_json(path: Path, contents: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a byte-level BPE tokenizer. LLMSQLError for what is not supported."""
    model = contents["model"]
    decoders = [step["type"] for step in steps(contents.get("decoder"), "decoders")]
    normalizers = [step["type"] for step in steps(contents.get("normalizer"), "normalizers")]
    wanted = {
        "model": (model.get("type", "BPE"), "BPE"),
        "decoder": (decoders or ["ByteLevel"], ["ByteLevel"]),
        "dropout": (model.get("dropout") or None, None),
        "byte_fallback": (bool(model.get("byte_fallback")), False),
        "continuing_subword_prefix": (model.get("continuing_subword_prefix") or "", ""),
        "end_of_word_suffix": (model.get("end_of_word_suffix") or "", ""),
    }
    for name, (found, supported) in wanted.items():
        if found != supported:
            refuse(path, name, found)
    if normalizers not in ([], ["NFC"]):
        refuse(path, "normalizer", normalizers)
    return settings(
        _pre_tokenizer(path, steps(contents.get("pre_tokenizer"), "pretokenizers")),
        nfc=bool(normalizers),
        ignore_merges=bool(model.get("ignore_merges")),
        around=template(path, contents.get("post_processor")),
    )


def _pre_tokenizer(path: Path, given: list[dict[str, Any]]) -> str:
    """What cuts texts into pieces, by its name."""
    if not given or given[-1]["type"] != "ByteLevel":
        refuse(path, "pre_tokenizer", [step["type"] for step in given])
    if given[-1].get("add_prefix_space", True):
        refuse(path, "add_prefix_space", True)
    use_regex, before = given[-1].get("use_regex", True), given[:-1]
    if not before:
        if not use_regex:
            refuse(path, "use_regex", use_regex)
        return "gpt2"
    if use_regex and [step["type"] for step in before] == ["Digits"]:
        if before[0].get("individual_digits") is not True:
            refuse(path, "individual_digits", before[0].get("individual_digits"))
        return "smollm"
    if use_regex or [step["type"] for step in before] != ["Split"]:
        refuse(path, "pre_tokenizer", [step["type"] for step in given])
    [split] = before
    pattern = split["pattern"].get("Regex")
    name = next((name for name, known in PATTERNS.items() if known == pattern), None)
    if name is None:
        refuse(path, "pre_tokenizer's pattern", split["pattern"])
    if split.get("behavior") != "Isolated" or split.get("invert"):
        refuse(path, "pre_tokenizer's behavior", split.get("behavior"))
    return name


def configured_around(
    path: Path, given: Mapping[str, Any], named: Mapping[str, int]
) -> tuple[list[int], list[int]]:
    """The ids around a text that tokenizer_config.json asks for, of a tokenizer without tokenizer.json.

    As in transformers, which leaves add_bos_token and add_eos_token aside where a post-processor tells.
    """
    flags = {"add_bos_token": "bos_token", "add_eos_token": "eos_token"}
    for flag in flags:
        if given.get(flag) not in (None, True, False):
            raise UsageError(f"{path} is not understood: {flag} = {given[flag]!r}")
    before, behind = (
        [named[token]] if given.get(flag) and token in named else [] for flag, token in flags.items()
    )
    return before, behind
