"""Tokenizers that left the database in a model's directory: transformers reads the same ids and texts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings, strategies
from sqlalchemy import text as sql
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.tokenizer import read_bpe, read_sentencepiece
from llm_sql.tokenizer_json import MARK

from ..reference import bpe as reference
from ..support import chat

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from . import test_bpe_kinds as bpe  # noqa: E402
from . import test_sentencepiece as pieces  # noqa: E402

EXAMPLES = int(os.environ.get("LLM_SQL_TEST_EXAMPLES", "300"))
SIZES = {"n_layer": 1, "n_head": 2, "d_model": 16, "n_positions": 64, "vocab": 1000}


@dataclass(frozen=True)
class Case:
    """A tokenizer's kind in a model of one of transformers' types."""

    kind: str
    arch: str
    type: str
    settings: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.kind} of {self.type}"


WHITE = [
    tokenizers.AddedToken("<l>", lstrip=True, normalized=False),
    tokenizers.AddedToken("<r>", rstrip=True, normalized=False, special=True),
    tokenizers.AddedToken("<lr>", lstrip=True, rstrip=True, single_word=True, normalized=False),
]
QWEN2 = {"qkv_bias": True}
CASES = [
    Case("gpt2", "gpt2", "gpt2"),
    Case("gpt2", "opt", "opt"),
    Case("gpt_neox", "neox", "gpt_neox"),
    Case("smollm", "llama", "llama"),
    Case("llama3", "llama", "llama"),
    Case("o200k", "llama", "llama"),
    Case("qwen2", "llama", "qwen2", QWEN2),
    Case("qwen2", "llama", "qwen3", {"qk_norm": True}),
    Case("tekken", "llama", "mistral", {"window": 16}),
    *(Case(form, "llama", "mistral" if i % 2 else "llama", {"window": 16} if i % 2 else {})
      for i, form in enumerate(pieces.FORMS)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_reads_as_it_did(session: Session, tmp_path: Path, case: Case) -> None:
    """As the tokenizer it was imported from, and as the database's."""
    is_bpe = case.kind in bpe.KINDS
    (tmp_path / "given").mkdir()
    if is_bpe:
        before = bpe.train(case.kind, **bpe.KINDS[case.kind])
        before.add_tokens(WHITE)
        bos = {"bos_token": name} if (name := bpe.KINDS[case.kind].get("bos")) else {}
        bpe.write(tmp_path / "given", before, **bos)
    else:
        before = pieces.train(case.kind)
        before.add_tokens(WHITE)
        pieces.write(tmp_path / "given", before)
    model = LanguageModel.create(session, "m", arch=case.arch, settings=case.settings, **SIZES)
    model.load_tokenizer(tmp_path / "given")
    model.export_weights(tmp_path / "sent")
    assert json.loads((tmp_path / "sent" / "config.json").read_text())["model_type"] == case.type
    alone = tokenizers.Tokenizer.from_file(str(tmp_path / "sent" / "tokenizer.json"))
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "sent")
    ours = read_bpe(session, "m") if is_bpe else read_sentencepiece(session, "m")
    # What the database decodes to its own text, theirs otherwise.
    odd = before.token_to_id("[e\u0301]" if is_bpe else "[INST]")

    def check(text: str) -> None:
        whole = before.encode(text).ids
        ids = before.encode(text, add_special_tokens=False).ids
        assert alone.encode(text).ids == after(text)["input_ids"] == whole, ascii(text)
        assert after(text, add_special_tokens=False)["input_ids"] == ids, ascii(text)
        assert ours.encode(text, special=True).tolist() == ids, ascii(text)
        plain = after(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ours.encode(text).tolist() == plain, ascii(text)
        decoded = before.decode(ids, skip_special_tokens=False)
        assert after.decode(ids) == alone.decode(ids, skip_special_tokens=False) == decoded, ascii(text)
        if odd not in ids:
            assert ours.decode(ids) == decoded, ascii(text)
        assert after.decode(ids, skip_special_tokens=True) == before.decode(ids), ascii(text)

    texts = bpe.TEXTS if is_bpe else pieces.TEXTS
    for text in (*texts, *reference.HARD, *reference.random_strings(4, 500)):
        check(text)
    words = strategies.sampled_from(
        [*" \n\r\tab1'sé日🙂\u0301", *bpe.TEXTS[0].split(), MARK, "<keep>", "[é]", "<s>", "</s>",
         "<|x|>", "<l>", "<r>", "<lr>", "[INST]", "<0x41>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    )  # fmt: skip
    lists = strategies.lists(words, max_size=20).map("".join)
    checked = given(strategies.one_of(strategies.text(), lists))(check)
    settings(max_examples=EXAMPLES, deadline=None, database=None)(checked)()
    ids = session.execute(sql("SELECT llm_begin_token('m'), llm_end_token('m')")).one()
    assert after.bos_token_id in (None, ids[0])
    assert after.eos_token_id == ids[1]
    for name in ("bos_token", "eos_token"):
        theirs = json.loads((tmp_path / "given" / "tokenizer_config.json").read_text()).get(name)
        assert getattr(after, name) == theirs
    assert "token_type_ids" not in after("a")


@pytest.mark.parametrize("name", chat.TEMPLATES)
def test_conversations(session: Session, tmp_path: Path, name: str) -> None:
    form, template = chat.TEMPLATES[name]
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    model = chat.make_chat_model(connection, template=template)
    LanguageModel(session, model).export_weights(tmp_path / "sent")
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "sent")
    assert after.chat_template == template
    rng = Random(name)
    for _ in range(20):
        messages = chat.conversation(rng, form)
        tokens, text = session.execute(
            sql("SELECT tokens, text FROM llm_chat_prompt(:messages)"), {"messages": json.dumps(messages)}
        ).one()
        assert after.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == text
        if not any(token in message["content"] for message in messages for token in chat.SPECIAL):
            ids = after.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            assert ids == tokens
