"""Names inside the languages of diagrams: whatever they hold, they are text there."""

from __future__ import annotations

from collections.abc import Iterable

from llm_sql.printable import visible

DOT = str.maketrans({"\\": r"\\", '"': r"\""})
MERMAID = str.maketrans(
    {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\\": "#92;"}
)


def dot(lines: Iterable[str]) -> str:
    """A label of Graphviz's, in its quotes."""
    return '"' + "\\n".join(visible(line).translate(DOT) for line in lines) + '"'


def mermaid(lines: Iterable[str]) -> str:
    """A label of Mermaid's, in its quotes."""
    return '"' + "<br/>".join(visible(line).translate(MERMAID) for line in lines) + '"'
