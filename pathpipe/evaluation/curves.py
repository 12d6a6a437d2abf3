"""Curves: points to plot, from binary targets and scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Curve:
    """Points in drawing order.

    Attributes:
        count: Patients behind each point, where that means something.
    """

    x: list[float]
    y: list[float]
    count: list[int] | None = None


def _steps(positive: Bools, score: Floats) -> tuple[Floats, Floats]:
    """True and false positives when everything scoring at least each distinct score is called positive."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    hits = np.cumsum(positive[order])[last]
    return hits.astype(np.float64), (last + 1 - hits).astype(np.float64)


def roc(positive: Bools, score: Floats) -> Curve:
    """False positive rate against true positive rate, from (0, 0) to (1, 1)."""
    hits, misses = _steps(positive, score)
    return Curve([0.0, *(misses / (~positive).sum()).tolist()], [0.0, *(hits / positive.sum()).tolist()])


def precision_recall(positive: Bools, score: Floats) -> Curve:
    """Recall against precision, without interpolation."""
    hits, misses = _steps(positive, score)
    precision = hits / (hits + misses)
    return Curve([0.0, *(hits / positive.sum()).tolist()], [float(precision[0]), *precision.tolist()])


def reliability(positive: Bools, score: Floats, bins: int = 5) -> Curve:
    """Mean predicted probability against observed share, in bins of equally many patients."""
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    return Curve(
        [float(score[part].mean()) for part in parts],
        [float(positive[part].mean()) for part in parts],
        [len(part) for part in parts],
    )


def scatter(predicted: Floats, truth: Floats, bins: int = 5) -> dict[str, Curve]:
    """Of numbers: `scatter`, a point a patient; `calibration`, mean prediction and truth in bins of equally many."""
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    return {
        "scatter": Curve(predicted[order].tolist(), truth[order].tolist()),
        "calibration": Curve(
            [float(predicted[part].mean()) for part in parts],
            [float(truth[part].mean()) for part in parts],
            [len(part) for part in parts],
        ),
    }
