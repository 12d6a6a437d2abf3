"""The log-rank test: do groups of patients have the event at the same rate at all times?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from pathpipe.evaluation.arrays import Bools, Floats, Ints, binary, same_length
from pathpipe.evaluation.survival.kaplan_meier import checked_times


@dataclass(frozen=True)
class LogRank:
    """What was seen in each group and what equal rates would have given.

    Attributes:
        groups: (G,) the values of `group`, sorted.
        patients: (G,).
        observed: (G,) events.
        expected: (G,) events if all groups had one rate.
        chi2: The statistic; NaN when undefined.
        freedom: Degrees of freedom.
        p: Two-sided.
        note: Why it is undefined.
    """

    groups: tuple[str, ...]
    patients: Ints
    observed: Floats
    expected: Floats
    chi2: float
    freedom: int
    p: float
    note: str | None = None


def log_rank(time: Floats, event: Bools, group: np.ndarray, strata: np.ndarray | None = None) -> LogRank:
    """Log-rank test of two or more groups.

    Args:
        time: (P,).
        event: (P,) true where the event was seen.
        group: (P,) any labels.
        strata: (P,) labels, e.g. the site: groups are then compared within each stratum only.

    Reference: Mantel (1966), Cancer Chemotherapy Reports 50, 163-170; Peto & Peto (1972), JRSS A 135, 185-207.
    """
    checked_times(time)
    within = np.zeros(len(time), np.int64) if strata is None else strata
    same_length(time=time, event=event, group=group, strata=within)
    seen = binary(np.asarray(event), "event")
    names, member = np.unique(group, return_inverse=True)
    one_hot = np.eye(len(names))[member]  # (P, G)
    expected, variance = np.zeros(len(names)), np.zeros((len(names), len(names)))
    for stratum in np.unique(within):
        rows = within == stratum
        some, spread = _one_stratum(time[rows], seen[rows], one_hot[rows])
        expected, variance = expected + some, variance + spread
    observed = one_hot[seen].sum(axis=0)
    chi2, freedom = _statistic(observed, expected, variance)
    note = None
    if len(names) < 2:
        note = "there is only one group"
    elif not seen.any():
        note = "all patients are censored"
    elif freedom == 0:
        note = "the groups are never at risk at the same time"
    return LogRank(
        groups=tuple(str(name) for name in names),
        patients=one_hot.sum(axis=0).astype(np.int64),
        observed=observed,
        expected=expected,
        chi2=float("nan") if note else chi2,
        freedom=freedom,
        p=float("nan") if note else float(chdtrc(freedom, chi2)),
        note=note,
    )


def _one_stratum(time: Floats, seen: Bools, one_hot: Floats) -> tuple[Floats, Floats]:
    """Expected events (G,) and their hypergeometric covariance (G, G), summed over the times of events."""
    distinct, at = np.unique(time, return_inverse=True)
    leaving, events = np.zeros((len(distinct), one_hot.shape[1])), np.bincount(at[seen], minlength=len(distinct))
    np.add.at(leaving, at, one_hot)
    left = np.cumsum(leaving[::-1], axis=0)[::-1]  # (T, G) at risk
    all_left = left.sum(axis=1)
    share = left / all_left[:, None]
    expected = (events[:, None] * share).sum(axis=0)
    spread = events * (all_left - events) / np.maximum(all_left - 1, 1)  # 0 when the last patient is alone
    covariance = np.diag((spread[:, None] * share).sum(axis=0)) - (spread[:, None] * share).T @ share
    return expected, covariance


def _statistic(observed: Floats, expected: Floats, variance: Floats) -> tuple[float, int]:
    """Chi-squared of the groups that could differ, and its degrees of freedom (the rank of their covariance)."""
    largest = float(np.abs(variance).max(initial=0.0))
    if largest == 0:
        return float("nan"), 0
    difference = observed - expected
    inverse = np.linalg.pinv(variance, rcond=1e-10, hermitian=True)
    freedom = int(np.linalg.matrix_rank(variance, tol=1e-10 * largest, hermitian=True))
    return float(difference @ inverse @ difference), freedom
