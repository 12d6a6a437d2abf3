"""Weights that make up for censoring: each patient who was seen stands for those like it who no longer were."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathpipe.evaluation.arrays import Bools, Floats, same_length
from pathpipe.evaluation.survival.kaplan_meier import checked_times, counts_by_time


@dataclass(frozen=True)
class Censoring:
    """Probability G of being uncensored, as a step function.

    At a time with both, events come first: the censored leave the risk set after them. So an event at t weighs
    1 / G(t-), and who is known to be event-free at t weighs 1 / G(t).

    Attributes:
        time: (G,) distinct times of the patients it was estimated on, rising.
        survival: (G,) G after each.

    Reference: Robins & Rotnitzky (1992); Graf et al. (1999), Statistics in Medicine 18, 2529-2545, eq. 10.
    """

    time: Floats
    survival: Floats

    @classmethod
    def of(cls, time: Floats, event: Bools) -> Censoring:
        """Estimate on training patients.

        Raises:
            ValueError: There is no patient, or shapes differ.
        """
        checked_times(time)
        if same_length(time=time, event=event) == 0:
            raise ValueError("censoring can't be estimated without patients")
        distinct, events, censored, at_risk = counts_by_time(time, event)
        left = at_risk - events
        leave = np.divide(censored, left, out=np.zeros(len(left)), where=left > 0)
        return cls(distinct, np.cumprod(1 - leave))

    @property
    def reach(self) -> float:
        """The last time: until there, and with it, events have a weight."""
        return float(self.time[-1])

    def at(self, times: npt.ArrayLike) -> Floats:
        """G(t), the probability of no censoring up to and with t; NaN after `reach`, unless it is 0 there."""
        return self._read(times, "right")

    def before(self, times: npt.ArrayLike) -> Floats:
        """G(t-), the probability of no censoring before t; NaN after `reach`, unless it is 0 there."""
        return self._read(times, "left")

    def _read(self, times: npt.ArrayLike, side: str) -> Floats:
        wanted = np.asarray(times, np.float64)
        steps = np.r_[1.0, self.survival]
        values = steps[np.searchsorted(self.time, wanted, side=side)]  # type: ignore[call-overload]
        return np.where((wanted > self.time[-1]) & (steps[-1] > 0), np.nan, values)


def event_weights(censoring: Censoring, time: Floats, counted: Bools) -> Floats:
    """(P,) 1 / G(T-) of the patients that are counted, 0 of all others; NaN where G says nothing."""
    likely = censoring.before(time)
    weights = np.divide(1.0, likely, out=np.full(len(time), np.nan), where=likely > 0)
    return np.where(counted, weights, 0.0)
