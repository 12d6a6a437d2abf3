"""The Kaplan-Meier estimate of survival, its interval, its median and how many were still at risk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pathpipe.evaluation.arrays import Bools, Floats, Ints, binary, ratio, same_length, same_weights, tie_groups

_ROUNDING = 1e-12  # a product of fractions that is 1/2 on paper is not on a computer


@dataclass(frozen=True)
class KaplanMeier:
    """Survival as a step function, and the numbers below a plot of it.

    Attributes:
        time: (G,) distinct times, rising.
        at_risk: (G,) patients with at least that time.
        events: (G,) events at that time.
        censored: (G,) patients censored at that time, who are at risk there.
        survival: (G,) probability to be event-free after that time.
        low: (G,) lower bound; NaN once survival is 0.
        high: (G,) upper bound.
        median: First time at which survival is at most a half; NaN when it stays above.
        median_low: First time at which the lower bound is at most a half.
        median_high: The same of the upper bound; NaN when it stays above.
        note: What a reader must know, e.g. that all patients are censored.
    """

    time: Floats
    at_risk: Ints
    events: Ints
    censored: Ints
    survival: Floats
    low: Floats
    high: Floats
    median: float
    median_low: float
    median_high: float
    note: str | None = None

    def at(self, times: npt.ArrayLike) -> Floats:
        """Survival at any times; NaN after the last time unless survival is 0 there."""
        wanted = np.asarray(times, np.float64)
        steps = np.r_[1.0, self.survival]
        values = steps[np.searchsorted(self.time, wanted, side="right")]
        beyond = wanted > self.time[-1] if len(self.time) else np.ones(wanted.shape, bool)
        return np.where(beyond & (steps[-1] > 0), np.nan, values)


def kaplan_meier(time: Floats, event: Bools, confidence: float = 0.95) -> KaplanMeier:
    """Survival of one group, with Greenwood's variance on the log-log scale.

    Patients censored at a time of events are at risk there.

    Reference: Kaplan & Meier (1958), JASA 53, 457-481; Greenwood (1926); Kalbfleisch & Prentice (1980), eq. 1.13 for
    the log-log interval; Brookmeyer & Crowley (1982), Biometrics 38, 29-41 for the median's.
    """
    checked_times(time)
    same_length(time=time, event=event)
    distinct, events, censored, at_risk = counts_by_time(time, event)
    survival: Floats = np.asarray(np.cumprod(1 - ratio(events, at_risk)), np.float64)
    low, high = _log_log_bounds(survival, np.cumsum(ratio(events, at_risk * (at_risk - events))), confidence)
    note = None
    if len(time) == 0:
        note = "there is no patient"
    elif not event.any():
        note = "all patients are censored: survival stays at 1 and has no median"
    half: list[float] = [_first_at_half(distinct, curve) for curve in (survival, low, high)]
    return KaplanMeier(distinct, at_risk, events, censored, survival, low, high, half[0], half[1], half[2], note)


def _log_log_bounds(survival: Floats, variance: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Bounds of S; `variance` is Greenwood's of log S, NaN from where all at risk have the event."""
    between = (survival < 1) & np.isfinite(variance)
    log_survival = np.log(survival, out=np.full(len(survival), -1.0), where=between)
    half_width = float(ndtri((1 + confidence) / 2)) * np.sqrt(np.where(between, variance, 0.0)) / -log_survival
    outside = np.where(survival == 1, 1.0, np.nan)
    low: Floats = np.where(between, np.power(survival, np.exp(half_width)), outside)
    high: Floats = np.where(between, np.power(survival, np.exp(-half_width)), outside)
    return low, high


def weighted_survival(time: Floats, event: Bools, weights: Floats, times: Floats) -> Floats:
    """(K, T) Kaplan-Meier survival at `times` of every bootstrap draw; after a draw's last patient it stays flat."""
    weights = same_weights(weights, same_length(time=time, event=event))
    order = np.argsort(time, kind="stable")
    starts, _ = tie_groups(time[order])
    sorted_weights = weights[:, order]
    events = np.add.reduceat(sorted_weights * event[order], starts, axis=1)
    left = np.cumsum(sorted_weights[:, ::-1], axis=1)[:, ::-1][:, starts]
    share = np.divide(events, left, out=np.zeros_like(left), where=left > 0)
    curve = np.c_[np.ones(len(weights)), np.cumprod(1 - share, axis=1)]
    return np.asarray(curve[:, np.searchsorted(time[order][starts], times, side="right")])


def counts_by_time(time: Floats, event: Bools) -> tuple[Floats, Ints, Ints, Ints]:
    """Distinct times, and at each the events, the censored and those at risk: all (G,)."""
    distinct, group = np.unique(time, return_inverse=True)
    seen = binary(np.asarray(event), "event")
    events = np.bincount(group[seen], minlength=len(distinct)).astype(np.int64)
    censored = np.bincount(group[~seen], minlength=len(distinct)).astype(np.int64)
    leaving = events + censored
    return distinct, events, censored, np.cumsum(leaving[::-1])[::-1]


def checked_times(time: Floats) -> Floats:
    """`time`, if all are finite and none is below 0.

    Raises:
        ValueError: They are not.
    """
    if time.ndim != 1 or not np.isfinite(time).all() or (time < 0).any():
        raise ValueError("times must be one row of finite numbers, none below 0")
    return time


def _first_at_half(time: Floats, curve: Floats) -> float:
    reached = np.flatnonzero(curve <= 0.5 + _ROUNDING)  # NaN is never reached
    return float(time[reached[0]]) if len(reached) else float("nan")
