"""What Sphinx is taught here: SQL, Mermaid diagrams, formulas as MathML, links from code to the reference."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from . import SOURCE
from .lexer import SqlLexer

SCRIPTS = ("vendor/mermaid/mermaid.tiny.js", "mermaid.js")
# What a literal in a page must look like to be searched among the reference's names.
CALL = re.compile(r"^([\w.]+)\(.*\)$", re.DOTALL)
COMMAND = re.compile(r"^llm-sql(?: [a-z][\w-]*){1,2}")
NAMES = SOURCE / "names.json"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("sql", SqlLexer)
    app.connect("doctree-read", _sql_cells)
    app.connect("doctree-resolved", _diagrams)
    app.connect("doctree-resolved", _links)
    app.connect("html-page-context", _scripts)
    # After furo has made its navigation.
    app.connect("html-page-context", _access, priority=900)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# ---- SQL ----


def _sql_cells(app: Sphinx, doctree: Any) -> None:
    """A notebook's cells are Python but for those that begin with %%sql."""
    for block in doctree.findall(nodes.literal_block):
        if block.astext().startswith("%%sql"):
            block["language"] = "sql"


# ---- diagrams ----


def _diagrams(app: Sphinx, doctree: Any, name: str) -> None:
    """A mermaid block becomes an element that mermaid.js draws; without JavaScript it stays readable text."""
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") == "mermaid":
            source = html.escape(block.astext())
            block.replace_self(nodes.raw("", f'<pre class="mermaid">{source}</pre>\n', format="html"))


def _scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mermaid weighs 2.5 MB: only pages with a diagram load it."""
    if doctree is not None and '<pre class="mermaid">' in context.get("body", ""):
        for script in SCRIPTS:
            app.add_js_file(script, loading_method="defer")


# ---- access by keyboard and screen reader ----


def _access(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """What scrolls can be reached by keyboard; captions of the navigation are headings with a level."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            text = context[part]
            for before, after in ACCESS.items():
                text = text.replace(before, after)
            context[part] = text


ACCESS = {
    "<pre>": '<pre tabindex="0">',
    '<pre class="mermaid">': '<pre class="mermaid" tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
}


# ---- links from code to the reference ----


def _links(app: Sphinx, doctree: Any, page: str) -> None:
    """`llm_train(...)`, `pg_llm.threads`, `llm-sql train` in text lead to their entries, once a section."""
    names: dict[str, list[str]] = json.loads(NAMES.read_text(encoding="utf-8")) if NAMES.exists() else {}
    linked: set[tuple[int, str]] = set()
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext()
        known = _known(text, names)
        if known is None or _is_in(literal, nodes.reference, nodes.title):
            continue
        target, anchor = names[known]
        section = _section(literal)
        if (id(section), known) in linked or (target == page and anchor in _ids(section)):
            continue
        linked.add((id(section), known))
        uri = "" if target == page else app.builder.get_relative_uri(page, target)
        reference = nodes.reference("", "", refuri=f"{uri}#{anchor}", internal=True, classes=["code-link"])
        literal.replace_self(reference)
        reference += literal


def _known(text: str, names: dict[str, list[str]]) -> str | None:
    call = CALL.match(text)
    name = call[1] if call else text
    if name in names:
        return name
    command = COMMAND.match(text)
    words = command[0].split() if command else []
    for length in (3, 2):
        if len(words) >= length and " ".join(words[:length]) in names:
            return " ".join(words[:length])
    return None


def _is_in(node: Any, *kinds: type) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _section(node: Any) -> Any:
    while node.parent is not None and not isinstance(node, nodes.section):
        node = node.parent
    return node


def _ids(node: Any) -> list[str]:
    return list(node.get("ids", [])) if isinstance(node, nodes.Element) else []


# ---- formulas ----


def _mathml(source: str, display: str) -> str:
    from latex2mathml.converter import convert

    return str(convert(source, display=display))


def _inline_math(translator: Any, node: Any) -> None:
    translator.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _display_math(translator: Any, node: Any) -> None:
    translator.body.append(f'<div class="math" tabindex="0">{_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode
