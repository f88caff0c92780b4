"""WordPiece, BERT's tokenizer, from the files of a directory, as what llm_load_wordpiece takes.

A tokenizer.json tells all of it; a vocab.txt is read as transformers' BertTokenizer reads it, with what
tokenizer_config.json says. Normalizers, pre-tokenizers and other steps than BERT's are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_sql import added_tokens, tokenizer_steps
from llm_sql.added_tokens import Claim
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.kernels import parse_wordpiece_vocab
from llm_sql.tokenizer_steps import refuse

VOCABULARY = "vocab.txt"
CLASSES = tuple(
    f"{name}Tokenizer{fast}"
    for name in ("Bert", "DistilBert", "Electra", "MobileBert", "Retribert", "LayoutLM", "Lxmert", "Funnel")
    for fast in ("", "Fast")
)
"""transformers' classes of tokenizers that are BERT's."""
GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")

# By the names in tokenizer_config.json: our setting, and what BertTokenizer takes when it is not there.
_CONFIGURED = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
_NAMES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_NORMALIZER = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
_MODEL = {"type", "vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"}

Read = tuple[dict[str, int], dict[str, Any], list[dict[str, Any]]]
"""The vocabulary, the settings, the added tokens."""


def from_vocab_txt(path: Path, contents: bytes, beside: Mapping[str, dict[str, Any]]) -> Read:
    """A vocab.txt. UsageError when it is not understood, LLMSQLError for what is not supported."""
    try:
        vocab = {token: id_ for id_, token in parse_wordpiece_vocab(contents)}
    except ValueError as error:
        raise UsageError(f"{path} is not understood: {error}") from error
    if not vocab:
        raise UsageError(f"{path} is empty")
    given = beside.get("tokenizer_config.json", {})
    _check_class(path.parent, given, alone=False)
    names = _names(beside)
    for key in ("unk_token", "cls_token", "sep_token"):
        if names[key] not in vocab:
            raise UsageError(f"{path} lacks the token {names[key]!r} ({key})")
    settings: dict[str, Any] = {ours: given.get(key, default) for key, (ours, default) in _CONFIGURED.items()}
    settings["unk_token"] = names["unk_token"]
    settings["template"] = {"prefix": [vocab[names["cls_token"]]], "suffix": [vocab[names["sep_token"]]]}
    _check_types(path.parent / "tokenizer_config.json", settings)
    return vocab, settings, _added(vocab, [], beside)


def from_tokenizer_json(path: Path, contents: dict[str, Any], beside: Mapping[str, dict[str, Any]]) -> Read:
    """A tokenizer.json whose model is WordPiece, read as tokenizers reads it."""
    try:
        model = contents["model"]
        vocab, own = tokenizer_steps.vocabulary(path, contents)
        prefix, suffix = tokenizer_steps.template(path, contents.get("post_processor"), bert=True)
        unknown = sorted(set(model) - _MODEL)
        if unknown:
            refuse(path, unknown[0], model[unknown[0]])
        settings = {
            **_normalizer(path, _alone(contents.get("normalizer"), "normalizers")),
            "unk_token": model.get("unk_token", "[UNK]"),
            "continuing_subword_prefix": model.get("continuing_subword_prefix", "##"),
            "max_input_chars_per_word": model.get("max_input_chars_per_word", 100),
            "template": {"prefix": prefix, "suffix": suffix},
        }
        _check_pre_tokenizer(path, _alone(contents.get("pre_tokenizer"), "pretokenizers"))
        settings["cleanup"] = _cleanup(
            path, _alone(contents.get("decoder"), "decoders"), settings["continuing_subword_prefix"]
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"{path} is not understood: {type(error).__name__} {error}") from error
    _check_types(path, settings)
    if settings["unk_token"] not in vocab:
        raise UsageError(f"{path} lacks the token {settings['unk_token']!r} (unk_token)")
    tokenizer_steps.check_around(path, vocab, own, [*prefix, *suffix])
    given = beside.get("tokenizer_config.json", {})
    _check_class(path.parent, given, alone=True)
    for key, (ours, _) in _CONFIGURED.items():
        if key in given and given[key] != settings[ours]:
            raise LLMSQLError(
                f"{path} has {ours} = {settings[ours]!r},"
                f" but tokenizer_config.json has {key} = {given[key]!r}",
                hint="Correct one of the files: they belong to different tokenizers.",
            )
    return vocab, settings, _added(vocab, own, beside)


def _alone(value: Any, kind: str) -> Any:
    """A step of the tokenizer, out of a sequence of one."""
    while isinstance(value, dict) and value.get("type") == "Sequence" and len(value.get(kind) or []) < 2:
        value = (value.get(kind) or [None])[0]
    return value


def _type(step: Any) -> Any:
    return None if step is None else step["type"]


def _normalizer(path: Path, step: Any) -> dict[str, Any]:
    if step is None:
        return dict.fromkeys(_NORMALIZER, False)
    if _type(step) != "BertNormalizer":
        refuse(path, "normalizer", _type(step))
    unknown = sorted(set(step) - {"type", *_NORMALIZER})
    if unknown:
        refuse(path, unknown[0], step[unknown[0]])
    return {name: step.get(name, default) for name, default in _NORMALIZER.items()}


def _check_pre_tokenizer(path: Path, step: Any) -> None:
    if _type(step) != "BertPreTokenizer":
        refuse(path, "pre_tokenizer", _type(step))


def _cleanup(path: Path, step: Any, prefix: str) -> Any:
    """Whether the decoder cleans up."""
    if _type(step) != "WordPiece":
        refuse(path, "decoder", _type(step))
    if step.get("prefix", "##") != prefix:
        refuse(path, "decoder's prefix", step["prefix"])
    return step.get("cleanup", True)


def _check_types(path: Path, settings: Mapping[str, Any]) -> None:
    """What llm_wordpiece_settings would refuse, by the file's name."""
    for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase", "cleanup"):
        value = settings.get(name, True)
        if not isinstance(value, bool) and not (name == "strip_accents" and value is None):
            raise UsageError(f"{path} is not understood: {name} = {value!r}")
    for name in ("unk_token", "continuing_subword_prefix"):
        if not isinstance(settings.get(name, ""), str):
            raise UsageError(f"{path} is not understood: {name} = {settings[name]!r}")
    longest = settings.get("max_input_chars_per_word", 100)
    if isinstance(longest, bool) or not isinstance(longest, int) or not 1 <= longest <= 999999999:
        raise UsageError(f"{path} is not understood: max_input_chars_per_word = {longest!r}")


