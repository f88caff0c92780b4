"""Every command under foreign settings of the session, as each role, in databases of every encoding."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from llm_sql.cli import app

SETTINGS = {
    "search_path empty": "-csearch_path= -cbytea_output=escape -cclient_min_messages=error",
    "search_path elsewhere": "-csearch_path=app -cdefault_transaction_isolation=serializable"
    " -cDateStyle=SQL,DMY -cIntervalStyle=sql_standard",
    "strings and numbers": "-cstandard_conforming_strings=off -cbackslash_quote=on -cextra_float_digits=-15",
}
TEXT = "the cat sat on the mat\nthe dog ran to the cat\na cat ran\n" * 3
LOOK_ALIKES = """
CREATE SCHEMA app;
CREATE TABLE app.llm_param (model text); CREATE TABLE app.llm_model_config (model text);
CREATE TABLE app.llm_dataset (model text); CREATE TABLE app.llm_train_log (model text);
CREATE TABLE app.llm_sql_version (version_num text);
CREATE DOMAIN app.tensor AS text;
CREATE FUNCTION app.llm_generate(prompt text, max_tokens int, temperature float8, top_k int, top_p float8,
    model text, seed bigint, stop text[]) RETURNS text LANGUAGE sql AS $$ SELECT 'stranger' $$;
CREATE FUNCTION app.shape(x public.tensor) RETURNS int[] LANGUAGE sql AS $$ SELECT '{13}'::int[] $$;
CREATE FUNCTION app.wrong(a public.tensor, b public.tensor) RETURNS public.tensor
    LANGUAGE sql AS $$ SELECT a $$;
CREATE OPERATOR app.+ (LEFTARG = public.tensor, RIGHTARG = public.tensor, FUNCTION = app.wrong);
GRANT USAGE ON SCHEMA app TO PUBLIC;
"""

Run = Callable[..., Any]


def command_line(url: str) -> Run:
    """Runs a command; whatever ends it is a code and a sentence, never a traceback."""

    def run(*arguments: str, ok: bool = True) -> Any:
        done: Any = CliRunner().invoke(app, [*arguments, "--url", url], env={"DATABASE_URL": None})
        error = done.exception
        if error is not None and not isinstance(error, SystemExit):
            # main() turns these into a sentence and an exit code.
            import sqlalchemy.exc

            from llm_sql.errors import LLMSQLError
            from llm_sql.refusal import as_llm_sql_error

            if isinstance(error, (psycopg.Error, sqlalchemy.exc.SQLAlchemyError)):
                error = as_llm_sql_error(error)
            assert isinstance(error, LLMSQLError), (arguments, repr(error))
            done.message = str(error)
        if ok:
            assert done.exit_code == 0, (arguments, done.output, repr(done.exception))
        return done

    return run


def every_command(run: Run, folder: Path) -> None:
    """The life of a model, by commands."""
    (folder / "text.txt").write_text(TEXT)
    query = "SELECT unnest(ARRAY['the cat sat', 'the dog ran', 'a cat ran', 'the mat'])"
    characters = "SELECT 'abcdefghijklmnopqrstuvwxyz ' || chr(10)"
    run("tokenizer", "chars", "c", "--query", characters)
    run("create", "c", "--layers", "1", "--heads", "2", "--width", "8", "--context", "16")
    run("dataset", "fill", "c", "--query", query, "--block-size", "8")
    run("dataset", "fill", "c", "--query", query, "--stream", "--block-size", "8")
    run("dataset", "fill", "c", "--input", str(folder / "text.txt"), "--lines", "--block-size", "8")
    assert "train" in run("dataset", "show", "c").output
    run("train", "c", "--steps", "4", "--commit-every", "2", "--lr", "0.0003333333333333333")
    run("train", "c", "--steps", "2", "--commit-every", "0")
    run("visualize", "loss", "c")
    assert run("generate", "the ", "-m", "c", "-n", "8", "--seed", "1").stdout.startswith("the ")
    run("evaluate", "-m", "c", "--split", "train")
    run("evaluate", "-m", "c", "--text", "the cat")
    run("evaluate", "-m", "c", "--query", query)
    assert json.loads(run("tokenizer", "encode", "c", "the cat").stdout)
    run("tokenizer", "decode", "c", "1", "2")
    run("finetune", "c", "--input", str(folder / "text.txt"), "--lines", "--steps", "2", "--name", "d")
    before, after = folder / "before.safetensors", folder / "after.safetensors"
    run("export", str(before), "--model", "c")
    run("import", str(before), "--model", "c")
    run("export", str(after), "--model", "c")
    assert before.read_bytes() == after.read_bytes()
    saved = json.loads(run("checkpoint", "save", "c", "--json").stdout)["id"]
    run("checkpoint", "load", "c", str(saved))
    run("checkpoint", "list")


@pytest.fixture
def database(server: Any, fresh_database: str) -> str:
    with psycopg.connect(server.url(fresh_database), autocommit=True) as connection:
        connection.execute(LOOK_ALIKES)
    return fresh_database


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_command_works(setting: str, server: Any, database: str, tmp_path: Path) -> None:
    url = server.sqlalchemy_url(database)
    joiner = "&" if "?" in url else "?"
    run = command_line(f"{url}{joiner}options={quote(SETTINGS[setting])}")
    every_command(run, tmp_path)
    run("tokenizer", "train", "b", "--query", "SELECT 'the cat sat'", "--vocab", "258")


READS = (
    ("generate", "the ", "-m", "c", "-n", "4", "--seed", "1"),
    ("evaluate", "-m", "c", "--split", "train"),
    ("evaluate", "-m", "c", "--text", "the cat"),
    ("tokenizer", "encode", "c", "the cat"),
    ("dataset", "show", "c"),
    ("checkpoint", "list"),
)
WRITES = (
    ("create", "new", "--vocab", "5"),
    ("train", "c", "--steps", "1"),
    ("finetune", "c", "--query", "SELECT 'the cat sat'", "--steps", "1"),
    ("dataset", "fill", "c", "--query", "SELECT 'the cat sat'"),
    ("tokenizer", "train", "c", "--query", "SELECT 'the cat sat'", "--vocab", "260"),
    ("checkpoint", "load", "c", "1"),
)


@pytest.fixture(scope="module")
def trained(server: Any, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with a trained model, for tests that change nothing."""
    name = server.create_database(template)
    every_command(command_line(server.sqlalchemy_url(name)), tmp_path_factory.mktemp("trained"))
    yield name
    server.drop_database(name)


