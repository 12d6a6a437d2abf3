"""Plots as inline SVG: transparent, in mid grey and two colours that read on dark and light paper."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pathpipe.evaluation.curves import Curve
from pathpipe.report.data import LearningCurve

GREY = "#808890"
MODEL, BASELINE = "#0e9384", "#d9822b"
_STYLE: Any = {
    "svg.hashsalt": "pathpipe",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.titlesize": 10,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
Named = Sequence[tuple[str, Curve]]


def roc_plot(curves: Named) -> str:
    """False against true positive rate, the model first, the baseline dashed."""
    with _plot(3.4, 3.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        _lines(axes, curves)
        _unit(axes, "1 - specificity", "sensitivity", "ROC")
    return _svg(figure)


def precision_recall_plot(curves: Named) -> str:
    """Recall against precision."""
    with _plot(3.4, 3.2) as (figure, axes):
        _lines(axes, curves)
        _unit(axes, "recall", "precision", "precision-recall")
    return _svg(figure)


def reliability_plot(curves: Named) -> str:
    """Predicted probability against observed share."""
    with _plot(3.4, 3.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        _lines(axes, curves, marker="o")
        _unit(axes, "predicted probability", "observed share", "reliability")
    return _svg(figure)


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
        figure.supxlabel("epoch", fontsize=10)
        figure.supylabel("loss", fontsize=10)
        return _svg(figure)


def confusion_plot(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Counts: rows are truth, columns are predictions; shaded by the share of the row."""
    side = 1.4 + 0.75 * len(classes)
    with _plot(side + 0.4, side) as (figure, axes):
        shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
        axes.set_xlim(-0.5, len(classes) - 0.5)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        for y, part in enumerate(shares):
            for x, share in enumerate(part):
                axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=MODEL, alpha=0.06 + 0.34 * share))
        for y, row in enumerate(matrix):
            for x, count in enumerate(row):
                axes.text(x, y, str(count), ha="center", va="center", fontsize=12, color=GREY, weight="bold")
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return _svg(figure)


def _lines(axes: Axes, curves: Named, marker: str = "") -> None:
    for (name, curve), colour, style in zip(curves, (MODEL, BASELINE), ("-", "--"), strict=False):
        axes.plot(curve.x, curve.y, style, color=colour, linewidth=1.8, marker=marker, markersize=4, label=name)
    axes.legend(loc="best", fontsize=8)


def _unit(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title)
    axes.set_aspect("equal")


@contextmanager
def _plot(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure) -> str:
    """The SVG element alone, scalable, the same bytes for the same figure."""
    with matplotlib.rc_context(_STYLE):
        FigureCanvasSVG(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("font: 10px", "font: 10px")
