"""Plots of predicted numbers and times: truth against prediction, survival by risk, intervals side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes

from pathpipe.evaluation.curves import Curve
from pathpipe.evaluation.evaluation import RiskGroup
from pathpipe.report.drawing import COLOURS, DASHES, GREY, LEGEND, MODEL, diagonal, legend, plot, short, svg

Estimate = tuple[str, float, float, float]  # name, value, low, high


def scatter_plot(points: Curve, means: Curve | None, unit: str, name: str = "scatter") -> str:
    """Predicted against true values, a dot a patient, and the means of bins.

    Args:
        points: x is the prediction, y the truth.
        unit: What both axes are in.
    """
    with plot() as (figure, axes):
        both = np.r_[points.x, points.y]
        low, high = float(both.min()), float(both.max())
        diagonal(axes, low, high)
        alpha = max(0.15, min(0.8, 60 / max(1, len(points.x))))
        axes.plot(points.x, points.y, "o", color=MODEL, markersize=3.5, alpha=alpha, markeredgewidth=0)
        if means is not None and len(means.x) > 1:
            axes.plot(means.x, means.y, "s-", color=COLOURS[1], markersize=4.5, linewidth=1.2, label="means of bins")
            legend(axes)
        axes.set_xlabel(f"predicted {short(unit)}")
        axes.set_ylabel(f"true {short(unit)}")
        axes.set_aspect("equal", adjustable="datalim")
    return svg(figure, name)


def survival_plot(groups: Sequence[RiskGroup], unit: str, name: str = "survival") -> str:
    """Kaplan-Meier curves with their intervals, and the patients at risk below."""
    with plot(4.6, 2.7 + 0.17 * len(groups)) as (figure, axes):
        figure.get_layout_engine().set(h_pad=0.12)  # type: ignore[union-attr,call-arg] # room for the last line
        last = max((time for one in groups for time in one.time), default=0.0) or 1.0
        ticks = _ticks(last)
        for one, colour, dash in zip(groups, cycle(COLOURS), cycle(DASHES), strict=False):
            x, y = np.r_[0, one.time], np.r_[1, one.survival]
            low, high = np.r_[1, one.low], np.r_[1, one.high]
            axes.fill_between(x, low, high, step="post", color=colour, alpha=0.13, linewidth=0)
            label = f"{one.name} ({one.events} of {one.patients})"
            axes.step(x, y, where="post", color=colour, linestyle=dash, linewidth=1.6, label=label)
        axes.set_xlim(0, last * 1.01)
        axes.set_ylim(0, 1.02)
        axes.set_xticks(ticks)
        axes.set_xlabel(short(unit))
        _write_numbers(axes, groups, ticks)
        axes.set_ylabel("event-free")
        axes.legend(loc="lower left", fontsize=LEGEND, title="events of patients", title_fontsize=LEGEND)
    return svg(figure, name)


def forest_plot(rows: Sequence[Estimate], label: str, at: float | None, name: str = "forest") -> str:
    """Values with their intervals, one under the other.

    Args:
        at: Where a line stands that means no difference, or the value of all.
    """
    with plot(7.6, 0.55 + 0.26 * len(rows)) as (figure, axes):
        for y, (_, value, low, high) in enumerate(rows):
            if np.isfinite(low) and np.isfinite(high):
                axes.plot([low, high], [y, y], color=MODEL, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
            axes.plot(value, y, "o", color=MODEL, markersize=5)
        if at is not None and np.isfinite(at):
            axes.axvline(at, color=GREY, linewidth=0.9, linestyle=":")
        axes.set_yticks(range(len(rows)), [short(row[0], 48) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
    return svg(figure, name)


def _ticks(last: float) -> list[float]:
    """Round times from 0, five or six of them."""
    raw = last / 5
    power = 10 ** np.floor(np.log10(raw))
    step = next(float(factor * power) for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    return [float(time) for time in np.arange(0, last * 1.001, step)]


def _write_numbers(axes: Axes, groups: Sequence[RiskGroup], ticks: Sequence[float]) -> None:
    """A line of numbers at risk a group, each under its time."""
    below = axes.get_xaxis_transform()
    for row, one in enumerate([None, *groups]):
        y = -0.26 - 0.075 * row
        axes.text(0, y, "at risk" if one is None else "", fontsize=LEGEND, transform=below, ha="left", va="center")
        if one is None:
            continue
        axes.text(-0.02, y, one.name, fontsize=LEGEND, transform=axes.transAxes, ha="right", va="center")
        for time in ticks:
            axes.text(time, y, f"{_at_risk(one, time)}", fontsize=LEGEND, transform=below, ha="center", va="center")


def _at_risk(one: RiskGroup, time: float) -> int:
    place = int(np.searchsorted(np.array(one.time), time, side="left"))
    return one.at_risk[place] if place < len(one.at_risk) else 0
