"""Thresholds chosen on validation patients, and what they give on others.

A patient is called positive when its score is above the threshold (not equal to it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pathpipe.evaluation.arrays import Bools, Floats, Ints, binary, ratio, same_length, same_weights


@dataclass(frozen=True)
class Threshold:
    """A cut and what it gave on the patients it was chosen on.

    Attributes:
        value: Scores above it are positive; NaN when there is none, and `note` says why.
        sensitivity: On the patients it was chosen on.
        specificity: On the patients it was chosen on.
    """

    value: float
    sensitivity: float
    specificity: float
    note: str | None = None


def threshold_for(
    targets: Ints, score: Floats, wanted: Literal["sensitivity", "specificity"], level: float
) -> Threshold:
    """The threshold that reaches `level` of one and has as much of the other as it then can.

    Cuts lie midway between neighbouring scores, so that a score's last digit decides nothing; the outermost lie half a
    step outside of all scores.

    Args:
        targets: (P,) 0 or 1, of validation patients.
        score: (P,) higher means positive.
        wanted: What must be at least `level`.
        level: Above 0, at most 1.

    Raises:
        ValueError: `level` is out of bounds, a score is no number, or shapes differ.
    """
    if not 0 < level <= 1:
        raise ValueError(f"the wanted {wanted} must lie above 0 and be at most 1, not {level}")
    same_length(targets=targets, score=score)
    if not np.isfinite(score).all():
        raise ValueError("scores to choose a threshold among must be finite")
    positive = binary(targets)
    if positive.all() or not positive.any():
        nan = float("nan")
        return Threshold(nan, nan, nan, "a class is absent among the patients to choose a threshold on")
    cuts = _cuts(score)
    # shares of each class that score above each cut, cuts ascending
    found = 1 - np.searchsorted(np.sort(score[positive]), cuts, side="right") / positive.sum()
    spared = np.searchsorted(np.sort(score[~positive]), cuts, side="right") / (~positive).sum()
    if wanted == "sensitivity":
        at = int(np.flatnonzero(found >= level - 1e-12)[-1])  # found falls: the last cut spares most
    else:
        at = int(np.flatnonzero(spared >= level - 1e-12)[0])
    note = None if len(cuts) > 2 else "all scores are equal: every patient is called alike"
    return Threshold(float(cuts[at]), float(found[at]), float(spared[at]), note)


def _cuts(score: Floats) -> Floats:
    distinct = np.unique(score)
    step = float(np.diff(distinct).min(initial=1.0)) if len(distinct) > 1 else 1.0
    return np.r_[distinct[0] - step / 2, (distinct[1:] + distinct[:-1]) / 2, distinct[-1] + step / 2]


def sensitivity(targets: Ints, called: Bools, weights: Floats) -> Floats:
    """(K,) share of the positive patients that are called positive; NaN without positive patients."""
    weights = same_weights(weights, same_length(targets=targets, called=called))
    positive = binary(targets)
    return ratio(weights @ (positive & called), weights @ positive.astype(float))


def specificity(targets: Ints, called: Bools, weights: Floats) -> Floats:
    """(K,) share of the negative patients that are called negative; NaN without negative patients."""
    weights = same_weights(weights, same_length(targets=targets, called=called))
    positive = binary(targets)
    return ratio(weights @ (~positive & ~called), weights @ (~positive).astype(float))


def predictive_values(targets: Ints, called: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """(K,) share of the called positive that are, and of the called negative that are; NaN where none is called so.

    Both hold at the share of positive patients of these data, not at any other.
    """
    weights = same_weights(weights, same_length(targets=targets, called=called))
    positive = binary(targets)
    ppv = ratio(weights @ (positive & called), weights @ called.astype(float))
    return ppv, ratio(weights @ (~positive & ~called), weights @ (~called).astype(float))
