"""Numbers to follow a training by: one pass over a validation fold, no intervals. `evaluation` has the real ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.floating]


def auroc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Mann-Whitney: the share of (positive, negative) pairs in the right order, ties counting half.

    NaN when there is no pair.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def concordance(time: Floats, event: npt.NDArray[np.bool_], risk: Floats) -> float:
    """Harrell's C: of pairs in which one had the event first, the share whose risks say so; ties count half.

    A patient censored at the time of an event outlived it. NaN when no pair can be compared.
    """
    right = pairs = 0.0
    for at in np.flatnonzero(event):
        outlived = (time > time[at]) | ((time == time[at]) & ~event)
        pairs += outlived.sum()
        right += (risk[at] > risk[outlived]).sum() + 0.5 * (risk[at] == risk[outlived]).sum()
    return float(right / pairs) if pairs else float("nan")


def quadratic_kappa(truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]) -> float:
    """Cohen's kappa with squared distances of grades; NaN when all is one grade.

    Reference: Cohen (1968), Psychological Bulletin 70, 213-220.
    """
    found = np.square(truth - predicted).sum() * len(truth)
    expected = np.square(truth[:, None] - predicted[None]).sum()
    return float(1 - found / expected) if expected else float("nan")


def r_squared(truth: Floats, predicted: Floats) -> float:
    """1 - squared errors / squared distances of the truth from its mean; NaN where the truth is constant."""
    spread = np.square(truth - truth.mean()).sum() if len(truth) else 0.0
    return float(1 - np.square(truth - predicted).sum() / spread) if spread > 0 else float("nan")
