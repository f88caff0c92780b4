"""all-MiniLM-L6-v2's published weights: tokens as transformers has them, vectors as sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from llm_sql.types import register_tensor

from ..conftest import Server
from .encoders import PACKAGE, Array, bring_in, embed_all, embed_one, published_minilm
from .sentences import varied_texts

MODEL = "minilm"
CLOSE = 1e-5  # the largest difference of two normalised vectors' numbers
MAX_TOKENS = 256
TEXTS = varied_texts(1000)
Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def minilm(server: Server, template: str) -> Iterator[Connection]:
    """A database that has it from the installed package."""
    published_minilm()
    name = server.create_database(template)
    bring_in(server.sqlalchemy_url(name), f"package:{PACKAGE}", MODEL)
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        register_tensor(connection)
        yield connection
    server.drop_database(name)


@pytest.fixture(scope="module")
def expected() -> Array:
    sentences = SentenceTransformer(str(published_minilm()), device="cpu")
    return np.asarray(sentences.encode(TEXTS, batch_size=32), np.float32)


@pytest.fixture(scope="module")
def together(minilm: Connection) -> Array:
    """All texts in one call, which batches them by length."""
    return embed_all(minilm, TEXTS, MODEL)


def test_a_thousand_texts(together: Array, expected: Array) -> None:
    off = np.abs(together - expected).max(axis=1)
    worst = int(off.argmax())
    print(f"largest difference {off[worst]:.2e}, of text {worst}")
    assert off[worst] <= CLOSE, repr(TEXTS[worst])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_one_by_one_to_the_bit(minilm: Connection, together: Array) -> None:
    """A text's company changes nothing: every fifth, and all that are short enough to cost nothing."""
    for number, text in enumerate(TEXTS):
        if number % 5 == 0 or len(text) < 30:
            alone = embed_one(minilm, text, MODEL)
            assert alone.tobytes() == together[number].tobytes(), repr(text)


def test_in_any_company_to_the_bit(minilm: Connection, together: Array) -> None:
    """Beside texts of other lengths, in another order, and more than once."""
    order = np.random.default_rng(1).permutation(len(TEXTS))[:150]
    order = np.concatenate([order, order[:10]])
    again = embed_all(minilm, [TEXTS[i] for i in order], MODEL)
    assert again.tobytes() == together[order].tobytes()


@pytest.mark.parametrize("max_tokens", [MAX_TOKENS, 16, 3])
def test_the_same_tokens(minilm: Connection, max_tokens: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published_minilm())
    texts = [*TEXTS, *varied_texts(4000, seed=2)] if max_tokens == MAX_TOKENS else TEXTS
    theirs = tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)["input_ids"]
    rows = minilm.execute(
        "SELECT llm_encode_sequence(t, %s, %s)"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, i) ORDER BY i",
        (MODEL, max_tokens, texts),
    ).fetchall()
    for text, (ours,), ids in zip(texts, rows, theirs, strict=True):
        assert ours == ids, repr(text)


def test_from_the_directory_it_is_the_same(
    db_url: str, conn: Connection, together: Array, tmp_path: Path
) -> None:
    """Without tokenizer.json the tokenizer comes from vocab.txt and tokenizer_config.json."""
    for file in published_minilm().rglob("*"):
        if file.is_file() and file.name != "tokenizer.json":
            target = tmp_path / file.relative_to(published_minilm())
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file)
    bring_in(db_url, tmp_path, MODEL)
    assert embed_all(conn, TEXTS[:64], MODEL).tobytes() == together[:64].tobytes()


def test_cut_texts_are_counted(minilm: Connection) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published_minilm())
    tokenizer.backend_tokenizer.no_truncation()
    texts = TEXTS[:96]
    lengths = [len(ids) for ids in tokenizer(texts, padding=False, verbose=False)["input_ids"]]
    too_long = sum(length > MAX_TOKENS for length in lengths)
    assert too_long > 3
    notices: list[str] = []
    minilm.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    embed_all(minilm, texts, MODEL)
    assert [str(too_long) in notice.split() for notice in notices] == [True], notices
