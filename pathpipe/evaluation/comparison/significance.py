"""Tests on a few numbers: scores of folds, counts of mistakes, and many p-values at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from pathpipe.evaluation.arrays import Floats

_NAN = float("nan")


@dataclass(frozen=True)
class FoldTest:
    """The mean difference over folds.

    Attributes:
        difference: Mean over the folds that have one.
        low: Lower bound.
        high: Upper bound.
        t: The statistic.
        freedom: Folds less one.
        p: Two-sided.
        note: Why there is no test.
    """

    difference: float
    low: float
    high: float
    t: float
    freedom: int
    p: float
    note: str | None = None


def corrected_t_test(differences: Floats, share_tested: float, confidence: float = 0.95) -> FoldTest:
    """t-test across folds whose training patients overlap: the variance is raised for that.

    Args:
        differences: (J,) metric of the first model less that of the second, by fold; NaN of a fold without a value.
        share_tested: Test patients / training patients of one fold, e.g. 1/4 for five folds.

    Raises:
        ValueError: `share_tested` is not above 0.

    Reference: Nadeau & Bengio (2003), Machine Learning 52, 239-281.
    """
    if share_tested <= 0:
        raise ValueError(f"the share of test to training patients must be above 0, not {share_tested}")
    known = differences[np.isfinite(differences)]
    mean = float(known.mean()) if len(known) else _NAN
    freedom = max(0, len(known) - 1)
    if freedom == 0:
        return FoldTest(mean, _NAN, _NAN, _NAN, freedom, _NAN, "fewer than two folds have a value")
    error = float(np.sqrt((1 / len(known) + share_tested) * known.var(ddof=1)))
    if error <= 1e-12 * max(abs(mean), 1e-3):
        return FoldTest(mean, _NAN, _NAN, _NAN, freedom, _NAN, "the difference is the same in all folds")
    margin, t = float(stdtrit(freedom, (1 + confidence) / 2)) * error, mean / error
    missing = len(differences) - len(known)
    note = f"{missing} of {len(differences)} folds have no value" if missing else None
    return FoldTest(mean, mean - margin, mean + margin, t, freedom, float(2 * stdtr(freedom, -abs(t))), note)


def holm(p: Floats) -> Floats:
    """(M,) p-values corrected for there being M of them; NaN stays NaN and doesn't count.

    Reference: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return corrected
