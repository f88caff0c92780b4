"""What the readers of tokenizer.json share: its steps, the tokens around a text, how something is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from llm_sql import added_tokens
from llm_sql.added_tokens import Claim
from llm_sql.errors import LLMSQLError, UsageError


def refuse(path: Path, name: str, found: object, how: str = "") -> NoReturn:
    """LLMSQLError that names a step of a tokenizer that is not supported."""
    shown = repr(found[0] if isinstance(found, list) and len(found) == 1 else found)
    raise LLMSQLError(
        f"{path} has {name} = {shown[:300]}{' ...' if len(shown) > 300 else ''}{how and ' ' + how},"
        " which is not supported",
        hint="Tokenizers like those of GPT-2, Llama, Mistral, Qwen, SmolLM and BERT are supported.",
    )


def steps(value: Any, kind: str) -> list[dict[str, Any]]:
    """The steps of a part of tokenizer.json, out of sequences."""
    if value is None:
        return []
    if value["type"] != "Sequence":
        return [value]
    return [step for part in value.get(kind) or [] for step in steps(part, kind)]


def vocabulary(path: Path, contents: Mapping[str, Any]) -> tuple[dict[str, int], list[Claim]]:
    """The model's tokens with their ids, and the added ones."""
    base = {token: added_tokens.number(id_, path.name) for token, id_ in contents["model"]["vocab"].items()}
    own = [
        added_tokens.claim(token, added_tokens.number(token["id"], path.name), path.name)
        for token in contents.get("added_tokens") or []
    ]
    return base, own


def template(path: Path, processor: Any, *, bert: bool = False) -> tuple[list[int], list[int]]:
    """The ids that a post-processor puts before and behind a single text.

    bert: for a model with types of tokens, of which a text has the first; BertProcessing is taken, too.
    """
    given = [step for step in steps(processor, "processors") if step["type"] != "ByteLevel"]
    kinds = [step["type"] for step in given]
    sides: tuple[list[Any], list[Any]] = ([], [])
    if kinds == ["TemplateProcessing"]:
        _pieces(path, given[0], sides, bert)
    elif kinds == ["BertProcessing"] and bert:
        sides = ([given[0]["cls"][1]], [given[0]["sep"][1]])
    elif kinds:
        refuse(path, "post_processor", kinds)
    before, behind = ([added_tokens.number(id_, path.name) for id_ in side] for side in sides)
    return before, behind


def _pieces(path: Path, step: Mapping[str, Any], sides: tuple[list[Any], list[Any]], bert: bool) -> None:
    """What a template has before and behind its text."""
    n_texts = 0
    known = step.get("special_tokens", {})
    for piece in step["single"]:
        [(what, value)] = piece.items()
        if bert and value.get("type_id", 0) != 0:
            refuse(path, "post_processor with type_id", value["type_id"])
        if what == "Sequence" and value.get("id") == "A":
            n_texts += 1
        elif what != "SpecialToken":
            refuse(path, "post_processor's piece", piece)
        elif value.get("id") not in known:
            raise UsageError(f"{path} is not understood: its post_processor lacks the token of {piece}")
        else:
            sides[n_texts > 0].extend(known[value["id"]]["ids"])
    if n_texts != 1:
        refuse(path, "post_processor's texts", n_texts)


def check_around(path: Path, base: Mapping[str, int], own: Iterable[Claim], ids: Iterable[int]) -> None:
    """UsageError: an id around a text is none of the tokens'."""
    known = {*base.values(), *(token.id for token in own)}
    for id_ in ids:
        if id_ not in known:
            raise UsageError(
                f"{path} has a post_processor with the token id {id_}, which its vocabulary lacks"
            )
