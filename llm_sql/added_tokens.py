"""Added tokens and tokens with a role, as a directory's files name them beside vocabulary and merges.

tokenizer.json, tokenizer_config.json (added_tokens_decoder), added_tokens.json and special_tokens_map.json
each tell some of it, config.json and generation_config.json which ids end a text. The outcome is what
transformers makes of the same directory; where it would give a token another id than a file says, or where
files contradict each other, the directory is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_sql.errors import LLMSQLError, UsageError

FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
END_OF_TEXT = "<|endoftext|>"
_GPT2_VOCAB = 50257


@dataclass(frozen=True)
class Claim:
    """A token as one file has it; `id` is None where the file only names it."""

    content: str
    id: int | None
    flags: frozenset[str]
    file: str


@dataclass
class Tokenizer:
    """The vocabulary that merging makes, and what the files of its directory say beside it, by their names.

    `own` are tokenizer.json's added tokens, in its order; a `generic` tokenizer takes nothing for granted but
    `defaults`, tokens with a role, by its name, where they are there.
    """

    base: dict[str, int]
    own: list[Claim] = field(default_factory=list)
    generic: bool = False
    defaults: Mapping[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


def claim(value: Any, id: int | None, file: str, special: bool = False) -> Claim:
    """A token as JSON has it: its text, or an object with its flags. UsageError for anything else."""
    given = {"content": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or not isinstance(given.get("content"), str):
        raise UsageError(f"{file} is not understood: {value!r} is not a token")
    content = given["content"]
    if not content or any(c == "\0" or 0xD800 <= ord(c) < 0xE000 for c in content):
        raise UsageError(f"{file} has a token that cannot occur in any text: {content!r}")
    special = special or given.get("special") is True
    flags = {name for name in FLAGS if given.get(name, name == "normalized" and not special) is True}
    return Claim(content, id, frozenset(flags | ({"special"} if special else set())), file)


def number(value: Any, file: str) -> int:
    """A token id as JSON has it. UsageError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise UsageError(f"{file} is not understood: {value!r} is not a token id")
    return value


