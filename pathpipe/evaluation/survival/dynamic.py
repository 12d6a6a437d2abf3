"""How well risk, or predicted survival, tells by a given time: dynamic AUC and Brier score, weighted for censoring.

Both take predictions made at one moment and ask about several times, in the weights style: (K, P) -> (K, T).
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import trapezoid

from pathpipe.evaluation.arrays import Bools, Floats, binary, ratio, same_length, same_weights
from pathpipe.evaluation.metrics import mann_whitney
from pathpipe.evaluation.survival.censoring import Censoring, event_weights
from pathpipe.evaluation.survival.kaplan_meier import checked_times, weighted_survival


def dynamic_auc(
    time: Floats, event: Bools, risk: Floats, weights: Floats, censoring: Censoring, times: Floats
) -> Floats:
    """(K, T) cumulative/dynamic AUC: who has the event by t against who is event-free after t; ties count half.

    NaN at a time by which no event was seen, after which nobody is left, or of which the training patients' censoring
    says nothing.

    Args:
        risk: (P,) higher means an earlier event, or (P, T) when it changes with the time asked about.
        censoring: Of the training patients.
        times: (T,).

    Reference: Uno et al. (2007), JASA 102, 527-537; Hung & Chiang (2010), Canadian Journal of Statistics 38, 8-26.
    """
    weights = same_weights(weights, same_length(time=time, event=event, risk=risk))
    seen = binary(np.asarray(event), "event")
    checked_times(time)
    by_time = _columns(risk, times, "risk")
    found = np.full((len(weights), len(times)), np.nan)
    for at, moment in enumerate(times):
        cases = event_weights(censoring, time, seen & (time <= moment))
        if np.isfinite(cases).all():
            found[:, at] = mann_whitney(weights * cases, weights * (time > moment), by_time[:, at])
    return found


def mean_dynamic_auc(
    time: Floats, event: Bools, risk: Floats, weights: Floats, censoring: Censoring, times: Floats
) -> Floats:
    """(K,) mean of the dynamic AUC over `times`, each weighing as many events as fall up to it from the one before.

    Reference: Lambert & Chevret (2016), Statistical Methods in Medical Research 25, 2088-2102.
    """
    _rising(times)
    values = dynamic_auc(time, event, risk, weights, censoring, times)
    survival = weighted_survival(time, binary(np.asarray(event), "event"), weights, times)
    falls = -np.diff(survival, axis=1, prepend=1.0)
    share = np.where(falls > 0, falls * values, 0.0)  # a time that nothing leads up to may be undefined
    return ratio(share.sum(axis=1), falls.sum(axis=1))


def brier_at(
    time: Floats, event: Bools, survival: Floats, weights: Floats, censoring: Censoring, times: Floats
) -> Floats:
    """(K, T) mean squared error of predicted survival at each time; 0.25 is a coin.

    NaN at a time of which the training patients' censoring says nothing.

    Args:
        survival: (P, T) predicted probability of no event up to and with each time.
        censoring: Of the training patients.
        times: (T,).

    Reference: Graf et al. (1999), Statistics in Medicine 18, 2529-2545.
    """
    weights = same_weights(weights, same_length(time=time, event=event, survival=survival))
    seen = binary(np.asarray(event), "event")
    checked_times(time)
    predicted = _columns(survival, times, "survival")
    gone = seen[:, None] & (time[:, None] <= times)  # (P, T)
    left = time[:, None] > times
    before = event_weights(censoring, time, seen & (time <= times.max(initial=-np.inf)))[:, None]
    likely = censoring.at(times)
    later = np.divide(1.0, likely, out=np.full(len(times), np.nan), where=likely > 0)
    errors = np.where(gone, np.square(predicted) * before, 0.0) + np.where(left, np.square(1 - predicted) * later, 0.0)
    errors[:, np.isnan(later)] = np.nan
    return np.asarray(ratio(weights @ errors, weights.sum(axis=1, keepdims=True)))


def integrated_brier(
    time: Floats, event: Bools, survival: Floats, weights: Floats, censoring: Censoring, times: Floats
) -> Floats:
    """(K,) mean Brier score over the span of `times`, by trapezes; NaN if it is undefined at one of them.

    Raises:
        ValueError: There are fewer than two times, or they don't rise.
    """
    _rising(times)
    if len(times) < 2:
        raise ValueError("an integral needs at least two times")
    values = brier_at(time, event, survival, weights, censoring, times)
    return np.asarray(trapezoid(values, times, axis=1) / (times[-1] - times[0]))


def why_undefined(time: Floats, event: Bools, censoring: Censoring, times: Floats) -> str:
    """Why a dynamic AUC or a Brier score of these patients is NaN at one of the times, in words; empty when none is."""
    if not event.any():
        return "all patients are censored"
    if (times > censoring.reach).any():
        return f"a time lies after {censoring.reach:g}, the last time of the training patients"
    if (times < time[np.asarray(event, bool)].min()).any():
        return "no event was seen by one of the times"
    if (times >= time.max()).any():
        return "nobody is event-free after one of the times"
    return ""


def _columns(values: Floats, times: Floats, name: str) -> Floats:
    if times.ndim != 1:
        raise ValueError("`times` must be one row")
    wide = values[:, None] if values.ndim == 1 and name == "risk" else values
    if wide.ndim != 2 or wide.shape[1] not in {len(times), 1 if name == "risk" else len(times)}:
        raise ValueError(f"`{name}` must have one column for each of {len(times)} times, not {values.shape}")
    return np.broadcast_to(wide, (len(values), len(times)))


def _rising(times: Floats) -> None:
    if len(times) == 0 or (np.diff(times) <= 0).any():
        raise ValueError("`times` must rise")
