"""A conversation: the messages so far, the session that answers them, and what a person types."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from llm_sql import conversations
from llm_sql.cli.common import remark, say
from llm_sql.cli.models import default_model
from llm_sql.client import StreamEvent
from llm_sql.errors import DatabaseUnreachableError, LLMSQLError
from llm_sql.model import LanguageModel
from llm_sql.refusal import as_llm_sql_error

if TYPE_CHECKING:
    from types import FrameType

HELP = """\
/system TEXT   the system message: how to answer; without TEXT, none
/reset         forget what was said
/help          this
Ctrl-C stops an answer and keeps the conversation; Ctrl-D ends it.
A line that ends in \\ goes on in the next."""


class Conversation:
    """Messages and their answers. Between two messages no transaction is open."""

    def __init__(
        self, engine: Engine, model: str | None, system: str | None, options: Mapping[str, Any]
    ) -> None:
        self.engine = engine
        self.session = Session(engine)
        self.options: Any = {name: value for name, value in options.items() if value is not None}
        self.messages: list[dict[str, str]] = []
        self.system = system
        self.model = default_model(self.session, model)
        self._driver: Any = None
        self.begin()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def begin(self) -> None:
        """Forget what was said. LLMSQLError: nothing renders the model's conversations."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        self._settled(lambda: conversations.answered(self.session, conversations.check(self.model)))

    def ask(
        self, message: str, *, show: Callable[[str], None] | None, stopped: Callable[[], bool] = bool
    ) -> list[StreamEvent]:
        """The answer, shown as it comes; it becomes a part of the conversation as far as it came.

        An error, or an end before there was a word, leaves the conversation as it was.
        """
        said = [*self.messages, {"role": "user", "content": message}]
        events: list[StreamEvent] = []

        def answer() -> None:
            self._driver = self.session.connection().connection.driver_connection
            stream = LanguageModel(self.session, self.model).chat_stream(said, **self.options)
            with contextlib.closing(stream):  # type: ignore[type-var]
                for event in stream:
                    events.append(event)
                    if show is not None:
                        show(event.token)
                    if stopped():
                        break

        try:
            self._settled(answer)
        except LLMSQLError:
            # The server's word for what was asked of it here.
            if not stopped():
                raise
        if events and events[-1].text:
            self.messages = [*said, {"role": "assistant", "content": events[-1].text}]
        return events

    def cancel(self) -> None:
        """Tell the server to stop what it is working on; may be called from another thread."""
        if isinstance(self._driver, psycopg.Connection):
            self._driver.cancel()

    def _settled(self, work: Callable[[], object]) -> None:
        """Work, and the end of its transaction: nobody waits for what a person types."""
        try:
            work()
        except KeyboardInterrupt:
            # It may have come while a statement was being sent: nothing more can be said on the connection.
            self.session.invalidate()
            raise
        except (psycopg.Error, SQLAlchemyError) as error:
            raise as_llm_sql_error(error) from error
        finally:
            try:
                self.session.rollback()
            except (psycopg.Error, SQLAlchemyError):
                self.session.invalidate()


def talk(conversation: Conversation) -> None:
    """Until the end of the input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # editing of the line, and those before it
    remark(f"{conversation.model}: /help says what there is, Ctrl-D ends")
    while True:
        try:
            line = _read()
        except KeyboardInterrupt:  # the line is not wanted
            say()
            continue
        except EOFError:
            say()
            return
        if not line.strip():
            continue
        try:
            if line.startswith("/"):
                _command(conversation, line)
            else:
                _answer(conversation, line)
        except DatabaseUnreachableError:
            raise
        except LLMSQLError as error:
            remark(f"error: {error.message}", "red")
            if error.hint:
                remark(f"hint: {error.hint}")


def _read() -> str:
    lines = [input("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input(". "))
    return "\n".join(lines)


def _command(conversation: Conversation, line: str) -> None:
    name, _, rest = line.partition(" ")
    if name == "/system":
        conversation.system = rest.strip() or None
        said = [message for message in conversation.messages if message["role"] != "system"]
        conversation.begin()
        conversation.messages += said
    elif name == "/reset":
        conversation.begin()
    elif name == "/help":
        remark(HELP)
    else:
        raise LLMSQLError(
            f"there is no command {name}", hint="/help lists them; a message may begin with a space"
        )


def _answer(conversation: Conversation, line: str) -> None:
    def show(piece: str) -> None:
        say(piece, end=False)
        sys.stdout.flush()

    with _stopping(conversation.cancel) as stopped:
        events = conversation.ask(line, show=show, stopped=stopped)
    say()
    if stopped():
        kept = "as far as it came, it is kept" if events and events[-1].text else "the message is not kept"
        remark(f"stopped: {kept}", "yellow")


@contextlib.contextmanager
def _stopping(cancel: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C is told by what is given, and cancels; the second interrupts."""
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        # In a thread: the handler stands in the middle of what the connection is doing.
        threading.Thread(target=_quietly, args=(cancel,), name="llm-sql cancel", daemon=True).start()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


def _quietly(work: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        work()
