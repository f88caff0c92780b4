"""Texts of every kind that somebody may want embedded, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pydoc_data import topics

WORDS = sorted({word for text in topics.topics.values() for word in text.split()})
SCRIPTS = {
    "Chinese": (0x4E00, 0x9FA5), "Chinese, rare": (0x20000, 0x2A6DF), "Hiragana": (0x3041, 0x3096),
    "Katakana": (0x30A1, 0x30FA), "Hangul": (0xAC00, 0xD7A3), "Cyrillic": (0x0400, 0x04FF),
    "Greek": (0x0370, 0x03FF), "Arabic": (0x0621, 0x064A), "Hebrew": (0x05D0, 0x05EA),
    "Devanagari": (0x0904, 0x0939), "Thai": (0x0E01, 0x0E30), "Latin": (0x00C0, 0x024F),
    "wide": (0xFF01, 0xFF5E), "mathematical": (0x1D400, 0x1D7FF), "symbols": (0x2000, 0x2BFF),
}  # fmt: skip
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🇫🇷", "❤️", "1️⃣", "🏴‍☠️", "👨🏿‍🚀", "☃", "🫠"]
MARKS = [chr(code) for code in (*range(0x0300, 0x0370), *range(0x0591, 0x05BE), *range(0x064B, 0x0653))]
BLANKS = [" ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "\v", "\f"]
# NUL is no character of PostgreSQL's text.
CONTROLS = [*map(chr, (*range(1, 32), *range(127, 160))), "\u200b", "\u200d", "\ufeff", "\ufffd", "\u00ad"]
SPECIAL = [
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[UNK]",
    "[MASK]",
    "[cls]",
    "[ CLS ]",
    "[CLS",
    "CLS]",
    "##ing",
    "[unused1]",
]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡§«»¿–—‘’“”…‰€"
CODE = [
    "SELECT a.id, count(*) FROM t AS a WHERE a.x <> 'it''s' GROUP BY 1;",
    "for (int i = 0; i < n_rows; ++i) { sum += x[i] * y[i]; }",
    'def f(x: dict[str, int]) -> None:\n    return {**x, "key": [1, 2]}',
    "<p class='a'>&nbsp;&lt;b&gt;</p>",
    '{"json": [1, 2.5e-3, null, true]}',
    "C:\\Program Files\\x64",
]


class Writer:
    """Texts, one after the other; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def texts(self, count: int) -> Iterator[str]:
        """The empty text first, then each kind in turn, so that a short list has all of them, too."""
        yield ""
        kinds = self._kinds()
        for number in range(count - 1):
            yield kinds[number % len(kinds)]()

    def _kinds(self) -> list[Callable[[], str]]:
        return [
            self.sentence, self.blank, self.long, self.script, self.emoji, self.marks, self.special,
            self.controls, self.address, self.code, self.number, self.punctuation, self.long_word,
            self.sentence, self.mixture, self.anything,
        ]  # fmt: skip

    def _some(self, of: list[str], fewest: int, most: int) -> list[str]:
        return self._draw.choices(of, k=self._draw.randint(fewest, most))

    def sentence(self) -> str:
        words = " ".join(self._some(WORDS, 1, 40))
        return self._draw.choice([words, words.upper(), words.capitalize() + "."])

    def blank(self) -> str:
        return "".join(self._some(BLANKS, 0, 6))

    def long(self) -> str:
        """A third of these texts is far beyond what a model takes."""
        return " ".join(self._some(WORDS, *self._draw.choice([(600, 600), (150, 300), (60, 120)])))

    def script(self) -> str:
        low, high = self._draw.choice(list(SCRIPTS.values()))
        letters = [chr(self._draw.randint(low, high)) for _ in range(self._draw.randint(1, 60))]
        return "".join(letter + self._draw.choice(["", "", "", " "]) for letter in letters)

    def emoji(self) -> str:
        return self._draw.choice(["", " "]).join(self._some([*EMOJI, "yes", "no"], 1, 12))

    def marks(self) -> str:
        letters = self._some(list("aeiouAEIOUçñßıİſﬁ אבעل"), 1, 30)
        return "".join(letter + "".join(self._some(MARKS, 0, 3)) for letter in letters)

    def special(self) -> str:
        return self._draw.choice(["", " ", "x"]).join(self._some([*SPECIAL, *WORDS[:40]], 1, 10))

    def controls(self) -> str:
        return "".join(self._some([*CONTROLS, *WORDS[-60:], " "], 1, 20))

    def address(self) -> str:
        hosts = ["example.org", "postgresql.org", "a-b.co.uk", "192.0.2.1:8080", "xn--bcher-kva.de"]
        host, page = self._some(hosts, 2, 2)
        query = f"https://www.{host}/docs/{page}?q=%20a&b={self.number()}#top"
        return self._draw.choice([query, f"first.last+{page}@{host}", f"//{host}/~me"])

    def code(self) -> str:
        return self._draw.choice(CODE) + self.sentence()

    def number(self) -> str:
        value = self._draw.uniform(-1e6, 1e6)
        return self._draw.choice(
            [
                f"{value:.3f}",
                f"{value:,.0f}",
                f"{value:e}",
                "½ ² ③ Ⅳ 一 ٣",
                str(10 ** self._draw.randint(1, 30)),
            ]
        )

    def punctuation(self) -> str:
        return "".join(self._some(list(PUNCTUATION), 1, 40))

    def long_word(self) -> str:
        """Around the hundred characters beyond which a word is unknown."""
        length = self._draw.choice([99, 100, 101, 1000])
        return self._draw.choice(["a", "é", "e\u0301", "中", "antidisestablishmentarianism"]) * length

    def mixture(self) -> str:
        return " ".join(self._draw.choice(self._kinds()[:14])() for _ in range(self._draw.randint(2, 4)))

    def anything(self) -> str:
        """Any code points but NUL and surrogates."""
        codes = (
            self._draw.randint(1, self._draw.choice([0x7F, 0x2FFF, 0xFFFF, 0x10FFFF])) for _ in range(50)
        )
        return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def varied_texts(count: int, seed: int = 1) -> list[str]:
    return list(Writer(seed).texts(count))
