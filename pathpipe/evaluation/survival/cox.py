"""Cox's proportional hazards: by how much the rate of events changes with a covariate, or between two groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, ndtr, ndtri

from pathpipe.evaluation.arrays import Bools, Floats, binary, same_length
from pathpipe.evaluation.survival.kaplan_meier import checked_times

_STEPS = 50
_CONVERGED = 1e-10  # change of the log-likelihood, relative
_FLAT = 1e-7  # slope of the log-likelihood at its top, by standardised covariate
_RUNAWAY = 30.0  # standard error of a standardised coefficient: the likelihood rises for ever
_NAN = float("nan")


@dataclass(frozen=True)
class HazardRatio:
    """One covariate of a Cox model.

    Attributes:
        coefficient: Log of the hazard ratio of one unit more.
        error: Its standard error.
        ratio: Hazard ratio of one unit more.
        low: Lower bound of the Wald interval of the ratio.
        high: Upper bound.
        p: Wald, two-sided.
    """

    coefficient: float
    error: float
    ratio: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Cox:
    """A fitted model.

    Attributes:
        covariates: One for each column, in order; all NaN when there is no fit.
        log_likelihood: Partial, at the fit.
        null_log_likelihood: With all coefficients 0.
        p: Of the likelihood ratio test of all coefficients together.
        note: Why there is no fit.
    """

    covariates: tuple[HazardRatio, ...]
    log_likelihood: float
    null_log_likelihood: float
    p: float
    note: str | None = None


def cox(
    time: Floats, event: Bools, covariates: Floats, strata: np.ndarray | None = None, confidence: float = 0.95
) -> Cox:
    """Fit by Newton's method; tied events by Efron's approximation.

    Args:
        time: (P,).
        event: (P,) true where the event was seen.
        covariates: (P,) or (P, D); two groups are one column of 0 and 1, whose ratio is of 1 against 0.
        strata: (P,) labels: each stratum has its own baseline.

    Reference: Cox (1972), JRSS B 34, 187-220; Efron (1977), JASA 72, 557-565.
    """
    checked_times(time)
    columns = np.asarray(covariates[:, None] if covariates.ndim == 1 else covariates, np.float64)
    within = np.zeros(len(time), np.int64) if strata is None else strata
    same_length(time=time, event=event, covariates=columns, strata=within)
    seen = binary(np.asarray(event), "event")
    reason = _why_not(seen, columns)
    if reason:
        return _no_fit(columns.shape[1], reason)
    centre, scale = columns.mean(axis=0), columns.std(axis=0)
    standard = (columns - centre) / scale
    parts = [_Stratum.of(time[within == s], seen[within == s], standard[within == s]) for s in np.unique(within)]
    found = _newton([part for part in parts if part is not None], columns.shape[1])
    if isinstance(found, str):
        return _no_fit(columns.shape[1], found)
    beta, covariance, at_fit, at_null = found
    ratios = _wald(beta / scale, np.sqrt(np.diag(covariance)) / scale, confidence)
    p = float(chdtrc(columns.shape[1], 2 * (at_fit - at_null)))
    return Cox(ratios, at_fit, at_null, p)


def _why_not(seen: Bools, columns: Floats) -> str:
    if not seen.any():
        return "all patients are censored"
    if not np.isfinite(columns).all():
        return "a covariate is missing"
    if (np.ptp(columns, axis=0) <= 1e-12 * np.abs(columns).max(axis=0)).any():
        return "a covariate has one value for all patients"
    return ""


def _no_fit(columns: int, reason: str) -> Cox:
    nothing = HazardRatio(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN)
    return Cox((nothing,) * columns, _NAN, _NAN, _NAN, reason)


def _wald(beta: Floats, error: Floats, confidence: float) -> tuple[HazardRatio, ...]:
    z = float(ndtri((1 + confidence) / 2))
    with np.errstate(over="ignore"):  # one unit more may be a world: the ratio is then inf
        ratio, low, high = (np.exp(beta + shift * error) for shift in (0, -z, z))
    p = 2 * ndtr(-np.abs(beta / error))
    return tuple(HazardRatio(*map(float, row)) for row in zip(beta, error, ratio, low, high, p, strict=True))


@dataclass(frozen=True)
class _Stratum:
    """Patients by falling time, so that a risk set is a prefix; and one row for each event.

    `last` (E,) is the last patient of the risk set, `tied` the place of the event's time among times of events, and
    `fraction` how much of the tied events has already left, by Efron.
    """

    x: Floats
    seen: Bools
    group: np.ndarray
    last: np.ndarray
    tied: np.ndarray
    fraction: Floats

    @classmethod
    def of(cls, time: Floats, seen: Bools, x: Floats) -> _Stratum | None:
        if not seen.any():
            return None
        order = np.argsort(-time, kind="stable")
        time, seen, x = time[order], seen[order], x[order]
        moments, group = np.unique(time[seen], return_inverse=True)
        many = np.bincount(group)
        tied = np.repeat(np.arange(len(moments)), many)
        nth = np.arange(len(tied)) - np.repeat(np.cumsum(many) - many, many)
        last = np.searchsorted(-time, -moments, side="right") - 1
        return cls(x, seen, group, last[tied], tied, nth / many[tied])

    def evaluate(self, beta: Floats) -> tuple[float, Floats, Floats]:
        """Log partial likelihood, gradient (D,) and information (D, D)."""
        score = self.x @ beta
        top = score.max()
        hazard = np.exp(score - top)  # of each patient; the factor cancels but for its logarithm
        first = hazard[:, None] * self.x
        second = first[:, :, None] * self.x[:, None]
        sums = [self._at_risk(values) for values in (hazard, first, second)]
        s0, s1, s2 = sums
        mean = s1 / s0[:, None]
        log_likelihood = float(score[self.seen].sum() - np.log(s0).sum() - top * len(s0))
        gradient = self.x[self.seen].sum(axis=0) - mean.sum(axis=0)
        information = (s2 / s0[:, None, None]).sum(axis=0) - mean.T @ mean
        return log_likelihood, gradient, information

    def _at_risk(self, values: Floats) -> Floats:
        """(E, ...) sum over the risk set of each event, less Efron's fraction of the tied events."""
        tied = np.zeros((int(self.tied[-1]) + 1, *values.shape[1:]))
        np.add.at(tied, self.group, values[self.seen])
        fraction = self.fraction.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(np.cumsum(values, axis=0)[self.last] - fraction * tied[self.tied])


