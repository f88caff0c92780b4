"""Arguments that several functions share, each declared once: how text is sampled, how a model is trained.

In functions/*.sql `{{ sampling.parameters }}` stands for a list in one of the forms below; `expand` writes it
out. The options of the Python classes and of the command line come from the same lists (llm_sql/codegen.py).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

WIDTH = 120


@dataclass(frozen=True)
class Check:
    """An SQL condition on the arguments, by their names, and how "NAME must ..." goes on; the rule may be an
    SQL expression itself: format('...', ...).
    """

    holds: str
    rule: str


@dataclass(frozen=True)
class Argument:
    """One argument: name, type and default as in SQL, and what is said of it in help texts.

    `flags` are the command line's names for it, by default --its-name.
    """

    name: str
    type: str
    default: str
    doc: str
    checks: tuple[Check, ...] = ()
    choices: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def all_checks(self) -> tuple[Check, ...]:
        if not self.choices:
            return self.checks
        quoted = ", ".join(f"'{choice}'" for choice in self.choices)
        return (Check(f"{self.name} IN ({quoted})", f"be {_either(self.choices)}"), *self.checks)


def _either(choices: tuple[str, ...]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}"


_FINITE = Check("abs({0}) < 'Infinity'", "be finite")
_POSITIVE = Check("{0} > 0 AND {0} < 'Infinity'", "be positive and finite")


def _on(name: str, check: Check) -> tuple[Check]:
    return (Check(check.holds.format(name), check.rule),)


SAMPLING = (
    Argument(
        "max_tokens", "int", "64", "Generate at most N tokens.",
        (Check("max_tokens >= 1", "be at least 1"),),
        flags=("--max-tokens", "-n"),
    ),
    Argument(
        "temperature", "double precision", "1", "Divides the logits; 0: always the most likely token.",
        (Check("temperature >= 0 AND temperature < 'Infinity'", "be finite and not negative"),),
        flags=("--temperature", "-t"),
    ),
    Argument(
        "top_k", "int", "50", "Choose among the N most likely tokens; 0: among all.",
        (Check("top_k >= 0", "not be negative"),),
    ),
    Argument(
        "top_p", "double precision", "0.95",
        "Choose among the most likely tokens that together have this probability; 1: among all.",
        (Check("top_p > 0 AND top_p <= 1", "be above 0 and at most 1"),),
    ),
    Argument("model", "text", "NULL", "Name of the model; default: the database's default model."),
    Argument("seed", "bigint", "NULL", "The same seed gives the same text."),
    Argument(
        "stop", "text[]", "NULL", "Stop before this text.",
        (Check("array_position(stop, '') IS NULL", "hold no empty text"),),
    ),
    Argument("echo", "boolean", "false", "Put the prompt before the text."),
    Argument(
        "repetition_penalty", "double precision", "1",
        "Divides (above 1) the likelihood of tokens of prompt and text (Keskar et al. 2019).",
        _on("repetition_penalty", _POSITIVE),
    ),
    Argument(
        "presence_penalty", "double precision", "0", "Subtracted from the logits of tokens of the text.",
        _on("presence_penalty", _FINITE),
    ),
    Argument(
        "frequency_penalty", "double precision", "0",
        "Subtracted from the logits of tokens of the text for each time they occur in it.",
        _on("frequency_penalty", _FINITE),
    ),
)  # fmt: skip
"""Of llm_generate and what is like it, after the prompt."""


def pick(arguments: Iterable[Argument], *names: str, **defaults: str) -> tuple[Argument, ...]:
    """Some of the arguments, in the order of the names, with other defaults for those given by name."""
    known = {argument.name: argument for argument in arguments}
    return tuple(replace(known[name], default=defaults.get(name, known[name].default)) for name in names)


def without(arguments: Iterable[Argument], *names: str) -> tuple[Argument, ...]:
    return tuple(argument for argument in arguments if argument.name not in names)


LISTS: dict[str, tuple[Argument, ...]] = {
    "sampling": SAMPLING,
    # What a generation's handle keeps (kernels/postgres/generation/next_token.c).
    "settings": without(SAMPLING, "model", "echo"),
}


# ---- forms ----


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _wrapped(parts: Iterable[str], indent: int) -> str:
    """Parts separated by commas, as many to a line as fit."""
    joined = ", ".join(part.replace(" ", "\x00") for part in parts)
    lines = textwrap.wrap(joined, WIDTH - indent - 2, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\x00", " ")


def _parameters(arguments: tuple[Argument, ...], indent: int) -> str:
    return ",\n".join(f"{a.name} {a.type} DEFAULT {a.default}" for a in arguments)


def _columns(arguments: tuple[Argument, ...], indent: int) -> str:
    return _wrapped((f"{a.name} {a.type}" for a in arguments), indent)


def _types(arguments: tuple[Argument, ...], indent: int) -> str:
    return _wrapped((a.type for a in arguments), indent)


def _names(arguments: tuple[Argument, ...], indent: int) -> str:
    return _wrapped((a.name for a in arguments), indent)


def _pairs(arguments: tuple[Argument, ...], indent: int) -> str:
    return _wrapped((f"'{a.name}', {a.name}" for a in arguments), indent)


def _checks(arguments: tuple[Argument, ...], indent: int) -> str:
    rows = []
    for argument in arguments:
        for check in argument.all_checks:
            rule = check.rule if check.rule.startswith("format(") else _text(check.rule)
            parts = (f"'{argument.name}'", check.holds, rule, f"{argument.name}::text")
            row = f"({', '.join(parts)})"
            rows.append(row if len(row) < WIDTH - indent else "(\n    " + ",\n    ".join(parts) + "\n)")
    return ",\n".join(rows)


FORMS: dict[str, Callable[[tuple[Argument, ...], int], str]] = {
    "parameters": _parameters,  # of a CREATE FUNCTION, with defaults
    "columns": _columns,  # names and types
    "types": _types,  # as COMMENT ON FUNCTION wants them
    "names": _names,  # to pass the arguments on
    "pairs": _pairs,  # name and value in turn, as for jsonb_build_object
    "checks": _checks,  # rows of VALUES: name, whether it holds, the rule, the value
}

_MARK = re.compile(r"^(?P<indent> *)(?P<before>[^\n{]*)\{\{ (?P<list>\w+)\.(?P<form>\w+) \}\}", re.MULTILINE)


def expand(script: str) -> str:
    """The script with its marks written out, continuation lines indented as the mark's line is."""

    def written(mark: re.Match[str]) -> str:
        indent = mark["indent"]
        text = FORMS[mark["form"]](LISTS[mark["list"]], len(indent))
        return indent + mark["before"] + text.replace("\n", "\n" + indent)

    return _MARK.sub(written, script)
