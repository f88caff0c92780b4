"""Pictures in files: what they contain, and what is refused before any work is done."""

from __future__ import annotations

import builtins
import html
import re
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any
from xml.dom import minidom

import numpy as np
import pytest

from llm_sql import graph as g
from llm_sql.errors import UsageError
from llm_sql.printable import title
from llm_sql.visualize import attention, files, flow, graph, graph_picture, read, schema, training


def history() -> read.History:
    steps = [
        read.LogRow(1 if n < 5 else 2, n, 4.0 - n / 10, 1e-3, 0.5 + n / 10, 64, 0.1, 1.0, n > 5)
        for n in range(1, 9)
    ]
    return read.History("m", steps, [read.Evaluation(4, "validation", 9, 3.7)])


def step() -> read.Step:
    layers = [read.Layer(label, 3.0, 2.0, 0.5, 0.4, 0.1, 0.01) for label in ("embedding", "0", "1", "head")]
    return read.Step("m", 7, 2.5, 1e-3, 1.25, 64, None, 4, 1.0, True, 30, layers)


def maps() -> attention.Attention:
    weights = np.tril(np.full((3, 3), 0.5, dtype=np.float32))
    found = [attention.Map(layer, head, weights) for layer in range(2) for head in range(2)]
    return attention.Attention("m", ["a", "b ", "$"], 2, 2, found)


def labels(path: Path, *expected: str) -> None:
    content = path.read_text(encoding="utf-8")
    for label in expected:
        assert label in content, label


def test_text_in_svg_stays_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.svg"
    training.draw(history(), path)
    labels(
        path, "m: 8 training steps", "held-out loss", "clip threshold", "clipped: 3 of 8 steps", "a new run"
    )
    attention.draw(maps(), path)
    labels(path, "layer 1, head 0", "b␣", "attention weight")
    graph_picture.draw(graph.of_architecture(g.gpt2), path)
    labels(path, "causal_attention_qkv", "h.{layer}.attn.c_attn.{weight,bias}", "block × n_layer")
    schema.draw(path)
    labels(path, "llm_tensor_map", "gradient_slice", "foreign key")


HOSTILE = '$x_ "q" %s </b>[/red] \\ #1 &amp; \n\x1b[31m\x9b日 ' + "l" * 300


def drawn(parameter: str) -> graph.Graph:
    op = graph.Op(1, "linear", (), (parameter,), "2×2")
    return graph.Graph(f"{title(HOSTILE)}: a model", (graph.Part("stem", (op,)),))


