"""Chat templates that the server does not know, rendered here in Jinja's sandbox as transformers does it.

The result is not a text but its parts, of which each is the template's own or what a message says: the server
looks for special tokens in the first kind only. So the template is rendered twice, with marks in the place of
the contents and with the contents themselves, and what stands where a mark stood must be the content.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from llm_sql.errors import LLMSQLError, UsageError

Message = Mapping[str, str]
MOST_SECONDS = 10.0
MOST_CHARACTERS = 1 << 26
_MOST_TEMPLATE = 1 << 20
_EXAMPLE = '[{"role": "user", "content": "What is an index?"}]'


def rendered(
    template: str, messages: Sequence[Message], bos: str | None = None, eos: str | None = None
) -> dict[str, Any]:
    """The conversation as llm_chat takes it from a client: its parts, and what follows an answer.

    LLMSQLError when the template refuses it, does more than is sensible, or changes what messages say
    otherwise than at their ends.
    """
    render = _compiled(template, {"bos_token": bos or "", "eos_token": eos or ""})
    marks = [f"q{secrets.token_hex(12)}" for _ in messages]
    whole = render(messages, True)
    marked = render(
        [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)], True
    )
    contents = {mark: message["content"] for mark, message in zip(marks, messages, strict=True)}
    # Texts and marks in turn.
    pieces = re.split(f"({'|'.join(marks)})", marked)
    placed = _placed(whole, pieces, contents)
    if placed is None:
        raise LLMSQLError(
            "the model's chat template changes what messages say, which is then not told from its own text",
            hint="llm_set_chat_template(model, template) gives it another template.",
        )
    parts = [{"template" if i % 2 == 0 else "content": text} for i, text in enumerate(placed)]
    return {"parts": parts, "ending": _ending(render)}


def check(template: str) -> None:
    """UsageError without jinja2, LLMSQLError for a text that is no template."""
    _compiled(template, {})


def _placed(whole: str, pieces: list[str], contents: Mapping[str, str]) -> list[str] | None:
    """The pieces with contents for the marks, each as it is or as templates trim it, so that they make up the
    whole.
    """
    # By where a piece ends, the form that it has there, and where it begins: any way to there is as good.
    ends: list[dict[int, tuple[str, int]]] = []
    starts = [0]
    for number, piece in enumerate(pieces):
        found: dict[int, tuple[str, int]] = {}
        for at in starts:
            for form in (piece,) if number % 2 == 0 else _forms(contents[piece]):
                if whole.startswith(form, at):
                    found.setdefault(at + len(form), (form, at))
        ends.append(found)
        starts = list(found)
    placed = []
    at = len(whole)
    for found in reversed(ends):
        if at not in found:
            return None
        form, at = found[at]
        placed.append(form)
    return placed[::-1]


def _forms(content: str) -> Iterator[str]:
    """What templates make of a content: nothing, white space off its ends, reasoning left out."""
    answer = content.rpartition("</think>")[2]
    for form in dict.fromkeys((content, answer)):
        yield from dict.fromkeys(
            (form, form.strip(), form.lstrip(), form.rstrip(), form.lstrip("\n"), form.strip("\n"))
        )


def _ending(render: Callable[[Sequence[Message], bool], str]) -> str:
    """What the template puts after an answer."""
    mark = f"q{secrets.token_hex(12)}"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    try:
        return render(turns, False).rpartition(mark)[2]
    except LLMSQLError:
        return ""


def _compiled(template: str, tokens: Mapping[str, str]) -> Callable[[Sequence[Message], bool], str]:
    try:
        import jinja2
        from jinja2.exceptions import TemplateError
    except ImportError as error:
        raise UsageError(
            "the model's chat template is rendered with jinja2, which is not installed",
            hint='pip install "llm-sql[chat]"',
        ) from error
    if len(template) > _MOST_TEMPLATE:
        raise LLMSQLError(f"the model's chat template is too long: {len(template):,} characters")
    limit = _Limit()
    environment = _environment(limit)
    try:
        compiled = environment.from_string(template)
    except (TemplateError, RecursionError, MemoryError, ValueError) as error:
        raise LLMSQLError(f"the model's chat template is not understood: {error}") from error

    def render(messages: Sequence[Message], answers: bool) -> str:
        limit.restart()
        size, pieces = 0, []
        try:
            for piece in compiled.generate(
                messages=[dict(message) for message in messages], tools=None, documents=None,
                add_generation_prompt=answers, **tokens,
            ):  # fmt: skip
                size += len(piece)
                limit.check(size)
                pieces.append(piece)
        except LLMSQLError:
            raise
        except Exception as error:
            # Whatever a template can go wrong with: its operations are Python's.
            kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
            raise LLMSQLError(f"the model's chat template refuses the conversation: {kind}{error}") from error
        return "".join(pieces)

    return render


class _Limit:
    """Time and size that a template may take."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.until = time.monotonic() + MOST_SECONDS

    def check(self, size: int = 0) -> str:
        if time.monotonic() > self.until:
            raise LLMSQLError(f"the model's chat template takes more than {MOST_SECONDS:.0f} seconds")
        if size > MOST_CHARACTERS:
            raise LLMSQLError("the model's chat template makes a text that is too long")
        return ""


def _environment(limit: _Limit) -> Any:
    import jinja2
    import jinja2.ext
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """{% generation %} marks an answer for training; its contents stand as they are."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "%", "**"})

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree = super()._parse(source, name, filename)
            for loop in tree.find_all(nodes.For):
                check = nodes.Call(nodes.Name("_limit", "load"), [], [], None, None)
                loop.body.insert(0, nodes.Output([check]))
            tree.set_environment(self)
            return tree

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            limit.check(_product(operator, left, right))
            return super().call_binop(context, operator, left, right)

        def call(self, *args: Any, **kwargs: Any) -> Any:
            found = super().call(*args, **kwargs)
            limit.check(len(found) if isinstance(found, str) else 0)
            return found

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["_limit"] = limit.check
    return environment


def _product(operator: str, left: Any, right: Any) -> int:
    """How long a text an operation makes, about."""
    if operator == "+":
        return sum(len(side) for side in (left, right) if isinstance(side, (str, list, tuple)))
    if operator == "%" and isinstance(left, str):
        widths = re.findall(r"\d+", left)
        return max((int(width[:12]) for width in widths), default=0)
    if operator == "**":
        return _bits(left) * (abs(right) if isinstance(right, int) else 1)
    for text, times in ((left, right), (right, left)):
        if isinstance(text, (str, list, tuple)) and isinstance(times, int):
            return len(text) * times
    return 0


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 1


def _raise(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: without HTML's escapes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def checked(messages: object) -> list[dict[str, str]]:
    """The messages, each with role and content. UsageError, naming the message: they have another form."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise UsageError("messages must be a list of messages", hint=_EXAMPLE)
    if not messages:
        raise UsageError("messages must hold a message", hint=_EXAMPLE)
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise UsageError(f"message {number} must have role and content, got {type(message).__name__}")
        for name in ("role", "content"):
            if not isinstance(message.get(name), str):
                raise UsageError(f'message {number} must have a text as "{name}"')
        # A role becomes part of the template's own text.
        if not re.fullmatch(r"[A-Za-z]\w{0,40}", message["role"], re.ASCII):
            raise UsageError(f"the role of message {number} must be a word, for example user")
        for name in message:
            if name not in ("role", "content"):
                raise UsageError(f'message {number} has "{name}", which is not supported')
    return [dict(message) for message in cast("Sequence[Message]", messages)]
