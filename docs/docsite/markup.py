"""Plain text, as comments and help texts are, in MyST Markdown; names in it become code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NAME = re.compile(
    r"`[^`]+`"  # already code
    r"|\bpg_llm\.\w+|\b(?:pg_)?llm_\w+(?:\(\))?"  # settings, relations, functions
    r"|(?<![\w-])--[a-z][\w-]*"  # options of the command line
    r"|\b(?:0A|[2-9][0-9A-Z])[0-9A-Z]{3}\b(?=[:;,. )]|$)(?<!\d{3}\d{2})"  # SQLSTATEs with a letter
    r"|\b(?:22003|22004|22021|22023|22000|23505|25006|40001|42501|42601|42704|42710|53100|53200|54000|55000)\b"
)
_SPECIAL = re.compile(r"([\\*_\[\]<>#|$~{}`])")


def escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def prose(text: str) -> str:
    """One paragraph of plain text: names in it as code, everything else as it stands."""
    pieces, end = [], 0
    for found in _NAME.finditer(text):
        pieces += [escape(text[end : found.start()]), f"`{found.group().strip('`')}`"]
        end = found.end()
    return "".join([*pieces, escape(text[end:])])


def paragraphs(text: str) -> str:
    """Plain text of several paragraphs, which empty lines separate."""
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(prose(part) for part in parts if part)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are MyST already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |" for line in lines)


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"


def hidden_toctree(names: Iterable[str]) -> str:
    return "\n".join(["```{toctree}", ":maxdepth: 1", "", *names, "```"])