def test_names_are_text_in_every_picture(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Neither mathematics nor markup, nor anything that a parser of XML or a terminal takes for more."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.svg"
    evaluations = [read.Evaluation(4, HOSTILE, 9, 3.7)]
    seen = replace(maps(), model=HOSTILE, tokens=[HOSTILE, "\x1b", "$"])
    training.draw(replace(history(), model=HOSTILE, evaluations=evaluations), path)
    assert '$x_ "q" %s </b>[/red]' in text_of(path)
    attention.draw(seen, path)
    assert "\\x1b" in text_of(path)
    graph_picture.draw(drawn(HOSTILE), path)
    assert "</b>" in text_of(path)
    assert [str(w.message) for w in recwarn] == []
    shown = [
        *training.lines(replace(history(), model=HOSTILE, evaluations=evaluations)),
        *attention.lines(seen),
        *flow.lines(replace(step(), model=HOSTILE)),
        *graph.lines(drawn(HOSTILE)),
        *graph.dot(drawn(HOSTILE)).splitlines(),
        *graph.mermaid(drawn(HOSTILE)).splitlines(),
    ]
    assert all(line.isprintable() for line in shown)


def text_of(path: Path) -> str:
    return "\n".join(e.firstChild.nodeValue for e in minidom.parse(str(path)).getElementsByTagName("text"))


def test_labels_of_diagrams_end_where_they_end() -> None:
    [node] = [line for line in graph.dot(drawn(HOSTILE)).splitlines() if line.startswith("    stem_1")]
    quoted = re.search(r'label=("(?:[^"\\]|\\.)*")\];$', node)
    assert quoted is not None
    [node] = [line for line in graph.mermaid(drawn(HOSTILE)).splitlines() if "stem_1" in line]
    label = node.partition('["')[2].removesuffix('"]')
    assert not set('"`\\') & set(label)
    assert html.unescape(label.replace("#35;", "&#35;").replace("#quot;", "&quot;"))
    assert "<" not in label.replace("<br/>", "")


def test_what_is_not_finite_has_no_bar_and_no_point(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    broken = read.Layer("1", nan, inf, inf, nan, nan, inf)
    layers = [broken, *step().layers]
    flow.draw(replace(step(), model=HOSTILE, loss=nan, grad_norm=inf, layers=layers), tmp_path / "x.gif")
    nothing = read.LogRow(2, 9, None, None, None, None, None, None, False)
    for steps in ([nothing], [*history().steps, nothing]):
        found = replace(history(), steps=steps, evaluations=[read.Evaluation(9, "validation", 9, nan)])
        training.draw(found, tmp_path / "x.svg")
        assert training.lines(found)
        assert training.as_json(found)["steps"][-1]["smoothed"] is None


def test_an_interrupted_picture_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure
    from PIL import Image

    def interrupt(_: Any, file: Any, *__: Any, **___: Any) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupt)
    monkeypatch.setattr(Image.Image, "save", interrupt)
    for draw, shown, name in ((training.draw, history(), "x.png"), (flow.draw, step(), "x.gif")):
        (tmp_path / name).write_bytes(b"earlier")
        with pytest.raises(KeyboardInterrupt):
            draw(shown, tmp_path / name)  # type: ignore[operator]
        assert (tmp_path / name).read_bytes() == b"earlier"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_same_rows_give_the_same_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        training.draw(history(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("suffix", "begins"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_other_formats(tmp_path: Path, suffix: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"picture{suffix}"
    training.draw(history(), path)
    assert path.read_bytes().startswith(begins)


def test_the_animation_moves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    path = tmp_path / "gradient_flow.gif"
    flow.draw(step(), path)
    assert path.stat().st_size < 200_000
    with Image.open(path) as image:
        frames = len(flow.frames(step()))
        assert image.format == "GIF"
        assert getattr(image, "n_frames", 1) == frames == 14
        assert image.size == (840, 490)
        assert image.info["loop"] == 0
        image.seek(0)
        first = image.convert("RGB")
        assert first.getpixel((3, 3)) == (255, 255, 255)
        image.seek(frames - 1)
        last = image.convert("RGB")
    # Bars that were not there at the beginning, in their colours.
    colours = {colour for _, colour in last.getcolors(1 << 20) or []}
    before = {colour for _, colour in first.getcolors(1 << 20) or []}
    vermillion, green = (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)
    assert {vermillion, green} <= colours
    assert not {vermillion, green} & before


@pytest.mark.parametrize(
    ("name", "formats", "message", "hint"),
    [
        ("x.gif", files.STILLS, "as a .gif file", "gradient-flow"),
        ("x.mp4", files.STILLS, "as a .mp4 file", "gradient-flow"),
        ("x.png", files.MOVING, "as a .png file", ".gif"),
        ("x.xyz", files.STILLS, "as a .xyz file", ".png, .svg or .pdf"),
        ("x", files.STILLS, "no suffix", ".png"),
        ("none/x.png", files.STILLS, "does not exist", "mkdir"),
        ("folder.png", files.STILLS, "is a folder", "file"),
    ],
)
def test_targets_that_are_refused(
    tmp_path: Path, name: str, formats: tuple[str, ...], message: str, hint: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=message) as caught:
        files.check_target(tmp_path / name, formats, "a picture")
    assert hint in str(caught.value.hint)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / ("x" * 300 + ".svg")
    with pytest.raises(UsageError, match="cannot write"):
        training.draw(history(), path)


def test_without_matplotlib_the_hint_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match="matplotlib") as caught:
        training.draw(history(), tmp_path / "x.png")
    assert caught.value.hint == 'pip install "llm-sql[plot]"'
    assert training.lines(history())  # the terminal needs none


def test_too_many_maps_and_too_long_a_text_for_a_terminal() -> None:
    long = attention.Attention("m", ["a"] * 90, 1, 1, [attention.Map(0, 0, np.eye(90, dtype=np.float32))])
    with pytest.raises(UsageError, match="does not fit"):
        attention.lines(long)


def test_of_very_many_steps_the_extremes_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [(n, 2.0 + n % 7) for n in range(50_000)]
    points[31_234] = (31_234, 99.0)
    points[43_210] = (43_210, -1.0)
    steps, values = training.thinned(points)
    assert len(steps) <= 2 * training.STRETCHES
    assert steps == sorted(steps)
    assert {(31_234, 99.0), (43_210, -1.0)} <= set(zip(steps, values, strict=True))
    assert training.thinned(points[:9]) == ([*range(9)], [value for _, value in points[:9]])
    rows = [read.LogRow(1, n, value, 1e-3, value, 64, 0.1, 1.0, True) for n, value in points]
    path = tmp_path / "many.svg"
    training.draw(read.History("m", rows, []), path)
    assert path.stat().st_size < 2_000_000
