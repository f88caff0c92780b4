"""gradient_flow.gif: one recorded training step, stage by stage, with the norms that its rows hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_sql.printable import title

from .files import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    MOVING,
    ORANGE,
    VERMILLION,
    check_target,
    new_figure,
    style,
    tofu,
    writing,
)
from .read import Layer, Step

FORMATS = MOVING
WIDTH, HEIGHT, DPI = 8.4, 4.9, 100
# More layers than this share frames, so that a deep model's animation stays short.
MOST_FRAMES_PER_SWEEP = 10
# Orange is too light for letters.
DARK = {ORANGE: "#8a5f00"}

# The relations in a row, and which arrows each stage draws between them.
RELATIONS = ("llm_dataset", "llm_tape\nllm_tensor_rt", "llm_param", "llm_clip", "llm_train_log")
COLUMNS = {"backward": "grad", "clip": "grad", "AdamW": "m, v, data", "log": "m, v, data"}
"""What of llm_param a stage is about; else data."""
DATASET, TAPE, PARAM, CLIP, LOG = range(5)


@dataclass(frozen=True)
class Frame:
    """A picture of the animation: the relation at work, arrows into it, how many bars there are by now."""

    stage: str
    text: str
    active: tuple[int, ...]
    arrows: tuple[tuple[int, int], ...]
    outputs: int
    """Layers, from the first, whose output is known."""
    gradients: int
    """Layers, from the last, whose gradient is known."""
    clipped: bool
    moments: bool
    colour: str
    seconds: float


def title_of(layer: Layer) -> str:
    return f"layer {layer.label}" if layer.label.isdigit() else layer.label


def _sweep(count: int) -> Iterator[int]:
    """How many of `count` layers are done after each frame of a sweep over them."""
    frames = min(count, MOST_FRAMES_PER_SWEEP)
    yield from ((i + 1) * count // frames for i in range(frames))


def frames(step: Step) -> list[Frame]:
    """The stages of the step in order."""
    n = len(step.layers)
    rows = "1 row" if step.batch_size == 1 else f"{step.batch_size} rows"
    clipped = step.clipped

    def frame(
        stage: str,
        text: str,
        active: tuple[int, ...],
        arrows: tuple[tuple[int, int], ...] = (),
        *,
        outputs: int = n,
        gradients: int = n,
        clip: bool = False,
        moments: bool = False,
        colour: str = BLUE,
        seconds: float = 1.6,
    ) -> Frame:
        return Frame(stage, text, active, arrows, outputs, gradients, clip, moments, colour, seconds)

    found = [
        frame(
            "data",
            f"{rows} of llm_dataset, {step.tokens:,} target tokens",
            (DATASET,),
            outputs=0,
            gradients=0,
        ),
        frame("weights", "llm_param.data is read into the session", (PARAM,), outputs=0, gradients=0),
    ]
    for done in _sweep(n):
        layer = step.layers[done - 1]
        found.append(
            frame(
                "forward",
                _forward_text(layer),
                (TAPE,),
                ((DATASET, TAPE), (PARAM, TAPE)),
                outputs=done,
                gradients=0,
                seconds=0.7,
            )
        )
    found.append(
        frame(
            "loss", f"the last op's output is the loss, {step.loss:.4f} nats per token", (TAPE,), gradients=0
        )
    )
    for done in _sweep(n):
        layer = step.layers[n - done]
        found.append(
            frame(
                "backward",
                f"{title_of(layer)}: gradient norm of its parameters {layer.gradient:.4g}",
                (TAPE, PARAM),
                ((TAPE, PARAM),),
                gradients=done,
                colour=VERMILLION,
                seconds=0.7,
            )
        )
    found.append(
        frame("clip", _clip_text(step), (CLIP,), ((PARAM, CLIP),), clip=clipped, colour=ORANGE, seconds=2.4)
    )
    found.append(
        frame(
            "AdamW",
            f"moments m and v, then data, at a learning rate of {step.lr:.3g}",
            (PARAM,),
            ((CLIP, PARAM),),
            clip=clipped,
            moments=True,
            colour=GREEN,
            seconds=2.0,
        )
    )
    found.append(
        frame(
            "log",
            f"step {step.step:,}: loss {step.loss:.4f}, gradient norm {step.grad_norm:.4g}, "
            f"{step.tokens:,} tokens",
            (LOG,),
            ((PARAM, LOG),),
            clip=clipped,
            moments=True,
            seconds=2.6,
        )
    )
    return found


def _forward_text(layer: Layer) -> str:
    if layer.output is None:
        return f"{title_of(layer)}: its ops go onto the tape"
    return f"{title_of(layer)}: its ops go onto the tape, output norm {layer.output:.4g}"


def _clip_text(step: Step) -> str:
    if step.clip_threshold is None:
        return f"the run has no grad_clip: norm {step.grad_norm:.4g} stays, llm_clip gets no row"
    if not step.clipped:
        return f"norm {step.grad_norm:.4g} is within {step.clip_threshold:g}: llm_clip gets no row"
    return (
        f"norm {step.grad_norm:.4g} is over {step.clip_threshold:g}: all gradients × "
        f"{step.clip_threshold / step.grad_norm:.3f}"
    )


def lines(step: Step) -> list[str]:
    """The same step as text: what the stages find, and the norms per layer."""
    known = [f for f in frames(step) if f.stage not in ("forward", "backward")]
    result = [f"{title(step.model)}: step {step.step:,} as recorded, {step.n_ops} ops", ""]
    result += [f"{f.stage:>8}  {f.text}" for f in known]
    result += [
        "",
        f"{'':10} {'output':>10} {'weights':>10} {'gradient':>10} {'clipped':>10} {'m':>10} {'v':>10}",
    ]
    for layer in step.layers:
        numbers = (
            layer.output or 0.0,
            layer.weights,
            layer.gradient,
            layer.clipped_gradient,
            layer.m,
            layer.v,
        )
        result.append(f"{title_of(layer):10} " + " ".join(f"{number:>10.4g}" for number in numbers))
    return result


def draw(step: Step, path: Path) -> None:
    """The animation into a .gif file, which repeats for ever."""
    check_target(path, FORMATS, "an animation")
    from PIL import Image

    stages = frames(step)
    pictures = [_picture(step, frame) for frame in stages]
    # One palette for all frames, or the unchanged parts of a frame would not stay unchanged.
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with writing(path) as file:
        indexed[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=[int(frame.seconds * 1000) for frame in stages],
            loop=0,
            optimize=False,
        )


def _palette() -> list[int]:
    """Red, green and blue of every colour drawn and of its blends with white, as at the edges of letters; the
    letters on orange are black.
    """

    def parts(colour: str) -> list[int]:
        return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]

    found = [255, 255, 255]
    grounds = [(colour, "#ffffff") for colour in (BLACK, GREY, LIGHT, BLUE, ORANGE, GREEN, VERMILLION)]
    for colour, ground in [*grounds, (DARK[ORANGE], "#ffffff"), (BLACK, ORANGE)]:
        for share in (1.0, 0.8, 0.6, 0.4, 0.2):
            mixed = zip(parts(colour), parts(ground), strict=True)
            found += [round(share * value + (1.0 - share) * below) for value, below in mixed]
    return found


def _picture(step: Step, frame: Frame) -> Any:
    """A frame as an image of Pillow's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    with style(), tofu():
        figure = new_figure(WIDTH, HEIGHT, dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        _draw_relations(figure, step, frame)
        panels = figure.subplots(
            1, 3, gridspec_kw={"left": 0.075, "right": 0.985, "bottom": 0.14, "top": 0.52, "wspace": 0.3}
        )
        _draw_bars(panels, step, frame)
        canvas.draw()
        return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")


def _draw_relations(figure: Any, step: Step, frame: Frame) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    axes = figure.add_axes((0.0, 0.58, 1.0, 0.42))
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 2.1)
    axes.axis("off")
    axes.text(0.12, 1.86, f"{title(step.model)}, training step {step.step:,}", fontsize=11, va="center")
    axes.text(
        0.12,
        0.18,
        frame.stage,
        fontsize=12,
        weight="bold",
        color=DARK.get(frame.colour, frame.colour),
        va="center",
    )
    axes.text(1.5, 0.18, frame.text, fontsize=11, va="center")
    for number, name in enumerate(RELATIONS):
        active = number in frame.active
        if number == PARAM:
            name += f"\n{COLUMNS.get(frame.stage, 'data')}"
        axes.add_patch(
            FancyBboxPatch(
                (0.15 + number * 2.0, 0.62), 1.7, 0.6, boxstyle="round,pad=0.04",
                facecolor=frame.colour if active else "white",
                edgecolor=frame.colour if active else GREY, linewidth=1.2,
            )
        )  # fmt: skip
        axes.text(
            1.0 + number * 2.0, 0.92, name, ha="center", va="center", fontsize=9.5, family="monospace",
            color="white" if active and frame.colour != ORANGE else BLACK,
            weight="bold" if active else "normal",
        )  # fmt: skip
    for source, target in frame.arrows:
        far = abs(source - target) > 1
        rad = (-0.25 if source < target else 0.25) if far else 0.0
        gap = 0.89 if source < target else -0.89
        start = (1.0 + source * 2.0 + (0.4 if far else gap), 1.28 if far else 0.92)
        end = (1.0 + target * 2.0 - (0.4 if far else gap), 1.28 if far else 0.92)
        axes.add_patch(
            FancyArrowPatch(
                start, end, connectionstyle=f"arc3,rad={rad}", arrowstyle="-|>", mutation_scale=13,
                color=frame.colour, linewidth=1.8, shrinkA=0, shrinkB=0,
            )
        )  # fmt: skip


