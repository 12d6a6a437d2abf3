"""Drawing as inline SVG: transparent, in the page's own text colour, lines that read on dark and light paper."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pathpipe.evaluation.curves import Curve

GREY = "#808890"  # becomes `currentColor` in the SVG
MODEL = "#0e9384"
COLOURS = (MODEL, "#d9822b", "#7f72d6", "#cf5b83", "#4a90d9", "#8f8a2a")
DASHES = ("-", "--", "-.", ":")
SIDE = 2.7  # inches; four of them make a row of the page
LEGEND = 7.5  # points
_MOST_NAMES = 28  # letters of a name in a legend
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold dollar signs
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.titlesize": 9,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "path.simplify": False,
}
Named = Sequence[tuple[str, Curve]]


@contextmanager
def plot(width: float = SIDE, height: float = SIDE) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one plot; inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def lines(axes: Axes, curves: Named, **style: Any) -> None:
    """Curves that differ by colour and by dash, with a legend."""
    for (name, curve), colour, dash in zip(curves, cycle(COLOURS), cycle(DASHES), strict=False):
        axes.plot(curve.x, curve.y, linestyle=dash, color=colour, linewidth=1.6, label=short(name), **style)
    legend(axes)


def legend(axes: Axes) -> None:
    """A small one, where there is room."""
    axes.legend(loc="best", fontsize=LEGEND, handlelength=2.4)


def short(name: str, most: int = _MOST_NAMES) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= most else name[: most - 1] + "…"


def unit_square(axes: Axes, x: str, y: str) -> None:
    """Both axes from 0 to 1, alike."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_aspect("equal")


def diagonal(axes: Axes, low: float = 0, high: float = 1) -> None:
    """Where x is y."""
    axes.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle=":")


def svg(figure: Figure, name: str) -> str:
    """The SVG element alone, scalable, the same bytes for the same figure; its ids are like those of no other name."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        FigureCanvasSVG(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Groups of all figures are called alike, which one page can't hold; nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace(GREY, "currentColor")