def resolve(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The tokens to add or to mark, for llm_add_tokens. LLMSQLError: files contradict each other."""
    claims, named = _claims(tokenizer)
    ids = dict(tokenizer.base)
    flags: dict[str, set[str]] = {}
    roles = {token.content for token in named.values()}
    for token in claims:
        content = token.content
        id_ = _next_id(tokenizer.base, [ids[c] for c in flags], content)
        if token.id is not None and token.id != id_:
            raise LLMSQLError(
                f"{token.file} gives the token {content!r} the id {token.id}, its place would be {id_}",
                hint="Added tokens must follow the vocabulary without a gap, as transformers numbers them.",
            )
        missing = token.id is None and content == END_OF_TEXT and content not in tokenizer.base
        if missing and id_ >= _vocab_size(tokenizer, id_):
            continue  # GPT-2's by default, in a model that has no place for it
        if content not in tokenizer.base and id_ in ids.values():
            raise LLMSQLError(
                f"{token.file} gives the token {content!r} the id {id_}, which another token has"
            )
        ids[content] = id_
        flags[content] = {"added", *token.flags, *(("special",) if content in roles else ())}
    for content, role in _roles(tokenizer, named, ids):
        flags.setdefault(content, set()).add(role)
    return [
        {"id": ids[content], "content": content, "flags": sorted(given)} for content, given in flags.items()
    ]


def named_ids(tokenizer: Tokenizer, added: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The ids of tokens with a role by its name, as bos_token; added: what resolve made of the tokenizer."""
    _, named = _claims(tokenizer)
    ids = tokenizer.base | {token["content"]: token["id"] for token in added}
    return {key: ids[token.content] for key, token in named.items() if token.content in ids}


def _next_id(base: Mapping[str, int], added: Iterable[int], content: str) -> int:
    """The id that Hugging Face's tokenizers give the next added token."""
    if content in base:
        return base[content]
    return max([len(base), *(id_ + 1 for id_ in added if id_ >= len(base))])


def _claims(tokenizer: Tokenizer) -> tuple[list[Claim], dict[str, Claim]]:
    """The added tokens in the order in which they get their ids, and those that have a role by its name."""
    settings = tokenizer.files.get("tokenizer_config.json", {})
    decoder = settings.get("added_tokens_decoder")
    decoded = _decoder(decoder)
    given = {key: (value, "tokenizer_config.json") for key, value in settings.items()}
    if decoder is None:
        mapped = tokenizer.files.get("special_tokens_map.json", {})
        given |= {key: (value, "special_tokens_map.json") for key, value in mapped.items()}
    there = {*tokenizer.base, *(token.content for token in [*tokenizer.own, *decoded])}
    for key, content in tokenizer.defaults.items():
        if content in there:
            given.setdefault(key, (content, "the class's default"))
    named, extra = _named(given, tokenizer.generic)
    special = {token.content for token in [*named.values(), *extra]}
    legacy = [
        claim(
            {"content": content, "normalized": content not in special, "special": content in special},
            number(id_, "added_tokens.json"),
            "added_tokens.json",
        )
        for content, id_ in tokenizer.files.get("added_tokens.json", {}).items()
    ]
    _refuse_contradictions(tokenizer.base, [*decoded, *tokenizer.own, *legacy])
    if decoder is not None:
        known = special | {token.content for token in decoded}
        known |= {token.content for token in tokenizer.own} if tokenizer.generic else set()
        for token in [*tokenizer.own, *legacy]:
            if token.content not in known:
                raise LLMSQLError(
                    f"{token.file} has the added token {token.content!r},"
                    " which tokenizer_config.json's added_tokens_decoder lacks",
                    hint="Correct one of the files: they belong to different tokenizers.",
                )
    first = tokenizer.own if tokenizer.generic else []
    rest = sorted([*decoded, *tokenizer.own, *legacy], key=lambda token: token.id or 0)
    # The first that names a token tells its flags, added_tokens_decoder before the others.
    best: dict[str, Claim] = {}
    for token in [*decoded, *tokenizer.own, *legacy, *named.values(), *extra]:
        best.setdefault(token.content, token)
    order = dict.fromkeys(token.content for token in [*first, *rest, *named.values(), *extra])
    return [best[content] for content in order], named


def _decoder(decoder: Any) -> list[Claim]:
    if decoder is None:
        return []
    file = "tokenizer_config.json"
    if not isinstance(decoder, dict):
        raise UsageError(f"{file} is not understood: added_tokens_decoder is not an object")
    found = []
    for key, value in decoder.items():
        if not (key.isascii() and key.isdigit() and isinstance(value, dict)):
            raise UsageError(f"{file} is not understood: {key!r} in added_tokens_decoder")
        found.append(claim(value, number(int(key), file), file))
    return sorted(found, key=lambda token: token.id or 0)


def _named(given: dict[str, tuple[Any, str]], generic: bool) -> tuple[dict[str, Claim], list[Claim]]:
    """The tokens with a role, by its name, and the special ones without."""
    named: dict[str, Claim] = {}
    for key in NAMED:
        default = END_OF_TEXT if key in NAMED[:3] and not generic else None
        value, file = given.get(key, (default, "GPT-2's default"))
        if value is not None:
            named[key] = claim(value, None, file, special=True)
    extra = [
        claim(value, None, file, special=True)
        for key, (value, file) in given.items()
        if key.endswith("_token") and key not in NAMED and isinstance(value, (str, dict))
    ]
    values, file = given.get("extra_special_tokens") or given.get("additional_special_tokens") or ([], "")
    for value in values.values() if isinstance(values, dict) else values or []:
        extra.append(claim(value, None, file, special=True))
    return named, extra


def _refuse_contradictions(base: Mapping[str, int], claims: Iterable[Claim]) -> None:
    by_content = {content: (id_, "the vocabulary") for content, id_ in base.items()}
    by_id: dict[int, tuple[str, str]] = {id_: (content, "the vocabulary") for content, id_ in base.items()}
    for token in claims:
        if token.id is None:
            continue
        id_, file = by_content.setdefault(token.content, (token.id, token.file))
        if id_ != token.id:
            raise UsageError(
                f"two ids for the token {token.content!r}: {id_} in {file}, {token.id} in {token.file}"
            )
        content, file = by_id.setdefault(token.id, (token.content, token.file))
        if content != token.content:
            raise UsageError(
                f"two tokens with the id {token.id}: {content!r} in {file}, {token.content!r} in {token.file}"
            )


def _vocab_size(tokenizer: Tokenizer, default: int = _GPT2_VOCAB) -> int:
    config = tokenizer.files.get("config.json")
    if config is None:
        return default
    size = config.get("vocab_size", _GPT2_VOCAB)
    return size if isinstance(size, int) else default


def _roles(tokenizer: Tokenizer, named: dict[str, Claim], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Which tokens begin and end a text, pad it, or stand for what is unknown."""
    contents = {id_: content for content, id_ in ids.items()}
    by_name = {key: token.content for key, token in named.items() if token.content in ids}
    found: list[tuple[str, str]] = []
    ends = _configured(tokenizer, "eos_token_id", contents) or (
        [by_name["eos_token"]] if "eos_token" in by_name else []
    )
    # The first of them ends a document, any of them a generation.
    if by_name.get("eos_token") in ends:
        ends.sort(key=lambda content: content != by_name["eos_token"])
    found += [(content, "stop" if i else "eos") for i, content in enumerate(ends)]
    begins = _configured(tokenizer, "bos_token_id", contents) or (
        [by_name["bos_token"]] if "bos_token" in by_name else []
    )
    found += [(content, "bos") for content in begins[:1]]
    for role in ("pad", "unk"):
        if f"{role}_token" in by_name:
            found.append((by_name[f"{role}_token"], role))
    return found


def _configured(tokenizer: Tokenizer, key: str, contents: dict[int, str]) -> list[str]:
    """The tokens whose ids generation_config.json, else config.json, has under this key."""
    for file in ("generation_config.json", "config.json"):
        value = tokenizer.files.get(file, {}).get(key)
        given = [
            number(id_, file) for id_ in (value if isinstance(value, list) else [value]) if id_ is not None
        ]
        # What the model cannot produce is no one's: GPT-2's default in a small model.
        possible = [id_ for id_ in dict.fromkeys(given) if id_ < _vocab_size(tokenizer)]
        for id_ in possible:
            if id_ not in contents:
                raise LLMSQLError(
                    f"{file} has {key} {id_}, which the tokenizer lacks",
                    hint="Complete the tokenizer's files, or import the weights alone (--no-tokenizer).",
                )
        if possible:
            return [contents[id_] for id_ in possible]
    return []
