"""Which numbers a model of time is measured by, each with the reason it may be undefined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pathpipe.evaluation.arrays import Bools, Floats, Ints, same_length
from pathpipe.evaluation.measures import Measure
from pathpipe.evaluation.survival import concordance, dynamic
from pathpipe.evaluation.survival.censoring import Censoring

_IN_DRAWS = "no two patients can be compared"


@dataclass(frozen=True, eq=False)
class Horizon:
    """What measures of survival ask of censoring and time.

    Attributes:
        censoring: Of the training patients.
        tau: Uno's C counts events before it.
        times: (T,) rising, at which the AUC is taken.
    """

    censoring: Censoring
    tau: float
    times: Floats

    @classmethod
    def of(cls, time: Floats, event: Bools, times: list[float]) -> Horizon:
        """Of training patients (P,).

        Args:
            times: At which the AUC is taken; empty for the quartiles of the patients' events, to four digits.
        """
        censoring = Censoring.of(time, event)
        if not times and event.any():
            times = sorted({float(f"{moment:.4g}") for moment in np.quantile(time[event], [0.25, 0.5, 0.75])})
        return cls(censoring, censoring.reach, np.array(times, np.float64))


@dataclass(frozen=True, eq=False)
class Timed:
    """Patients with the truth and what a model says.

    Attributes:
        time: (P,).
        event: (P,) true where the event was seen.
        risk: (P,) higher means an earlier event.
        folds: (P,) whose model gave the risk: risks of different models needn't be on one scale.
        times: (S,) rising, at which survival is predicted; none where it isn't.
        survival: (P, S) predicted probability of no event up to and with each time.
    """

    time: Floats
    event: Bools
    risk: Floats
    folds: Ints
    times: Floats
    survival: Floats

    def survival_at(self, wanted: Floats) -> Floats:
        """(P, T) predicted survival on the straight line between the predicted times, from 1 at 0; flat after."""
        grid = np.r_[0.0, self.times]
        known = np.c_[np.ones(len(self.time)), self.survival]
        return np.stack([np.interp(wanted, grid, row) for row in known]) if len(known) else np.zeros((0, len(wanted)))


def survival(timed: Timed, horizon: Horizon | None) -> dict[str, Measure]:
    """Measures of a time that may be censored.

    The AUC at a time orders patients by the survival predicted there, which is a probability whatever the fold; by the
    risk where no survival is predicted.

    Args:
        horizon: Without it, i.e. without training patients, there is Harrell's C alone.
    """
    time, event, risk, folds = timed.time, timed.event, timed.risk, timed.folds
    same_length(time=time, event=event, risk=risk, folds=folds, survival=timed.survival)
    pairs = concordance.why_undefined(time, event) or _IN_DRAWS
    harrell = partial(concordance.harrell, time, event, risk)
    named = {"C-index (Harrell, within folds)": Measure(partial(harrell, strata=folds), pairs)}
    if horizon is None:
        return named | {"C-index (Harrell, pooled)": Measure(harrell, pairs)}
    among, tau = horizon.censoring, horizon.tau
    weighted = concordance.why_undefined(time, event, among, tau) or _IN_DRAWS
    uno = partial(concordance.uno, time, event, risk, censoring=among, tau=tau)
    named |= {
        "C-index (Uno, within folds)": Measure(partial(uno, strata=folds), weighted),
        "C-index (Harrell, pooled)": Measure(harrell, pairs),
        "C-index (Uno, pooled)": Measure(uno, weighted),
    }
    return named | _areas(timed, horizon) | _brier(timed, horizon)


def _areas(timed: Timed, horizon: Horizon) -> dict[str, Measure]:
    time, event, among, times = timed.time, timed.event, horizon.censoring, horizon.times
    if not len(times):
        return {}
    by_time = 1 - timed.survival_at(times) if len(timed.times) else np.repeat(timed.risk[:, None], len(times), axis=1)
    named = {}
    for at, moment in enumerate(times):
        one = slice(at, at + 1)
        named[f"AUC at {moment:g}"] = Measure(
            partial(dynamic.mean_dynamic_auc, time, event, by_time[:, one], censoring=among, times=times[one]),
            _why(timed, among, times[one]),
        )
    whole = partial(dynamic.mean_dynamic_auc, time, event, by_time, censoring=among, times=times)
    return {"mean dynamic AUC": Measure(whole, _why(timed, among, times)), **named}


def _brier(timed: Timed, horizon: Horizon) -> dict[str, Measure]:
    if len(timed.times) < 2:
        return {}
    whole = partial(
        dynamic.integrated_brier,
        timed.time,
        timed.event,
        timed.survival,
        censoring=horizon.censoring,
        times=timed.times,
    )
    return {"integrated Brier score": Measure(whole, _why(timed, horizon.censoring, timed.times), False)}


def _why(timed: Timed, among: Censoring, times: Floats) -> str:
    if not len(timed.time):
        return "there is no patient"
    return dynamic.why_undefined(timed.time, timed.event, among, times) or _IN_DRAWS