def _newton(parts: list[_Stratum], columns: int) -> tuple[Floats, Floats, float, float] | str:
    """Coefficients, covariance, log-likelihood at the fit and at 0; or why there are none."""

    beta = np.zeros(columns)
    value, gradient, information = _total(parts, beta)
    null = value
    for _ in range(_STEPS):
        if np.linalg.matrix_rank(information, tol=1e-9, hermitian=True) < columns:
            break
        step = np.linalg.solve(information, gradient)
        fresh = _total(parts, beta + step)
        for _ in range(30):  # halve a step that overshoots
            if fresh[0] >= value - 1e-12 * abs(value):
                break
            step = step / 2
            fresh = _total(parts, beta + step)
        beta = beta + step
        done = abs(fresh[0] - value) <= _CONVERGED * (abs(value) + 1) and np.abs(fresh[1]).max() < _FLAT
        value, gradient, information = fresh
        if done:
            covariance: Floats = np.asarray(np.linalg.inv(information), np.float64)
            if np.diag(covariance).max() < _RUNAWAY**2:
                return beta, covariance, value, null
            break
    if not beta.any():
        return "the covariates don't differ among the patients at risk, or one follows from the others"
    return "a covariate orders the events without a mistake: the hazard ratio has no bound"


def _total(parts: list[_Stratum], beta: Floats) -> tuple[float, Floats, Floats]:
    each = [part.evaluate(beta) for part in parts]
    values, gradients, informations = zip(*each, strict=True)
    return float(np.sum(values)), np.sum(gradients, axis=0), np.sum(informations, axis=0)
