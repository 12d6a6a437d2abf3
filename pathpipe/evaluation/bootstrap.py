"""The bootstrap over patients: intervals that say how much another sample of patients would have changed a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from pathpipe.evaluation.arrays import Floats, Ints, ones

Counts = npt.NDArray[np.unsignedinteger]
Method = Literal["percentile", "bca"]
Metric = Callable[[Floats], Floats]
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


@dataclass(frozen=True)
class Band:
    """Numbers along an axis, e.g. thresholds or times, each with its own interval.

    Attributes:
        value: (T,) on the data as they are; NaN where undefined.
        low: (T,).
        high: (T,).
        draws: (T,) draws in which each number was defined.
    """

    value: Floats
    low: Floats
    high: Floats
    draws: Ints


def draw_weights(strata: Ints, draws: int, seed: int) -> Counts:
    """How often each patient is drawn.

    Patients are drawn with replacement within their stratum (the true class; for survival whether the event was seen),
    so every draw has the strata of the data in the same numbers.

    Args:
        strata: (P,) stratum of each patient; all equal for a measured target.

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


def interval(
    metric: Metric,
    weights: Counts,
    confidence: float,
    *,
    method: Method = "percentile",
    strata: Ints | None = None,
    undefined: str = "a class is absent",
) -> Interval:
    """Bootstrap interval of a metric.

    Args:
        metric: (K, P) weights -> (K,) values.
        weights: (draws, P) of `draw_weights`.
        method: `percentile`, or `bca`: corrected for bias and for an error that changes with the value. Where BCa is
            undefined (a number at its limit in all draws, a patient without whom there is no number) the interval is
            by percentiles and `note` says so.
        strata: (P,) those the weights were drawn within; BCa takes its acceleration over them.
        undefined: What to say where the metric is NaN.

    Reference: Efron (1987), JASA 82, 171-185; Efron & Tibshirani (1993), eq. 14.10, 14.14-15 and, for several samples,
    DiCiccio & Efron (1996), Statistical Science 11, 189-228.
    """
    value = float(metric(ones(weights.shape[1]))[0])
    values = in_chunks(metric, weights)
    values = values[np.isfinite(values)]
    if not np.isfinite(value) or len(values) == 0:
        nan = float("nan")
        return Interval(nan, nan, nan, len(values), undefined)
    tails, note = _tails(confidence), None
    if method == "bca":
        among = np.zeros(weights.shape[1], np.int64) if strata is None else strata
        corrected = _bca_tails(metric, value, values, tails, among)
        if isinstance(corrected, str):
            note = f"BCa is undefined ({corrected}): the interval is by percentiles"
        else:
            tails = corrected
    low, high = np.quantile(values, tails)
    if low == high:
        note = "every draw gives the same value: the interval only says that these patients are all alike to it"
    return Interval(value, float(low), float(high), len(values), note)


def band(metric: Metric, weights: Counts, confidence: float) -> Band:
    """Percentile intervals, point by point, of a metric that gives (K, T) values."""
    value = metric(ones(weights.shape[1]))[0]
    values = in_chunks(metric, weights)
    fine = np.isfinite(values) & np.isfinite(value)
    bounds = np.full((2, len(value)), np.nan)
    for at in np.flatnonzero(fine.any(axis=0)):
        bounds[:, at] = np.quantile(values[fine[:, at], at], _tails(confidence))
    return Band(value, bounds[0], bounds[1], fine.sum(axis=0))


def in_chunks(metric: Metric, weights: Counts) -> Floats:
    """The metric of every draw, some draws at a time."""
    step = _draws_per_chunk(weights.shape[1])
    parts = [metric(weights[at : at + step].astype(np.float64)) for at in range(0, len(weights), step)]
    return np.concatenate(parts) if parts else np.zeros(0)


def jackknife(metric: Metric, patients: int) -> Floats:
    """(P,) the metric without each patient in turn; NaN where it needs that patient."""
    step = _draws_per_chunk(patients)
    parts = []
    for at in range(0, patients, step):
        without = np.ones((min(step, patients - at), patients))
        without[np.arange(len(without)), at + np.arange(len(without))] = 0
        parts.append(metric(without))
    return np.concatenate(parts)


def _tails(confidence: float) -> Floats:
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence must lie between 0 and 1, not {confidence}")
    return np.array([(1 - confidence) / 2, (1 + confidence) / 2])


def _bca_tails(metric: Metric, value: float, values: Floats, tails: Floats, strata: Ints) -> Floats | str:
    """The quantiles of the draws to take instead of `tails`, or why there are none."""
    below = ((values < value).mean() + (values <= value).mean()) / 2
    if below in (0, 1):
        return "all draws lie on one side of the value"
    alone = jackknife(metric, len(strata))
    if not np.isfinite(alone).all():
        return "without one of the patients there is no value"
    if np.ptp(alone) <= 1e-12 * np.abs(alone).max():
        return "no patient alone changes the value"
    acceleration = _acceleration(alone, strata)
    bias = ndtri(below)
    shifted = bias + ndtri(tails)
    if (acceleration * shifted >= 1).any():
        return "the acceleration is too large"
    return np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)))


def _acceleration(alone: Floats, strata: Ints) -> float:
    cubes = squares = 0.0
    for stratum in np.unique(strata):
        part = alone[strata == stratum]
        influence = (part.mean() - part) * (len(part) - 1) / len(part)
        cubes, squares = cubes + float(np.sum(influence**3)), squares + float(np.sum(influence**2))
    return cubes / (6 * squares**1.5) if squares > 0 else 0.0


def _draws_per_chunk(patients: int) -> int:
    return max(1, _CHUNK_BYTES // (8 * max(1, patients)))
