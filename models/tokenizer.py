"""llm_tokenizer, llm_bpe_vocab and llm_bpe_merges: the tokenizer of every model."""

from __future__ import annotations

import builtins
from typing import Any

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class Tokenizer(Base):
    """What a tokenizer is beside its tokens. Without a row it is BPE, or characters if its tokens say so."""

    __tablename__ = "llm_tokenizer"
    __table_args__ = (
        CheckConstraint("model <> ''", name="model"),
        CheckConstraint("kind IN ('bpe', 'char', 'sentencepiece', 'wordpiece')", name="kind"),
        CheckConstraint("jsonb_typeof(settings) = 'object'", name="settings"),
        CheckConstraint("chat_template <> ''", name="chat_template"),
        {"comment": "kinds and settings of tokenizers"},
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(comment="bpe, char, sentencepiece or wordpiece")
    settings: Mapped[dict[str, Any]] = mapped_column(
        JSONB, server_default=text("'{}'::jsonb"), comment="as the kind's llm_load_... takes them"
    )
    chat_template: Mapped[str | None] = mapped_column(comment="in Jinja, as tokenizer_config.json has it")


class BpeToken(Base):
    """A token. A character tokenizer's `<|bos|>` stands for no bytes, BPE's added tokens for their name.

    WordPiece has its tokens here, too, by their texts: parts of words with their prefix, which `bytes` leaves
    out; those that begin a word have a blank there. SentencePiece's have U+2581 for blanks, and are called
    <0x41> where they stand for a byte.

    `flags` tell what it is beside a token that merging makes: `added` tokens are searched for in a text as
    a whole, as Hugging Face's AddedToken with its `special`, `lstrip`, `rstrip`, `single_word` and
    `normalized`; `base` ones are made by merging, too. `bos` begins a document, `eos` ends one and, like
    `stop`, a generation; `pad` and `unk` are remembered. NULL: special when it reads <|...|>.
    """

    __tablename__ = "llm_bpe_vocab"
    __table_args__ = (
        CheckConstraint("token_id >= 0", name="token_id"),
        CheckConstraint(
            "flags <@ '{added,base,special,lstrip,rstrip,single_word,normalized,"
            "bos,eos,stop,pad,unk}'::text[]"
            " AND array_position(flags, NULL) IS NULL",
            name="flags",
        ),
        Index(None, "model", "token", unique=True),
        Index("ix_llm_bpe_vocab_flags", "model", postgresql_where=text("flags <> '{}'::text[]")),
        {"comment": "tokens of every model"},
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str] = mapped_column(
        comment="in GPT-2's byte-level alphabet, the character itself, or a part of a text"
    )
    bytes: Mapped[builtins.bytes] = mapped_column(comment="the token's bytes in a text")
    score: Mapped[float | None]
    flags: Mapped[list[str] | None] = mapped_column(
        comment="added, special, bos, eos, ...; NULL: special if it has the form <|...|>"
    )


class BpeMerge(Base):
    """A merge rule of byte pair encoding; lower ranks merge first."""

    __tablename__ = "llm_bpe_merges"
    __table_args__ = (
        CheckConstraint("rank >= 0", name="rank"),
        {"comment": "merge rules of byte pair encoding"},
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    left_token: Mapped[str]
    right_token: Mapped[str]
    pair: Mapped[str] = mapped_column(comment="the rule as in merges.txt: left, a space, right")
