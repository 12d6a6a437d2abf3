"""Differences of any metric between two models on the same patients: by permutation and by bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathpipe.evaluation.arrays import Floats, Ints
from pathpipe.evaluation.bootstrap import Counts, Interval, Method, Metric, in_chunks, interval

_CHUNK_VALUES = 1 << 22
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Permutation:
    """How often exchanging the models, patient by patient, gives as large a difference.

    Attributes:
        difference: First model less second; NaN when undefined.
        p: Two-sided.
        draws: Exchanges looked at.
        exact: They were all there are.
        note: What a reader must know.
    """

    difference: float
    p: float
    draws: int
    exact: bool
    note: str | None = None


def permutation_test(metric: Metric, patients: int, draws: int, seed: int, undefined: str = "") -> Permutation:
    """Exchange the two models' predictions for patients drawn by coin.

    The metric sees both models' predictions as one list of 2 P rows (the first model's patients, then the second's,
    targets twice) and picks by weights, so any metric in the weights style will do. Under the hypothesis the two
    predictions of a patient are exchangeable: for metrics of order (AUROC, C, Spearman) give `mid_ranks` of each
    model's scores, because scores on two scales are not.

    Args:
        metric: (K, 2 P) weights -> (K,) values.
        patients: P. All 2^P exchanges are looked at if that is at most `draws`.
        undefined: Why the metric is NaN, for the note.

    Reference: Fisher (1935); Venkatraman & Begg (1996), Biometrika 83, 835-848; Phipson & Smyth (2010), SAGMB 9, 39, on
    the p of drawn permutations.
    """
    nan = float("nan")
    kept = np.zeros((1, patients), bool)
    seen = float(_difference(metric, kept)[0]) if patients else nan
    if not np.isfinite(seen):
        return Permutation(nan, nan, 0, False, undefined or "the metric is undefined on these patients")
    exact = patients < 63 and 1 << patients <= draws
    total = 1 << patients if exact else draws
    rng = np.random.default_rng(seed)
    as_far = defined = 0
    step = max(1, _CHUNK_VALUES // (2 * patients))
    for at in range(0, total, step):
        size = min(step, total - at)
        if exact:
            swapped = (np.arange(at, at + size)[:, None] >> np.arange(patients) & 1).astype(bool)
        else:
            swapped = rng.random((size, patients)) < 0.5
        found = _difference(metric, swapped)
        found = found[np.isfinite(found)]
        defined += len(found)
        as_far += int((np.abs(found) >= abs(seen) - _ROUNDING).sum())
    p = as_far / defined if exact else (as_far + 1) / (defined + 1)
    note = None if defined == total else f"the metric was undefined in {total - defined} of {total} exchanges"
    return Permutation(seen, p, total, exact, note)


def _difference(metric: Metric, swapped: np.ndarray) -> Floats:
    moved = swapped.astype(np.float64)
    return metric(np.c_[1 - moved, moved]) - metric(np.c_[moved, 1 - moved])


@dataclass(frozen=True)
class BootstrapDifference:
    """First model less second over the same drawn patients.

    Attributes:
        interval: Of the difference.
        p: Two-sided: twice the smaller share of draws on the far side of 0; NaN when undefined.
    """

    interval: Interval
    p: float


def bootstrap_difference(
    first: Metric,
    second: Metric,
    weights: Counts,
    confidence: float,
    *,
    method: Method = "percentile",
    strata: Ints | None = None,
    undefined: str = "a class is absent",
) -> BootstrapDifference:
    """Interval and p of a metric's difference, both models on the same draws.

    Args:
        first: (K, P) weights -> (K,) values of the first model.
        second: The same of the second.
        weights: (draws, P) of `draw_weights`.

    Reference: Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 15 and 16.
    """

    def apart(w: Floats) -> Floats:
        return first(w) - second(w)

    found = interval(apart, weights, confidence, method=method, strata=strata, undefined=undefined)
    if not np.isfinite(found.value):
        return BootstrapDifference(found, float("nan"))
    values = in_chunks(apart, weights)
    values = values[np.isfinite(values)]
    low, high = int((values <= _ROUNDING).sum()), int((values >= -_ROUNDING).sum())
    return BootstrapDifference(found, min(1.0, 2 * (min(low, high) + 1) / (len(values) + 1)))
