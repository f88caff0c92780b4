"""A model's tokenizer outside the database: from its rows, for the client's own use.

    bpe = read_bpe(session, "gpt2-small")          # the database's own code: equal ids by construction
    bert = read_wordpiece(session, "minilm")       # the same for WordPiece
    llama = read_sentencepiece(session, "tiny")    # and for SentencePiece
    encoding = read_encoding(session, "gpt2-small")  # a tiktoken.Encoding, for what expects one

All are built from llm_tokenizer, llm_bpe_vocab and llm_bpe_merges; nothing is ever downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from llm_sql.bpe_files import PATTERNS
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.kernels import BPE, BPE_FLAGS, WordPiece, bpe_alphabet_bytes

if TYPE_CHECKING:
    import tiktoken

GPT2_PATTERN = PATTERNS["gpt2"]
"""How GPT-2 cuts a text into the pieces within which it merges (Radford et al. 2019)."""

# Digits one by one, and what lies between them as GPT-2 does it: before a digit it is as if the text ended.
_DIGITS = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

SPECIAL_TOKEN = re.compile(r"<\|[^<>]+\|>")
"""Tokens of this form are special where llm_bpe_vocab says nothing of it, as in llm_token_flags."""


_KIND = text("SELECT kind FROM public.llm_tokenizer WHERE model = :model")
_SETTINGS = text(
    "SELECT public.llm_wordpiece_settings(settings) FROM public.llm_tokenizer"
    " WHERE model = :model AND kind = 'wordpiece'"
)
_BPE_SETTINGS = text(
    "SELECT public.llm_bpe_settings(COALESCE("
    "(SELECT settings FROM public.llm_tokenizer WHERE model = :model), '{}'))"
)
_SENTENCEPIECE_SETTINGS = text(
    "SELECT public.llm_sentencepiece_settings(settings) FROM public.llm_tokenizer"
    " WHERE model = :model AND kind = 'sentencepiece'"
)
_MERGES = text("SELECT left_token, right_token FROM public.llm_bpe_merges WHERE model = :model ORDER BY rank")
_TOKENS = text(
    "SELECT token_id, token, flags FROM public.llm_bpe_vocab WHERE model = :model ORDER BY token_id"
)


@dataclass(frozen=True)
class BpeRows:
    """A model's rows: id and bytes of every token, flags of the added ones (BPE_FLAGS), merges by rank, and
    the settings.
    """

    tokens: dict[int, bytes]
    flags: dict[int, int]
    merges: list[tuple[bytes, bytes]]
    settings: dict[str, Any]


def read_rows(session: Session | Connection, model: str) -> BpeRows:
    """The model's BPE rows. LLMSQLError when it has none, or a character tokenizer."""
    vocab = session.execute(
        text(
            "SELECT token_id, token, bytes, flags FROM public.llm_bpe_vocab"
            " WHERE model = :model ORDER BY token_id"
        ),
        {"model": model},
    ).all()
    kind = session.scalar(_KIND, {"model": model})
    if not vocab or kind in ("wordpiece", "sentencepiece") or any(not row.bytes for row in vocab):
        raise LLMSQLError(
            f'model "{model}" has no BPE tokenizer', hint="llm-sql tokenizer load MODEL VOCAB MERGES"
        )
    merges = session.execute(_MERGES, {"model": model}).all()
    flags = {row.token_id: token_flags(row.token, row.flags) for row in vocab}
    return BpeRows(
        tokens={row.token_id: bytes(row.bytes) for row in vocab},
        flags={id_: bits for id_, bits in flags.items() if bits},
        merges=[(_bytes(row.left_token), _bytes(row.right_token)) for row in merges],
        settings=session.execute(_BPE_SETTINGS, {"model": model}).scalar_one(),
    )


def token_flags(token: str, flags: Sequence[str] | None) -> int:
    """A token's flags as BPE takes them: llm_token_flags."""
    if flags is None:
        flags = ("added", "special") if SPECIAL_TOKEN.fullmatch(token) else ()
    return sum(BPE_FLAGS.get(name, 0) for name in flags) if "added" in flags else 0


