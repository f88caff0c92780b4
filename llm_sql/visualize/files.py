"""Files that pictures are written to: which formats there are, what is refused, and how a figure is saved."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from llm_sql.errors import UsageError
from llm_sql.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STILLS = (".png", ".svg", ".pdf")
MOVING = (".gif",)
MOVING_ELSEWHERE = (".gif", ".apng", ".webp", ".mp4", ".avi", ".mov", ".webm")

# Okabe and Ito's palette, which people with any colour vision tell apart (jfly.uni-koeln.de/color).
BLACK, GREY, LIGHT = "#000000", "#6b6b6b", "#d9d9d9"
BLUE, ORANGE, GREEN, VERMILLION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SKY = "#56B4E9"

# A page's dark mode leaves pictures as they are, so they bring an opaque white ground of their own.
STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    # Text stays text in SVG, and the same figure gives the same bytes.
    "svg.fonttype": "none",
    # A $ in a name is a $, not mathematics.
    "text.parse_math": False,
    "svg.hashsalt": "llm-sql",
}


def check_target(path: Path, formats: Sequence[str], picture: str) -> None:
    """UsageError, before any work is done, when `picture` cannot be written to the path."""
    suffix = path.suffix.lower()
    if suffix not in formats:
        named = f"a {suffix} file" if suffix else f"{path}, which has no suffix"
        hint = f"Write a {_alternatives(formats)} file."
        if suffix in MOVING_ELSEWHERE and not set(formats) & set(MOVING):
            hint += " `llm-sql visualize gradient-flow` draws the one picture that moves."
        raise UsageError(f"{picture} cannot be written as {named}", hint=hint)
    try:
        is_folder, has_folder = path.is_dir(), path.parent.is_dir()
    except OSError as error:
        raise cannot_write(path, error) from error
    if is_folder:
        raise UsageError(f"{path} is a folder", hint="Give the name of a file in it.")
    if not has_folder:
        raise UsageError(f"the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
    require_matplotlib()


def require_matplotlib() -> None:
    """UsageError when matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("drawing to a file needs matplotlib", hint='pip install "llm-sql[plot]"') from None


def _alternatives(formats: Sequence[str]) -> str:
    return formats[0] if len(formats) == 1 else f"{', '.join(formats[:-1])} or {formats[-1]}"


def save(figure: Figure, path: Path) -> None:
    """The figure in the format of the path's suffix. UsageError when the file cannot be written."""
    suffix = path.suffix.lower()
    # Without a date and a version, so that the same rows give the same file.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}[suffix]
    with writing(path) as file, tofu():
        figure.savefig(file, format=suffix[1:], metadata=metadata)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, which takes the path's place when it is complete. UsageError when it cannot be written."""
    try:
        with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
            yield file
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def tofu() -> Iterator[None]:
    """Characters that the font does not have are drawn as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield


def cannot_write(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {path}: {error.strerror or error}")


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """A figure of our style, in inches. Use `with style():` around drawing on it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **options)


def style() -> Any:
    """A context in which matplotlib draws in our style."""
    import matplotlib

    return matplotlib.rc_context(STYLE)
