"""Concordance: of two patients, does the one with the higher risk have the event first? Harrell's C and Uno's C.

Pairs are comparable when one patient's event came before the other's time, or at the time the other was censored. Two
events at one time say nothing. Equal risks count half.
"""

from __future__ import annotations

import numpy as np

from pathpipe.evaluation.arrays import Bools, Floats, Ints, binary, ones, ratio, same_length, same_weights
from pathpipe.evaluation.survival.censoring import Censoring, event_weights
from pathpipe.evaluation.survival.kaplan_meier import checked_times

_BLOCK_VALUES = 1 << 21  # values of a block of the pair matrix: 16 MB


def harrell(time: Floats, event: Bools, risk: Floats, weights: Floats, strata: Ints | None = None) -> Floats:
    """(K,) Harrell's C; 0.5 when all risks are equal, NaN when no pair is comparable.

    Args:
        time: (P,).
        event: (P,) true where the event was seen.
        risk: (P,) higher means an earlier event.
        strata: (P,) labels: only patients of one stratum are compared, e.g. of one fold, whose risks one model gave.

    Reference: Harrell et al. (1982), JAMA 247, 2543-2546; Harrell, Lee & Mark (1996), Statistics in Medicine 15.
    """
    return _within(strata, time, event, risk, weights, binary(np.asarray(event), "event").astype(np.float64))


def uno(
    time: Floats,
    event: Bools,
    risk: Floats,
    weights: Floats,
    censoring: Censoring,
    tau: float = np.inf,
    strata: Ints | None = None,
) -> Floats:
    """(K,) Uno's C: pairs weigh 1 / G(T-)^2, so that it estimates the same number however many were censored.

    Args:
        time: (P,).
        event: (P,) true where the event was seen.
        risk: (P,) higher means an earlier event.
        censoring: Of the training patients.
        tau: Only events before it count. Where G says nothing of an event before tau, C is NaN: `censoring.reach`
            is always small enough.
        strata: (P,) labels: only patients of one stratum are compared.

    Reference: Uno et al. (2011), Statistics in Medicine 30, 1105-1117.
    """
    counted = binary(np.asarray(event), "event") & (time < tau)
    return _within(strata, time, event, risk, weights, np.square(event_weights(censoring, time, counted)))


def why_undefined(time: Floats, event: Bools, censoring: Censoring | None = None, tau: float = np.inf) -> str:
    """Why C of these patients is NaN, in words; empty when it isn't."""
    if not event.any():
        return "all patients are censored"
    counted = np.asarray(event, bool) & (time < tau)
    if not counted.any():
        return f"no event was seen before {tau:g}"
    if censoring is not None and not np.isfinite(event_weights(censoring, time, counted)).all():
        return f"an event came after {censoring.reach:g}, the last time of the training patients: choose a smaller tau"
    if np.isnan(_within(None, time, event, np.zeros(len(time)), ones(len(time)), counted.astype(np.float64)))[0]:
        return "no two patients can be compared"
    return ""


def _within(strata: Ints | None, time: Floats, event: Bools, risk: Floats, weights: Floats, of_event: Floats) -> Floats:
    weights = same_weights(weights, same_length(time=time, event=event, risk=risk))
    checked_times(time)
    if not np.isfinite(of_event).all() or np.isnan(risk).any():
        return np.full(len(weights), np.nan)
    among = np.zeros(len(time), np.int64) if strata is None else strata
    won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for stratum in np.unique(among):
        rows = among == stratum
        some, of_some = _pairs(time[rows], event[rows], risk[rows], weights[:, rows], of_event[rows])
        won, pairs = won + some, pairs + of_some
    return ratio(won, pairs)


def _pairs(time: Floats, event: Bools, risk: Floats, weights: Floats, of_event: Floats) -> tuple[Floats, Floats]:
    """(K,) weight of the pairs in the right order, and of all comparable pairs."""
    order = np.lexsort((~event.astype(bool), time))  # events first among equal times
    time, event, risk, of_event = time[order], event[order].astype(bool), risk[order], of_event[order]
    weights = weights[:, order]
    rows = np.flatnonzero(of_event > 0)
    # whom an event is compared with begins after the last event of its own time
    ends = np.searchsorted(time, time[rows], side="left") + _events_at(time, event)[rows]
    later = np.c_[np.cumsum(weights[:, ::-1], axis=1)[:, ::-1], np.zeros(len(weights))]
    row_weights = weights[:, rows] * of_event[rows]
    pairs = (row_weights * later[:, ends]).sum(axis=1)
    won = np.zeros(len(weights))
    step = max(1, _BLOCK_VALUES // max(1, len(time)))
    places = np.arange(len(time))
    for at in range(0, len(rows), step):
        block = slice(at, at + step)
        mine = risk[rows[block], None]
        wins = (mine > risk) + 0.5 * (mine == risk)  # (rows, P)
        wins *= places >= ends[block, None]
        won += np.einsum("kr,kr->k", row_weights[:, block], weights @ wins.T)
    return won, pairs


def _events_at(time: Floats, event: Bools) -> np.ndarray:
    """(P,) events at each patient's time."""
    _, group = np.unique(time, return_inverse=True)
    return np.bincount(group, weights=event).astype(np.int64)[group]
