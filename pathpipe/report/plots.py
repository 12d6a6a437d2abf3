"""Plots as inline SVG: transparent, in the page's own text colour and lines that read on dark and light paper."""

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
from matplotlib.patches import Rectangle

from pathpipe.evaluation.curves import Curve
from pathpipe.report.data import LearningCurve

GREY = "#808890"  # becomes `currentColor` in the SVG
MODEL = "#0e9384"
_COLOURS = (MODEL, "#d9822b", "#7f72d6", "#cf5b83", "#4a90d9", "#8f8a2a")
_DASHES = ("-", "--", "-.", ":")
_SIDE = 2.7  # inches; four of them make a row of the page
_STYLE: Any = {
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
}
Named = Sequence[tuple[str, Curve]]


def roc_plot(curves: Named) -> str:
    """False against true positive rate, a colour and a dash a curve."""
    with _plot(_SIDE, _SIDE) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        _lines(axes, curves)
        _unit(axes, "1 - specificity", "sensitivity")
    return _svg(figure, "roc")


def precision_recall_plot(curves: Named) -> str:
    """Recall against precision, in steps: between two points there is nothing to interpolate."""
    with _plot(_SIDE, _SIDE) as (figure, axes):
        _lines(axes, curves, drawstyle="steps-pre")
        _unit(axes, "recall", "precision")
    return _svg(figure, "precision-recall")


def reliability_plot(curves: Named) -> str:
    """Predicted probability against observed share."""
    with _plot(_SIDE, _SIDE) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        _lines(axes, curves, marker="o", markersize=4)
        _unit(axes, "predicted probability", "observed share")
    return _svg(figure, "reliability")


def learning_plot(curves: Sequence[LearningCurve]) -> str:
    """Training (thin) and validation (thick) loss, a panel a fold and seed; a dot at the epoch that was kept."""
    columns = min(5, len(curves))
    rows = -(-len(curves) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.15 * columns, 1.75 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, curve in zip(grid.flat, curves, strict=False):
            epochs = range(1, len(curve.val_loss) + 1)
            axes.plot(epochs, curve.train_loss, color=GREY, linewidth=1)
            axes.plot(epochs, curve.val_loss, color=MODEL, linewidth=1.8)
            axes.plot(curve.best_epoch, curve.val_loss[curve.best_epoch - 1], "o", color=MODEL, markersize=5)
            axes.set_title(curve.name)
        for axes in list(grid.flat)[len(curves) :]:
            axes.set_axis_off()
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("loss", fontsize=9)
        return _svg(figure, "learning")


def confusion_plot(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Counts: rows are truth, columns are predictions; shaded by the share of the row."""
    side = max(_SIDE, 0.9 + 0.5 * len(classes))
    with _plot(side, side) as (figure, axes):
        shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
        axes.set_xlim(-0.5, len(classes) - 0.5)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        for y, part in enumerate(shares):
            for x, share in enumerate(part):
                axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=MODEL, alpha=0.06 + 0.34 * share))
        for y, row in enumerate(matrix):
            for x, count in enumerate(row):
                axes.text(x, y, str(count), ha="center", va="center", fontsize=12, color=GREY, weight="bold")
        upright = max(map(len, classes)) * len(classes) <= 24
        axes.set_xticks(range(len(classes)), classes, rotation=0 if upright else 90)
        axes.set_yticks(range(len(classes)), classes, rotation=90 if upright else 0, va="center")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return _svg(figure, "confusion")


def _lines(axes: Axes, curves: Named, **style: Any) -> None:
    for (name, curve), colour, dash in zip(curves, cycle(_COLOURS), cycle(_DASHES), strict=False):
        axes.plot(curve.x, curve.y, linestyle=dash, color=colour, linewidth=1.6, label=name, **style)
    axes.legend(loc="best", fontsize=7.5, handlelength=2.4)


def _unit(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_aspect("equal")


@contextmanager
def _plot(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure, name: str) -> str:
    """The SVG element alone, scalable, the same bytes for the same figure; its ids are like those of no other name."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        FigureCanvasSVG(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Groups of all figures are called alike, which one page can't hold; nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace(GREY, "currentColor")