def test_readers_work_where_nobody_may_write(server: Any, trained: str, tmp_path: Path) -> None:
    name = f"reader_{secrets.token_hex(4)}"
    server.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE llm_reader").format(sql.Identifier(name)))
    try:
        read_only = quote("-cdefault_transaction_read_only=on")
        for url in (server.sqlalchemy_url(trained), server.sqlalchemy_url(trained, user=name)):
            run = command_line(f"{url}{'&' if '?' in url else '?'}options={read_only}")
            for command in READS:
                run(*command)
            run("export", str(tmp_path / "c.npz"), "--model", "c")
            for command in WRITES:
                refused = run(*command, ok=False)
                assert refused.exit_code != 0, command
    finally:
        server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_role_without_grants_is_told_so(server: Any, trained: str) -> None:
    name = f"nobody_{secrets.token_hex(4)}"
    server.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    try:
        run = command_line(server.sqlalchemy_url(trained, user=name))
        for command in (*READS, *WRITES):
            assert run(*command, ok=False).exit_code != 0, command
    finally:
        server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded(request: Any, server: Any) -> Iterator[tuple[str, str]]:
    """A provisioned database of another encoding."""
    from llm_sql.provision import upgrade

    name = f"e_{secrets.token_hex(5)}"
    create = "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE_PROVIDER libc LOCALE 'C'"
    server.execute(sql.SQL(create).format(sql.Identifier(name), sql.Literal(request.param)))  # type: ignore[arg-type]
    upgrade(server.sqlalchemy_url(name))
    yield request.param, name
    server.drop_database(name)


def test_databases_of_other_encodings(encoded: tuple[str, str], server: Any, tmp_path: Path) -> None:
    encoding, name = encoded
    run = command_line(server.sqlalchemy_url(name))
    every_command(run, tmp_path)
    # The byte-level alphabet of a BPE tokenizer goes beyond LATIN1.
    train = ("tokenizer", "train", "b", "--query", "SELECT 'the cat sat'", "--vocab", "258")
    trained = run(*train, ok=encoding != "LATIN1")
    if encoding == "LATIN1":
        assert "UTF8" in trained.message
    foreign = run("generate", "中", "-m", "c", ok=False)
    assert foreign.exit_code != 0
    if encoding == "LATIN1":
        assert "LATIN1" in foreign.message
        assert "UTF8" in foreign.message

    from llm_sql.client import PGLLMClient

    with psycopg.connect(server.url(name)) as connection:
        client = PGLLMClient(connection)
        options: dict[str, Any] = {"model": "c", "max_tokens": 6, "seed": 1}
        text = client.generate("the ", **options)
        assert type(text) is str
        events = list(client.stream("the ", **options))
        assert "".join(event.token for event in events) == events[-1].text == text
        assert all(type(beam.text) is str for beam in client.beam_search("the ", model="c", max_tokens=3))


def test_a_nul_is_found_before_anything_is_loaded(server: Any, trained: str, tmp_path: Path) -> None:
    (tmp_path / "nul.txt").write_bytes(b"the cat\n" * 5 + b"a \0 b\n" + b"the dog\n" * 5)
    run = command_line(server.sqlalchemy_url(trained))
    before = run("dataset", "show", "c").output
    for command in (("dataset", "fill", "c"), ("finetune", "c", "--steps", "1")):
        for lines in ((), ("--lines",)):
            refused = run(*command, "--input", str(tmp_path / "nul.txt"), *lines, ok=False)
            assert refused.exit_code != 0
            assert "nul.txt, line 6" in refused.message
    assert run("dataset", "show", "c").output == before


def test_an_empty_url_is_no_embedded_server() -> None:
    refused = command_line("")("dataset", "show", "c", ok=False)
    assert "--url is empty" in refused.message