def _draw_bars(panels: Any, step: Step, frame: Frame) -> None:
    layers = step.layers
    n = len(layers)
    seen = frame.gradients
    outputs = [(layer.output or 0.0) if i < frame.outputs else 0.0 for i, layer in enumerate(layers)]
    gradients = [layer.gradient if i >= n - seen else 0.0 for i, layer in enumerate(layers)]
    moments = [layer.m if frame.moments else 0.0 for layer in layers]
    _bars(
        panels[0],
        layers,
        outputs,
        highest(layer.output or 0.0 for layer in layers),
        BLUE,
        "output norm (forward)",
    )
    top = highest(layer.gradient for layer in layers)
    _bars(panels[1], layers, gradients, top, VERMILLION, "gradient norm (backward)")
    if frame.clipped:
        panels[1].bar(range(n), [layer.clipped_gradient for layer in layers], color=ORANGE, width=0.75)
        panels[1].text(n - 0.5, top * 1.06, "orange: after clipping", fontsize=8, ha="right", va="top")
    _bars(panels[2], layers, moments, highest(layer.m for layer in layers), GREEN, "norm of m (AdamW)")


def highest(norms: Iterable[float]) -> float:
    """The highest norm that is a number: one that overflowed has no bar."""
    return max((norm for norm in norms if math.isfinite(norm)), default=0.0)


def _bars(axes: Any, layers: list[Layer], values: list[float], top: float, colour: str, title: str) -> None:
    n = len(layers)
    axes.bar(range(n), [value if math.isfinite(value) else 0.0 for value in values], color=colour, width=0.75)
    axes.set_xlim(-0.6, n - 0.4)
    axes.set_ylim(0, (top or 1.0) * 1.12)
    axes.set_title(title, fontsize=10)
    # Of many layers only some have room for their names.
    every = max(1, n // 9)
    shown = [i for i in range(n) if i % every == 0 or i == n - 1]
    names = {"embedding": "emb"}
    axes.set_xticks(shown, [names.get(layers[i].label, layers[i].label) for i in shown], fontsize=8.5)
    axes.tick_params(axis="y", labelsize=8)
    axes.yaxis.get_major_locator().set_params(nbins=4)
    axes.set_xlabel("layer", fontsize=9)
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
