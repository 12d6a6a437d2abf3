"""Is a predicted 30% right three times in ten? Reliability, expected calibration error, intercept and slope.

For two classes the outcome is class 1 and the score its probability; for more, `top_label` makes the outcome "the
largest probability was right" and the score that probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri

from pathpipe.evaluation.arrays import Floats, Ints, binary, ratio, same_length, same_weights

_STEPS = 40
_EDGE = 1e-12  # probabilities are kept that far from 0 and 1, where log-odds end


@dataclass(frozen=True)
class Reliability:
    """One point a bin that holds a patient.

    Attributes:
        predicted: (B,) mean score.
        observed: (B,) share with the outcome.
        low: (B,) Wilson's interval of that share.
        high: (B,)
        count: (B,) patients.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    count: Ints


def top_label(targets: Ints, probabilities: Floats) -> tuple[Ints, Floats]:
    """(P,) 1 where the class with the largest probability is right, and (P,) that probability."""
    same_length(targets=targets, probabilities=probabilities)
    return (probabilities.argmax(axis=1) == targets).astype(np.int64), probabilities.max(axis=1)


def equal_mass_bins(score: Floats, bins: int) -> Ints:
    """(P,) the bin of each score, with as equally many patients as ties allow: equal scores share a bin."""
    _checked_scores(score, bins)
    if len(score) == 0:
        return np.zeros(0, np.int64)
    parts = np.array_split(np.sort(score), min(bins, len(score)))
    last = np.unique([part[-1] for part in parts])
    return np.searchsorted(last, score, side="left").astype(np.int64)


def expected_calibration_error(outcome: Ints, score: Floats, weights: Floats, bin_of: Ints) -> Floats:
    """(K,) mean over patients of |share with the outcome - mean score| of their bin; NaN without patients.

    Never below 0, so it is too high in small samples; compare only what has as many patients and the same bins.

    Args:
        bin_of: (P,) of `equal_mass_bins`; the same in all draws.

    Reference: Naeini, Cooper & Hauskrecht (2015), AAAI; Guo et al. (2017), ICML, eq. 3.
    """
    weights = same_weights(weights, same_length(outcome=outcome, score=score, bin_of=bin_of))
    gaps = (binary(outcome, "outcome") - score)[:, None] * np.eye(int(bin_of.max(initial=0)) + 1)[bin_of]  # (P, B)
    return ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def reliability_bins(outcome: Ints, score: Floats, bin_of: Ints, confidence: float = 0.95) -> Reliability:
    """Points of a reliability curve, each with Wilson's interval.

    Reference: Wilson (1927), JASA 22, 209-212.
    """
    same_length(outcome=outcome, score=score, bin_of=bin_of)
    many = np.bincount(bin_of)
    filled = many > 0
    count: Floats = many[filled].astype(np.float64)
    hits: Floats = np.bincount(bin_of[binary(outcome, "outcome")], minlength=len(many))[filled].astype(np.float64)
    predicted = np.bincount(bin_of, weights=score)[filled] / count
    low, high = wilson(hits, count, confidence)
    return Reliability(predicted, hits / count, low, high, count.astype(np.int64))


def wilson(hits: Floats, count: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Bounds of a share; NaN where nothing was counted.

    Reference: Wilson (1927), JASA 22, 209-212.
    """
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    share = ratio(hits, count)
    centre = share + ratio(z2 / 2, count)
    spread = np.sqrt(z2 * (ratio(share * (1 - share), count) + ratio(z2 / 4, np.square(count))))
    shrink = 1 + ratio(z2, count)
    return (centre - spread) / shrink, (centre + spread) / shrink


def calibration_intercept(outcome: Ints, score: Floats, weights: Floats) -> Floats:
    """(K,) calibration in the large: what must be added to the log-odds for as many outcomes as predicted; 0 is right.

    Below 0: the scores are too high. NaN where all have the outcome, or none.

    Reference: Cox (1958), Biometrika 45, 562-565; Van Calster et al. (2019), BMC Medicine 17, 230.
    """
    weights = same_weights(weights, same_length(outcome=outcome, score=score))
    odds, hits = _log_odds(score), weights @ binary(outcome, "outcome").astype(np.float64)
    added = np.zeros(len(weights))
    possible = (hits > 0) & (hits < weights.sum(axis=1))
    step = np.full(len(weights), np.inf)
    for _ in range(_STEPS):
        p = expit(odds + added[:, None])
        step = np.clip(ratio(hits - (weights * p).sum(axis=1), (weights * p * (1 - p)).sum(axis=1)), -2, 2)
        added = np.where(possible, added + step, np.nan)
        if not (np.abs(step[possible]) > 1e-10).any():
            break
    return np.where(np.abs(step) <= 1e-8, added, np.nan)


def calibration_slope(outcome: Ints, score: Floats, weights: Floats) -> Floats:
    """(K,) slope of the outcome's log-odds over the score's; 1 is right, below 1 the scores are too extreme.

    NaN where all have the outcome or none, where the scores are constant, and where they separate without a mistake.

    Reference: Cox (1958), Biometrika 45, 562-565; Van Calster et al. (2019), BMC Medicine 17, 230.
    """
    weights = same_weights(weights, same_length(outcome=outcome, score=score))
    positive, odds = binary(outcome, "outcome").astype(np.float64), _log_odds(score)
    spread = float(odds.std()) if len(odds) else 0.0
    if spread <= 1e-12:
        return np.full(len(weights), np.nan)
    x = (odds - odds.mean()) / spread
    return _logistic_slope(x, positive, weights) / spread


def _logistic_slope(x: Floats, positive: Floats, weights: Floats) -> Floats:
    """Newton's method for all draws at once; NaN where it doesn't settle, which is where there is no maximum."""
    line = np.zeros((2, len(weights)))  # intercept and slope
    hits, across = weights @ positive, weights @ (positive * x)
    step = np.full_like(line, np.inf)
    for _ in range(_STEPS):
        p = expit(line[0][:, None] + line[1][:, None] * x)
        v = weights * p * (1 - p)
        a, b, c = v.sum(axis=1), v @ x, v @ np.square(x)
        off0, off1 = hits - (weights * p).sum(axis=1), across - (weights * p) @ x
        det = a * c - b * b
        det = np.where(det > 1e-13 * a * c, det, np.nan)
        step = np.clip(np.stack([c * off0 - b * off1, a * off1 - b * off0]) / det, -2, 2)
        line = line + step
        if not (np.abs(step) > 1e-10).any():  # NaN has nowhere to go
            break
    return np.where((np.abs(step) <= 1e-8).all(axis=0), line[1], np.nan)


def _log_odds(score: Floats) -> Floats:
    _checked_scores(score, 1)
    return np.asarray(logit(np.clip(score, _EDGE, 1 - _EDGE)))


def _checked_scores(score: Floats, bins: int) -> None:
    if bins < 1:
        raise ValueError(f"there must be at least one bin, not {bins}")
    if score.ndim != 1 or not ((score >= 0) & (score <= 1)).all():
        raise ValueError("scores must be one row of probabilities")
