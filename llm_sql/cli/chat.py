"""chat: a conversation in the terminal, or one question and its answer."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from llm_sql.cli.common import JsonOption, ModelOption, UrlOption, print_json, say, telling_what_is_kept
from llm_sql.cli.options import options_of
from llm_sql.errors import UsageError
from llm_sql.models.arguments import CHAT, without


def register(app: typer.Typer) -> None:
    app.command()(chat)


@options_of(without(CHAT, "model", "echo"))
def chat(
    message: Annotated[
        str | None,
        typer.Argument(help="A message to answer, instead of a conversation; - reads from standard input."),
    ] = None,
    model: ModelOption = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="The system message: how to answer.")
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Talk with a model that was trained to answer.

    Answers appear as they are generated; Ctrl-C stops one, Ctrl-D ends the conversation, /help lists what
    else there is. With a message, or text on standard input, that is answered and nothing more.

    Example: llm-sql chat -m smollm2 "What is an index?"
    """
    from llm_sql.cli.conversation import Conversation, talk
    from llm_sql.cli.database import open_engine

    if message == "-" or (message is None and not sys.stdin.isatty()):
        message = sys.stdin.read()
    if message is not None and not message.strip():
        raise UsageError("there is no message", hint="llm-sql chat, in a terminal, begins a conversation")
    if message is None and json_:
        raise UsageError("--json is for one message", hint='llm-sql chat --json "What is an index?"')
    with Conversation(open_engine(url), model, system, options) as conversation:
        if message is None:
            talk(conversation)
            return
        with telling_what_is_kept("answering changes nothing in the database"):
            pieces = list(conversation.ask(message, show=None if json_ else _show))
    if json_:
        print_json(
            {
                "model": conversation.model,
                "messages": conversation.messages,
                "text": pieces[-1].text if pieces else "",
                "token_ids": [piece.token_id for piece in pieces],
            }
        )
    else:
        say()


def _show(piece: str) -> None:
    say(piece, end=False)
    sys.stdout.flush()
