"""Decision curves: is acting on the model better than acting on everyone, or on no one?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pathpipe.evaluation.arrays import Floats, Ints, binary, ratio, same_length, same_weights
from pathpipe.evaluation.bootstrap import Band, Counts, band


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit by threshold probability; acting on no one has 0 everywhere.

    Attributes:
        thresholds: (T,) probability from which on one would act.
        model: Net benefit of acting on who scores at least that.
        everyone: Net benefit of acting on all.
        gain: Net benefit of the model less the better of everyone and no one; its interval is of the paired
            difference, so above 0 it says that the model helps there.
        note: Why there is none.
    """

    thresholds: Floats
    model: Band
    everyone: Band
    gain: Band
    note: str | None = None


def net_benefit(targets: Ints, score: Floats, weights: Floats, thresholds: Floats) -> Floats:
    """(K, T) true positives less false positives times the odds of the threshold, per patient.

    Args:
        targets: (P,) 0 or 1.
        score: (P,) probability of class 1.
        thresholds: (T,) above 0 and below 1.

    Reference: Vickers & Elkin (2006), Medical Decision Making 26, 565-574.
    """
    weights = same_weights(weights, same_length(targets=targets, score=score))
    odds = _odds(thresholds)
    positive = binary(targets)[:, None]
    worth = np.where(positive, 1.0, -odds)  # (P, T)
    worth *= score[:, None] >= thresholds
    return ratio(weights @ worth, weights.sum(axis=1, keepdims=True))


def net_benefit_of_everyone(targets: Ints, weights: Floats, thresholds: Floats) -> Floats:
    """(K, T) net benefit of acting on all patients."""
    return net_benefit(targets, np.ones(len(targets)), weights, thresholds)


def decision_curve(
    targets: Ints, score: Floats, thresholds: Floats, weights: Counts, confidence: float
) -> DecisionCurve:
    """Net benefit with bootstrap intervals, point by point.

    Args:
        weights: (draws, P). Drawn within the classes they keep the share of class 1 as it is in the data, which is
            right where that share was fixed by design; drawn from all patients they let it vary.
    """
    note = None
    if binary(targets).all() or not binary(targets).any():
        note = "a class is absent"

    def gain(w: Floats) -> Floats:
        without = np.maximum(net_benefit_of_everyone(targets, w, thresholds), 0)
        return net_benefit(targets, score, w, thresholds) - without

    def unless_absent(metric: partial[Floats]) -> Band:
        if note is None:
            return band(metric, weights, confidence)
        nothing = np.full(len(thresholds), np.nan)
        return Band(nothing, nothing, nothing, np.zeros(len(thresholds), np.int64))

    return DecisionCurve(
        thresholds,
        model=unless_absent(partial(net_benefit, targets, score, thresholds=thresholds)),
        everyone=unless_absent(partial(net_benefit_of_everyone, targets, thresholds=thresholds)),
        gain=unless_absent(partial(gain)),
        note=note,
    )


def _odds(thresholds: Floats) -> Floats:
    if thresholds.ndim != 1 or not ((thresholds > 0) & (thresholds < 1)).all():
        raise ValueError("thresholds must be one row of probabilities above 0 and below 1")
    return thresholds / (1 - thresholds)
