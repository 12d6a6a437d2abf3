"""Plots of predicted classes: how they rank, whether their probabilities are right, what they confuse."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.patches import Rectangle

from pathpipe.evaluation.evaluation import Decision, ReliabilityPoints
from pathpipe.report.drawing import (
    COLOURS,
    DASHES,
    GREY,
    MODEL,
    SIDE,
    Named,
    diagonal,
    legend,
    lines,
    plot,
    short,
    svg,
    unit_square,
)

_MARKS = ("o", "s", "^", "D")


def roc_plot(curves: Named, name: str = "roc") -> str:
    """False against true positive rate, a colour and a dash a curve."""
    with plot() as (figure, axes):
        diagonal(axes)
        lines(axes, curves)
        unit_square(axes, "1 - specificity", "sensitivity")
    return svg(figure, name)


def precision_recall_plot(curves: Named, name: str = "precision-recall") -> str:
    """Recall against precision, in steps: between two points there is nothing to interpolate."""
    with plot() as (figure, axes):
        lines(axes, curves, drawstyle="steps-pre")
        unit_square(axes, "recall", "precision")
    return svg(figure, name)


def reliability_plot(points: Sequence[tuple[str, ReliabilityPoints]], name: str = "reliability") -> str:
    """Predicted probability against observed share with its interval, before and after corrections."""
    with plot() as (figure, axes):
        diagonal(axes)
        looks = zip(points, cycle(COLOURS), cycle(DASHES), cycle(_MARKS), strict=False)
        for (label, one), colour, dash, mark in looks:
            axes.plot(one.predicted, one.observed, mark, linestyle=dash, color=colour, markersize=4, label=short(label))
            axes.vlines(one.predicted, one.low, one.high, color=colour, linewidth=0.8, alpha=0.6)
        legend(axes)
        unit_square(axes, "predicted probability", "observed share")
    return svg(figure, name)


def decision_plot(decision: Decision, model: str, name: str = "decision") -> str:
    """Net benefit by threshold probability, of the model with its interval, of acting on everyone and on no one."""
    with plot() as (figure, axes):
        x, y = np.array(decision.thresholds), np.array(decision.model)
        axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":", label="no one")
        axes.plot(x, decision.everyone, color=COLOURS[1], linestyle="--", linewidth=1.2, label="everyone")
        axes.fill_between(x, decision.model_low, decision.model_high, color=MODEL, alpha=0.18, linewidth=0)
        axes.plot(x, y, color=MODEL, linewidth=1.6, label=short(model))
        top = max(0.02, float(np.nanmax(np.r_[y, decision.model_high, 0])))
        axes.set_ylim(-0.35 * top, 1.08 * top)  # acting on everyone falls without end
        axes.set_xlim(0, float(x.max()) if len(x) else 1)
        axes.set_xlabel("threshold probability")
        axes.set_ylabel("net benefit")
        legend(axes)
    return svg(figure, name)


def confusion_plot(matrix: Sequence[Sequence[int]], classes: Sequence[str], name: str = "confusion") -> str:
    """Counts: rows are truth, columns are predictions; shaded by the share of the row."""
    side = max(SIDE, 0.9 + 0.5 * len(classes))
    with plot(side, side) as (figure, axes):
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
    return svg(figure, name)
