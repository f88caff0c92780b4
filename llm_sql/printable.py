"""Text that others wrote (names, tokens, documents) as it can be shown: no control character takes effect."""

from __future__ import annotations

# Control characters but for tab and line feed: what moves the cursor, colours, or asks a terminal something.
CONTROLS = {
    code: repr(chr(code))[1:-1] for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}


def harmless(text: str) -> str:
    """Text as it is, on several lines, but for control characters, which stand as Python escapes them."""
    return text.translate(CONTROLS)


def visible(text: str) -> str:
    """Text on one line: whatever leaves no mark of its own stands as Python escapes it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def title(name: str, longest: int = 48) -> str:
    """A name at the head of a table or a picture: one line, cut to its room."""
    shown = visible(name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
