"""What a model sees of a conversation, against transformers' apply_chat_template."""

from __future__ import annotations

import datetime
import json
from random import Random
from typing import Any

import psycopg
import pytest

from ..reference import bpe
from ..support import chat
from ..support.tensors import value

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
pytest.importorskip("jinja2")

Connection = psycopg.Connection[Any]


def theirs(template: str) -> Any:
    """make_chat_model's tokenizer."""
    vocab = json.loads((bpe.GOLDEN / "bpe_vocab.json").read_text(encoding="utf-8"))
    lines = (bpe.GOLDEN / "bpe_merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = [tuple(line.split(" ")) for line in lines]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    special = [tokenizers.AddedToken(token, special=True, normalized=False) for token in chat.SPECIAL]
    tokenizer.add_special_tokens(special)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=chat.BOS, eos_token=chat.EOS
    )
    made.chat_template = template
    return made


@pytest.mark.parametrize("name", chat.TEMPLATES)
def test_tokens_and_text(conn: Connection, name: str) -> None:
    form, template = chat.TEMPLATES[name]
    chat.make_chat_model(conn, template=template)
    conn.execute(
        "SELECT set_config('TimeZone', %s, false)", (str(datetime.datetime.now().astimezone().tzinfo),)
    )
    tokenizer = theirs(template)
    rng = Random(name)
    for _ in range(60):
        messages = chat.conversation(rng, form)
        said = "".join(message["content"] for message in messages)
        row = conn.execute("SELECT tokens, text FROM llm_chat_prompt(%s)", (json.dumps(messages),)).fetchone()
        assert row is not None
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert row[1] == text, messages
        if not any(token in said for token in chat.SPECIAL):
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            assert row[0] == ids, messages
    assert value(conn, "SELECT format FROM llm_chat_template()") == form