def _check_class(directory: Path, given: Mapping[str, Any], *, alone: bool) -> None:
    """Refuse what tokenizer_config.json asks for beyond BERT's."""
    path = directory / "tokenizer_config.json"
    class_ = given.get("tokenizer_class")
    if class_ is not None and class_ not in CLASSES and not (alone and class_ in GENERIC_CLASSES):
        refuse(path, "tokenizer_class", class_)
    for name in ("split_special_tokens", "never_split"):
        if given.get(name):
            refuse(path, name, given[name])
    if given.get("do_basic_tokenize", True) is not True:
        refuse(path, "do_basic_tokenize", given["do_basic_tokenize"])


def _names(beside: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """The contents of BERT's special tokens."""
    names = dict(_NAMES)
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for key in _NAMES:
            value = beside.get(file, {}).get(key)
            if value is not None:
                names[key] = added_tokens.claim(value, None, file).content
    return names


def _added(
    vocab: dict[str, int], own: list[Claim], beside: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The added tokens, BERT's special tokens among them where the vocabulary has them."""
    files = {name: dict(contents) for name, contents in beside.items()}
    given = files.setdefault("tokenizer_config.json", {})
    if given.get("tokenizer_class") not in GENERIC_CLASSES:
        for key, content in _names(beside).items():
            if content in vocab:
                given.setdefault(key, content)
    specials = {content for key, content in _names(beside).items() if key in given}
    own = [replace(c, flags=c.flags | {"special"}) if c.content in specials else c for c in own]
    return added_tokens.resolve(added_tokens.Tokenizer(vocab, own, True, files=files))
