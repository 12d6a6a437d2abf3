"""The plot of the checks: deletion and insertion beside random orders, and the score on artefacts beside their area."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pathpipe.explain.faithfulness import ANY, Curve, Curves
from pathpipe.tissue.artefacts import artefact_colour, artefact_name

_DPI = 100
_BY_SCORE, _RANDOM = "#b5371b", "#6b7280"


def draw_checks(curves: Curves, artefacts: Mapping[str, Mapping[str, float]], title: str, aim: str) -> bytes:
    """Deletion, insertion, and where there are artefacts the score on them.

    Returns:
        A PNG file; equal input gives equal bytes.
    """
    panels = 3 if artefacts else 2
    figure = Figure(figsize=(3.6 * panels, 3.1), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels)
    kept, chance = np.asarray(curves.kept), np.asarray(curves.random)
    _draw_curve(axes[0], 1 - kept[::-1], curves.deletion, chance[::-1], "removed, highest first")
    _draw_curve(axes[1], kept, curves.insertion, chance, "added, highest first")
    axes[1].sharey(axes[0])
    if curves.measure == "probability":
        axes[0].set_ylim(-0.03, 1.03)
    what = f"probability of {aim}" if curves.measure == "probability" else f"minus distance from the whole, {aim}"
    axes[0].set_ylabel(what, fontsize=9, parse_math=False)
    for one, name in ((axes[0], "deletion"), (axes[1], "insertion")):
        curve = curves.deletion if name == "deletion" else curves.insertion
        one.set_title(f"{name}: {curve.gain:+.3f} against random", fontsize=10)
        one.legend(fontsize=8, frameon=False)
    if artefacts:
        _draw_artefacts(axes[2], artefacts)
    figure.suptitle(title, fontsize=11, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_curve(axes: Axes, x: np.ndarray, curve: Curve, chance: np.ndarray, label: str) -> None:
    axes.plot(100 * x, chance, color=_RANDOM, linestyle="--", label="random order")
    axes.plot(100 * x, curve.values, color=_BY_SCORE, label="by score")
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"% of tiles {label}", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_artefacts(axes: Axes, artefacts: Mapping[str, Mapping[str, float]]) -> None:
    kinds = [kind for kind in artefacts if kind != ANY] or list(artefacts)
    places = np.arange(len(kinds))
    colours = [[part / 255 for part in artefact_colour(kind)] for kind in kinds]
    area = [100 * artefacts[kind]["area"] for kind in kinds]
    score = [100 * artefacts[kind]["score"] for kind in kinds]
    axes.barh(places - 0.2, score, 0.38, color=colours, label="score")
    axes.barh(places + 0.2, area, 0.38, color="#d1d5db", label="area")
    axes.set_yticks(places, [artefact_name(kind) for kind in kinds], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("% of the tiles' total", fontsize=9)
    axes.set_xlim(0, max(1.0, 1.1 * max(score + area)))
    axes.tick_params(labelsize=8)
    axes.set_title("on artefacts", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
