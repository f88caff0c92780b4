"""A model's tokenizer from its rows, as files that transformers loads: what tokenizer_files.py reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from llm_sql import tokenizer_json
from llm_sql.added_tokens import NAMED
from llm_sql.errors import LLMSQLError
from llm_sql.tokenizer import SPECIAL_TOKEN

HINT = "Name a file: model.safetensors."
"""What else can be exported where no directory can."""

_KIND = text("SELECT public.llm_tokenizer_kind(CAST(:model AS text))")
_SETTINGS = text(
    "SELECT CASE kind WHEN 'bpe' THEN public.llm_bpe_settings(settings)"
    " WHEN 'sentencepiece' THEN public.llm_sentencepiece_settings(settings)"
    " ELSE public.llm_wordpiece_settings(settings) END"
    " FROM (SELECT CAST(:kind AS text) AS kind, COALESCE((SELECT t.settings FROM public.llm_tokenizer t"
    " WHERE t.model = :model), '{}') AS settings) q"
)
_TOKENS = text(
    "SELECT token_id, token, flags FROM public.llm_bpe_vocab WHERE model = :model ORDER BY token_id"
)
_MERGES = text("SELECT left_token, right_token FROM public.llm_bpe_merges WHERE model = :model ORDER BY rank")
_ENDS = text(
    "SELECT public.llm_end_tokens(CAST(:model AS text)), public.llm_begin_token(CAST(:model AS text))"
)


@dataclass(frozen=True)
class Token:
    """A row of llm_bpe_vocab; `flags` of a row that has none are told by its form."""

    id: int
    text: str
    flags: frozenset[str]
    base: bool

    @property
    def can_be_named(self) -> bool:
        """Whether a file may name it as bos_token or the like, which makes it a special added token."""
        return self.flags >= {"added", "special"}


def _token(id_: int, token: str, flags: Sequence[str] | None) -> Token:
    if flags is None:
        given = {"added", "special"} if SPECIAL_TOKEN.fullmatch(token) else set()
        return Token(id_, token, frozenset(given), True)
    return Token(id_, token, frozenset(flags), "added" not in flags or "base" in flags)


class Exported:
    """A model's tokenizer: its kind (None: it has none), its tokens and those that begin and end a text."""

    def __init__(self, connection: Connection, model: str) -> None:
        self.model = model
        self.kind: str | None = connection.execute(_KIND, {"model": model}).scalar_one()
        self.tokens = [_token(*row) for row in connection.execute(_TOKENS, {"model": model})]
        ends, begin = connection.execute(_ENDS, {"model": model}).one()
        self.ends: list[int] = ends
        said = {flag for token in self.tokens for flag in token.flags} & {"bos", "eos", "stop"}
        # llm_begin_token takes what ends a text where nothing begins one, which files need not say.
        self.begin: int | None = begin if not said or "bos" in said else None
        self._connection = connection

    def ids(self) -> dict[str, Any]:
        """The ids that begin and end a text, as config.json and generation_config.json have them."""
        return {
            "bos_token_id": self.begin,
            "eos_token_id": self.ends[0] if len(self.ends) == 1 else self.ends or None,
        }

    def pad(self) -> int | None:
        return next((token.id for token in self.tokens if "pad" in token.flags), None)

    def files(self, longest: int, **config: Any) -> dict[str, Any]:
        """tokenizer.json, which tells all, and what transformers wants to know beside it; none of characters.

        `longest` is how many tokens the model takes; `config` is more of tokenizer_config.json. LLMSQLError
        for what tokenizer.json cannot say.
        """
        if self.kind in (None, "char"):
            return {}
        model = {"model": self.model}
        settings = self._connection.execute(_SETTINGS, model | {"kind": self.kind}).scalar_one()
        vocab = {token.text: token.id for token in self.tokens if token.base}
        self._check(vocab, settings)
        names = self._names(settings)
        if self.kind == "wordpiece":
            around = settings["template"]
            parts = tokenizer_json.wordpiece(settings, vocab)
        else:
            around = settings
            merges = [list(row) for row in self._connection.execute(_MERGES, model)]
            if self.kind == "bpe":
                parts = tokenizer_json.byte_level(settings, vocab, merges)
            else:
                parts = tokenizer_json.sentencepiece(settings, vocab, merges, names.get("unk_token"))
        added = [
            tokenizer_json.added(token.id, token.text, token.flags)
            for token in self.tokens
            if "added" in token.flags
        ]
        texts = {token.id: token.text for token in self.tokens}
        # BERT's has nothing between the texts of a pair but what ends the first.
        template = tokenizer_json.template(
            around["prefix"], around["suffix"], texts, again=self.kind != "wordpiece"
        )
        given = {
            # Takes all from tokenizer.json.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": longest,
            "clean_up_tokenization_spaces": False,
            **config,
            **names,
        }
        return {
            "tokenizer.json": tokenizer_json.whole(parts, added, template),
            "tokenizer_config.json": given,
            "special_tokens_map.json": names,
        }

    def _names(self, settings: dict[str, Any]) -> dict[str, str]:
        """The tokens that have a role by its name."""
        able = {token.id: token for token in self.tokens if token.can_be_named}
        roles = {f"{role}_token": [t for t in able.values() if role in t.flags] for role in ("pad", "unk")}
        named = {name: tokens[0].text for name, tokens in roles.items() if tokens}
        named |= {"bos_token": able[self.begin].text} if self.begin in able else {}
        named |= {"eos_token": able[self.ends[0]].text} if self.ends and self.ends[0] in able else {}
        if self.kind == "wordpiece":
            texts = {token.id: token.text for token in self.tokens}
            prefix, suffix = settings["template"]["prefix"], settings["template"]["suffix"]
            named["unk_token"] = settings["unk_token"]
            named |= {"cls_token": texts[prefix[0]]} if prefix else {}
            named |= {"sep_token": texts[suffix[-1]]} if suffix else {}
            if any(token.text == "[MASK]" for token in able.values()):
                named["mask_token"] = "[MASK]"
        return {name: named[name] for name in NAMED if name in named}

    def _check(self, vocab: dict[str, int], settings: dict[str, Any]) -> None:
        """Refuse what reads otherwise in tokenizer.json."""
        if self.kind == "sentencepiece" and settings["prefix_space"] == "prepend" and settings["split"]:
            self._refuse("prefix_space prepend with split")
        place = len(vocab)
        for token in self.tokens:
            if token.base:
                continue
            if token.id != place:
                self._refuse(f"the added token {token.text!r} with the id {token.id} in place of {place}")
            place += 1

    def _refuse(self, what: str) -> None:
        raise LLMSQLError(
            f'the tokenizer of model "{self.model}" has {what}, which tokenizer.json cannot say', hint=HINT
        )
