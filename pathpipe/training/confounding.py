"""Confounding: how much a column such as `site` shows in the features, and how much it goes with the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_FOLDS = 5
_MOST = 2000  # patients that are enough to tell
_COMPONENTS = 256
_PENALTY = 0.1  # inverse strength: many features, few patients
_DRAWS = 1999


@dataclass(frozen=True)
class Recognised:
    """How well a column is told from mean features.

    Attributes:
        accuracy: Balanced accuracy, cross-validated over patients.
        low: Lower bound of its 95% interval.
        high: Upper bound.
        chance: 1 / number of values.
        values: Values with enough patients.
        patients: Patients looked at.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    values: int
    patients: int


@dataclass(frozen=True)
class Association:
    """How much two columns have to do with each other.

    Attributes:
        measure: `Cramer's V` (0 to 1, corrected for bias) of classes, or `eta^2` (share of variance).
        value: Its value.
        p: Of a permutation test.
        patients: Patients with both.
    """

    measure: str
    value: float
    p: float
    patients: int


def recognised(means: Floats, column: Sequence[str], seed: int) -> Recognised | None:
    """How well logistic regression tells a column's values from mean features of patients it hasn't seen.

    Values with fewer than five patients are left out, and of more than 2000 patients some are drawn. Features are
    standardised and reduced to at most 256 principal components within the training folds. The interval is of the mean
    of the values' recalls, each with Jeffreys' posterior.

    Args:
        means: (P, D) mean features of patients.
        column: (P,) values, "" where unknown.

    Returns:
        None when fewer than two values have enough patients.

    Reference: Howard et al. (2021), Nature Communications 12, 4423; Brown, Cai & DasGupta (2001), Statistical Science
    16, 101-133 (Jeffreys interval).
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng([seed, 1])
    names, codes = np.unique(np.array(column, str), return_inverse=True)
    enough = (np.bincount(codes) >= _FOLDS) & (names != "")
    rows = np.flatnonzero(enough[codes])
    if enough.sum() < 2:
        return None
    rows = _thinned(rows, codes, rng)
    _, truth = np.unique(codes[rows], return_inverse=True)
    data = means[rows].astype(np.float64)
    guessed = np.zeros(len(rows), np.int64)
    parts = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(data, truth)
    for train, test in parts:
        components = min(_COMPONENTS, len(train) - 1, data.shape[1])
        model = make_pipeline(
            StandardScaler(),
            PCA(components, random_state=seed),
            LogisticRegression(C=_PENALTY, max_iter=2000, class_weight="balanced"),
        )
        guessed[test] = model.fit(data[train], truth[train]).predict(data[test])
    size = np.bincount(truth)
    right = np.bincount(truth[guessed == truth], minlength=len(size))
    draws = rng.beta(right + 0.5, size - right + 0.5, size=(_DRAWS, len(size))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    accuracy = float((right / size).mean())
    return Recognised(accuracy, float(low), float(high), 1 / len(size), len(size), len(rows))


def _thinned(rows: Ints, codes: Ints, rng: np.random.Generator) -> Ints:
    """At most 2000 patients, no value below five."""
    if len(rows) <= _MOST:
        return rows
    kept = []
    for code in np.unique(codes[rows]):
        members = rows[codes[rows] == code]
        kept.append(rng.permutation(members)[: max(_FOLDS, len(members) * _MOST // len(rows))])
    return np.sort(np.concatenate(kept))


def class_association(first: Sequence[str], second: Sequence[str], seed: int) -> Association | None:
    """Cramer's V of two columns of classes, tested by permuting one of them.

    Args:
        first: (P,) classes, "" where unknown.
        second: (P,) classes, "" where unknown.

    Returns:
        None when one of them has a single value.

    Reference: Bergsma (2013), A bias-correction for Cramer's V and Tschuprow's T, Journal of the Korean Statistical
    Society 42, 323-328.
    """
    known = [(one, two) for one, two in zip(first, second, strict=True) if one and two]
    _, left = np.unique([one for one, _ in known], return_inverse=True)
    _, right = np.unique([two for _, two in known], return_inverse=True)
    if not known or not left.max() or not right.max():
        return None
    rows, columns, count = int(left.max()) + 1, int(right.max()) + 1, len(known)
    expected = np.outer(np.bincount(left), np.bincount(right)).ravel() / count

    def statistic(shuffled: Ints) -> float:
        found = np.bincount(left * columns + shuffled, minlength=rows * columns)
        return float(((found - expected) ** 2 / expected).sum())

    chi2 = statistic(right)
    excess = max(0.0, chi2 / count - (rows - 1) * (columns - 1) / (count - 1))
    shrunk = min(rows - (rows - 1) ** 2 / (count - 1), columns - (columns - 1) ** 2 / (count - 1)) - 1
    value = float(np.sqrt(excess / shrunk)) if shrunk > 0 else 0.0
    rng = np.random.default_rng([seed, 2])
    above = sum(statistic(rng.permutation(right)) >= chi2 - 1e-9 for _ in range(_DRAWS))
    return Association("Cramer's V", value, (1 + above) / (1 + _DRAWS), count)


def mean_association(scores: Floats, column: Sequence[str], seed: int) -> Association | None:
    """Share of the variance of a number that lies between the values of a column, tested by permutation.

    Of martingale residuals (`martingale_residuals`) it says how much survival differs between them: their sums are
    what the log-rank test is made of.

    Args:
        scores: (P,) numbers, NaN where unknown.
        column: (P,) values, "" where unknown.

    Returns:
        None when the column has one value, or all numbers are equal.
    """
    known = np.isfinite(scores) & (np.array(column, str) != "")
    numbers = scores[known] - scores[known].mean() if known.any() else scores[known]
    _, codes = np.unique(np.array(column, str)[known], return_inverse=True)
    total = float((numbers**2).sum())
    if not known.any() or not codes.max() or total <= 0:
        return None
    sizes = np.bincount(codes)

    def between(values: Floats) -> float:
        return float((np.bincount(codes, values) ** 2 / sizes).sum())

    found = between(numbers)
    rng = np.random.default_rng([seed, 3])
    above = sum(between(rng.permutation(numbers)) >= found - 1e-12 * total for _ in range(_DRAWS))
    return Association("eta^2", found / total, (1 + above) / (1 + _DRAWS), int(known.sum()))


def martingale_residuals(times: Floats, events: npt.NDArray[np.bool_]) -> Floats:
    """Events seen minus events expected by the cohort's own hazard (Nelson-Aalen), of each patient.

    Args:
        times: (P,).
        events: (P,) whether the event was seen.

    Reference: Therneau, Grambsch & Fleming (1990), Martingale-based residuals for survival models, Biometrika 77.
    """
    when, at = np.unique(times, return_inverse=True)
    deaths = np.bincount(at, events, minlength=len(when))
    at_risk = len(times) - np.concatenate([[0], np.cumsum(np.bincount(at))[:-1]])
    return events.astype(np.float64) - np.cumsum(deaths / at_risk)[at]
