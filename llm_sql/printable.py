"""Text that others wrote (names, tokens, documents) as it can be shown: no control character takes effect."""

from __future__ import annotations


def visible(text: str, keep: str = "") -> str:
    """The text with what no terminal prints as Python escapes it, but for the characters to keep."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def title(name: str, longest: int = 48) -> str:
    """A name at the head of a table or a picture: one line, cut to its room."""
    shown = visible(name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
