"""GPT-2 124M out of a file and to the first token of a fresh connection; prints how long a user waits."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from llm_sql import LanguageModel

from ..conftest import Connect
from ..reference import bpe as reference
from ..support.training import scalar


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tokenizer(request: pytest.FixtureRequest) -> list[bytes]:
    """GPT-2's vocabulary and merges where they are at hand, else others of that size."""
    try:
        shared = request.getfixturevalue("shared_data")
        return [shared(f"gpt2/{name}").read_bytes() for name in ("vocab.json", "merges.txt")]
    except pytest.skip.Exception:
        vocab = reference.read_vocab(reference.GOLDEN / "bpe_vocab.json")
        vocab |= {f"filler{i}": i for i in range(len(vocab), 50257)}
        return [json.dumps(vocab).encode(), (reference.GOLDEN / "bpe_merges.txt").read_bytes()]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that the server can read, too."""
    path = Path(tempfile.mkdtemp(prefix="llm-sql-import-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_import_and_first_token(
    gpt2: psycopg.Connection[Any],
    db_url: str,
    connect: Connect,
    folder: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpt2.execute("SELECT llm_load_bpe('gpt2', %s, %s)", tokenizer(request))
    digest = "SELECT sha256(string_agg(sha256(data::bytea), '' ORDER BY name, token_id)) FROM llm_param"
    before = scalar(gpt2, digest)
    engine = create_engine(db_url)
    took: dict[str, float] = {}
    path = folder / "model.safetensors"

    def on_client(what: Callable[[LanguageModel, Path], int]) -> None:
        with Session(engine) as session, session.begin():
            assert what(LanguageModel(session, "gpt2"), path) == 124_439_808

    took["export, client"] = seconds(lambda: on_client(LanguageModel.export_weights))
    path.chmod(0o644)
    took["import, client"] = seconds(lambda: on_client(LanguageModel.import_weights))
    assert scalar(gpt2, digest) == before
    query = "SELECT pg_llm_import_safetensors(%s, 'gpt2')"
    took["import, server"] = seconds(lambda: gpt2.execute(query, (str(path),)))
    assert scalar(gpt2, digest) == before
    engine.dispose()
    first = "SELECT llm_generate(%s, 1, 0, model => 'gpt2')"

    def first_token(weights: str) -> float:
        with connect() as fresh:
            fresh.execute(f"SET pg_llm.weights = '{weights}'")
            return seconds(lambda: fresh.execute(first, ("The relational model of data",)))

    # The first reader after an import marks rows as committed, beside autovacuum: not yet a warm cache.
    took["first token, right after the import"] = first_token("float32")
    gpt2.execute("VACUUM llm_param")
    for weights in ("float32", "bf16", "int8", "int4"):
        took[f"first token, {weights}, best of three"] = min(first_token(weights) for _ in range(3))
    with capsys.disabled():
        print("", *(f"{what}: {time_:.2f} s" for what, time_ in took.items()), sep="\n  ")
