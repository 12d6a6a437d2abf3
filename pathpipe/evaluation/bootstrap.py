"""The bootstrap over patients: intervals that say how much another sample of patients would have changed a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.unsignedinteger]
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True)
class Interval:
    """A number with its interval.

    Attributes:
        value: On the data as they are; NaN when undefined.
        low: Lower bound.
        high: Upper bound.
        draws: Draws in which the number was defined.
        note: What a reader must know, e.g. that the interval can't be narrower than the data allow.
    """

    value: float
    low: float
    high: float
    draws: int
    note: str | None = None


def draw_weights(strata: Ints, draws: int, seed: int) -> Counts:
    """How often each patient is drawn.

    Patients are drawn with replacement within their stratum (the true class), so every draw has the classes of the data
    in the same numbers.

    Args:
        strata: (P,) stratum of each patient.

    Returns:
        (draws, P) counts, as the smallest unsigned integers that hold them.

    Reference: Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, len(strata)), np.min_scalar_type(len(strata)))
    step = _draws_per_chunk(len(strata))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        even = np.full(len(members), 1 / len(members))
        for at in range(0, draws, step):
            size = min(step, draws - at)
            weights[at : at + size, members] = rng.multinomial(len(members), even, size=size)
    return weights


def interval(metric: Callable[[Floats], Floats], weights: Counts, confidence: float) -> Interval:
    """Percentile interval of a metric.

    Args:
        metric: (K, P) weights -> (K,) values.
        weights: (draws, P) of `draw_weights`.
    """
    value = float(metric(np.ones((1, weights.shape[1])))[0])
    step = _draws_per_chunk(weights.shape[1])
    values = np.concatenate([metric(weights[at : at + step].astype(np.float64)) for at in range(0, len(weights), step)])
    values = values[np.isfinite(values)]
    if not np.isfinite(value) or len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), len(values), "a class is absent")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    note = None
    if low == high:
        note = "every draw gives the same value: the interval only says that these patients are all alike to it"
    return Interval(value, float(low), float(high), len(values), note)


def _draws_per_chunk(patients: int) -> int:
    return max(1, _CHUNK_BYTES // (8 * max(1, patients)))
