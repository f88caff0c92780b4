"""The forms of a list of arguments in functions/*.sql, where `{{ sampling.parameters }}` stands for one.

`{{ architectures.forward }}` stands for something of each built-in architecture, `{{ rows.of_run }}` for the
rows of llm_dataset that a run trains on.

migrations/sql holds the text written out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable

from .arguments import LISTS, Argument
from .seeds import ARCHITECTURE_ROWS, MODELS
from .settings import COLUMNS

WIDTH = 120
Arguments = tuple[Argument, ...]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def wrapped(parts: Iterable[str], indent: int) -> str:
    """Parts separated by commas, as many to a line as fit."""
    joined = ", ".join(part.replace(" ", "\x00") for part in parts)
    lines = textwrap.wrap(joined, WIDTH - indent - 1, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\x00", " ")


def _parameters(arguments: Arguments, indent: int) -> str:
    """As CREATE FUNCTION declares them, with their defaults."""
    return ",\n".join(f"{a.name} {a.type} DEFAULT {a.default}" for a in arguments)


def _columns(arguments: Arguments, indent: int) -> str:
    return wrapped((f"{a.name} {a.type}" for a in arguments), indent)


def _results(arguments: Arguments, indent: int) -> str:
    """As OUT parameters."""
    return wrapped((f"OUT {a.name} {a.type}" for a in arguments), indent)


def _types(arguments: Arguments, indent: int) -> str:
    """As COMMENT ON FUNCTION wants them."""
    return wrapped((a.type for a in arguments), indent)


def _names(arguments: Arguments, indent: int) -> str:
    """To pass them on by position."""
    return wrapped((a.name for a in arguments), indent)


def _named(arguments: Arguments, indent: int) -> str:
    """To pass them on by name."""
    return wrapped((f"{a.name} => {a.name}" for a in arguments), indent)


def _pairs(arguments: Arguments, indent: int) -> str:
    """Name and value in turn, as jsonb_build_object takes them."""
    return wrapped((f"'{a.name}', {a.name}" for a in arguments), indent)


def _defaults(arguments: Arguments, indent: int) -> str:
    """Name and default in turn."""
    return wrapped((f"'{a.name}', {a.default}" for a in arguments), indent)


def _checks(arguments: Arguments, indent: int) -> str:
    """Rows of VALUES: name, whether it is as it must be, the rule, the value."""
    rows = []
    for argument in arguments:
        for check in argument.all_checks:
            rule = check.rule if check.rule.startswith("format(") else _text(check.rule)
            parts = (_text(argument.name), check.holds, rule, f"{argument.name}::text")
            row = f"({', '.join(parts)})"
            rows.append(row if len(row) < WIDTH - indent else "(\n    " + ",\n    ".join(parts) + "\n)")
    return ",\n".join(rows)


def _docs(arguments: Arguments, indent: int) -> str:
    """As lines of a COMMENT's text: what each of them is."""
    lines = textwrap.wrap(" ".join(f"{a.name}: {a.doc}." for a in arguments), WIDTH - indent - 8)
    return "\n".join(_text(f"{line} ") for line in lines)


FORMS: dict[str, Callable[[Arguments, int], str]] = {
    "parameters": _parameters,
    "columns": _columns,
    "results": _results,
    "types": _types,
    "names": _names,
    "named": _named,
    "pairs": _pairs,
    "defaults": _defaults,
    "checks": _checks,
    "docs": _docs,
}


def _forward_calls() -> str:
    """Branches of a CASE by llm_arch.forward: the call of the architecture's forward pass."""
    arguments = "model, tokens, training, targets, dropout_p, last_only"
    return "\n".join(
        f"WHEN {_text(row['forward'])} THEN\n    RETURN {row['forward']}({arguments});"
        for row in ARCHITECTURE_ROWS
    )


def _hidden_calls() -> str:
    """Branches of a CASE by architecture: the call that gives its hidden states."""
    names = [row["arch"] for row in ARCHITECTURE_ROWS]
    return "\n".join(
        f"WHEN {_text(name)} THEN\n    RETURN public.llm_hidden_{name}(model, tokens, n_blocks);"
        for name in names
    )


def _sizes() -> str:
    """Rows of VALUES: each architecture and the sizes of its smallest published model."""
    smallest = {model["arch"]: model for model in reversed(MODELS)}
    names = ("n_layer", "n_head", "d_model", "n_positions", "vocab", "layer_norm_eps")
    return ",\n".join(
        f"({_text(arch)}, {', '.join(str(model[name]) for name in names)},"
        f" {_text(model['activation_function'])}, {str(model['tied']).lower()})"
        for arch, model in sorted(smallest.items())
    )


def _without_settings() -> str:
    """The architectures that know no settings."""
    return ", ".join(_text(row["arch"]) for row in ARCHITECTURE_ROWS if not row["settings"])


def _config_columns() -> str:
    return wrapped(map(_text, COLUMNS), 16)


def _embed_calls() -> str:
    """Branches of a CASE by architecture: the call that gives an encoder's embeddings."""
    return "\n".join(
        f"WHEN {_text(row['arch'])} THEN\n"
        f"    RETURN public.llm_embed_{row['arch']}(model, tokens, lengths, training, dropout_p);"
        for row in ARCHITECTURE_ROWS
        if row["kind"] == "encoder"
    )


ARCHITECTURE_FORMS: dict[str, Callable[[], str]] = {
    "forward": _forward_calls,
    "hidden": _hidden_calls,
    "embed": _embed_calls,
    "sizes": _sizes,
    "without_settings": _without_settings,
    "config_columns": _config_columns,
}


def _rows_of(model: str) -> str:
    """Condition on a row d of llm_dataset: a run of the model trains on it (only_row: on that one)."""
    return (
        "CASE\n"
        f"    WHEN only_row IS NULL THEN (d.model = {model} OR d.model IS NULL) AND d.split = 'train'\n"
        "    ELSE d.id = only_row\n"
        "END"
    )


OTHER_FORMS: dict[str, dict[str, Callable[[], str]]] = {
    "architectures": ARCHITECTURE_FORMS,
    "rows": {
        "of_model": lambda: _rows_of("llm_train_data.model"),
        "of_run": lambda: _rows_of("run.model"),
        # As a range of one; the highest bigint has no successor, which a range's upper bound would be.
        "as_range": lambda: "int8range(d.id, NULLIF(d.id, 9223372036854775807) + 1)",
    },
}

_MARK = re.compile(r"^(?P<indent> *)(?P<before>[^\n{]*)\{\{ (?P<list>\w+)\.(?P<form>\w+) \}\}", re.MULTILINE)


def expand(script: str) -> str:
    """The script with its lists written out, further lines indented as the mark's line is."""

    def written(mark: re.Match[str]) -> str:
        indent = mark["indent"]
        if mark["list"] in OTHER_FORMS:
            text = OTHER_FORMS[mark["list"]][mark["form"]]()
        else:
            text = FORMS[mark["form"]](LISTS[mark["list"]], len(indent))
        return indent + mark["before"] + text.replace("\n", "\n" + indent)

    return _MARK.sub(written, script)