def _bytes(token: str) -> bytes:
    try:
        return bpe_alphabet_bytes(token)
    except ValueError:
        return token.encode()


def read_bpe(session: Session | Connection, model: str) -> BPE:
    """The model's tokenizer, run by this process exactly as the database runs it."""
    rows = read_rows(session, model)
    return BPE(rows.tokens.items(), rows.merges, flags=rows.flags, **_chosen(rows.settings))


def read_sentencepiece(session: Session | Connection, model: str) -> BPE:
    """The model's SentencePiece tokenizer, run by this process as the database runs it."""
    settings = session.scalar(_SENTENCEPIECE_SETTINGS, {"model": model})
    if settings is None:
        raise LLMSQLError(
            f'model "{model}" has no SentencePiece tokenizer', hint="llm-sql tokenizer load MODEL DIRECTORY"
        )
    rows = session.execute(_TOKENS, {"model": model}).all()
    merges = session.execute(_MERGES, {"model": model}).all()
    flags = {row.token_id: token_flags(row.token, row.flags or ()) for row in rows}
    return BPE(
        [(row.token_id, row.token.encode()) for row in rows],
        [(row.left_token.encode(), row.right_token.encode()) for row in merges],
        flags={id_: bits for id_, bits in flags.items() if bits},
        **_chosen(settings),
    )


def _chosen(settings: dict[str, Any]) -> dict[str, Any]:
    """What BPE takes of the settings: what stands around a text is not its business."""
    return {name: value for name, value in settings.items() if name not in ("prefix", "suffix")}


def read_wordpiece(session: Session | Connection, model: str) -> WordPiece:
    """The model's WordPiece tokenizer, run by this process as the database runs it."""
    settings = session.scalar(_SETTINGS, {"model": model})
    if settings is None:
        raise LLMSQLError(
            f'model "{model}" has no WordPiece tokenizer', hint="llm-sql tokenizer load MODEL DIRECTORY"
        )
    rows = session.execute(_TOKENS, {"model": model}).all()
    flags = {row.token_id: token_flags(row.token, row.flags or ()) for row in rows}
    return WordPiece(
        [(row.token_id, row.token) for row in rows],
        flags={id_: bits for id_, bits in flags.items() if bits},
        **{name: value for name, value in settings.items() if name != "template"},
    )


def read_encoding(session: Session | Connection, model: str) -> tiktoken.Encoding:
    """The model's tokenizer as a tiktoken.Encoding.

    tiktoken knows tokens only and merges in the order of their ids. UsageError for a tokenizer whose merges
    have another order, that has tokens no merge makes, or added tokens that tiktoken would not find.
    """
    import tiktoken

    rows = read_rows(session, model)
    special = BPE_FLAGS["added"] | BPE_FLAGS["special"]
    if rows.settings["normalizer"] is not None:
        raise UsageError(f'tiktoken does not normalize texts, as the tokenizer of model "{model}" does')
    # Without a normalizer only the order of the search differs, which tokens that begin alike would show.
    other = [id_ for id_, bits in rows.flags.items() if bits & ~BPE_FLAGS["normalized"] != special]
    if other:
        raise UsageError(f'tiktoken has no equivalent of token {other[0]} of model "{model}", an added token')
    ranks = {token: id_ for id_, token in rows.tokens.items() if id_ not in rows.flags}
    made = [ranks.get(left + right, -1) for left, right in rows.merges]
    if made != sorted(made) or len(made) + 256 != len(ranks):
        raise UsageError(f'the merges of model "{model}" are not in the order of their tokens\' ids')
    return tiktoken.Encoding(
        name=f"llm_sql/{model}",
        pat_str=(PATTERNS | {"smollm": _DIGITS})[rows.settings["pre_tokenizer"]],
        mergeable_ranks=ranks,
        special_tokens={rows.tokens[id_].decode(): id_ for id_ in rows.flags},
    )
