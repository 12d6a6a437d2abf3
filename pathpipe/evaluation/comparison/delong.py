"""DeLong's test: areas under ROC curves of several models on the same patients, with their covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, ndtr, ndtri

from pathpipe.evaluation.arrays import Floats, Ints, binary, mid_ranks, same_length

_NAN = float("nan")


@dataclass(frozen=True)
class Difference:
    """One area less another.

    Attributes:
        value: Difference of the areas.
        error: Its standard error.
        low: Lower bound by the normal approximation.
        high: Upper bound.
        z: `value` / `error`.
        p: Two-sided.
        note: Why there is no test.
    """

    value: float
    error: float
    low: float
    high: float
    z: float
    p: float
    note: str | None = None


@dataclass(frozen=True)
class DeLong:
    """Areas and how they vary together.

    Attributes:
        areas: (M,) areas under the curves; NaN when a class is absent.
        covariance: (M, M); NaN when a class has fewer than two patients.
        note: Why it is NaN.

    Reference: DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44, 837-845; Sun & Xu (2014), IEEE Signal Processing
    Letters 21, 1389-1393, for the way by ranks.
    """

    areas: Floats
    covariance: Floats
    note: str | None = None

    @classmethod
    def of(cls, targets: Ints, scores: Floats) -> DeLong:
        """Areas and covariance in P log P steps.

        Args:
            targets: (P,) 0 or 1.
            scores: (M, P), one row a model.

        Raises:
            ValueError: Shapes differ.
        """
        if scores.ndim != 2:
            raise ValueError(f"scores must be (models, patients), not {scores.shape}")
        same_length(targets=targets, scores=scores.T)
        positive = binary(targets)
        cases, controls, models = int(positive.sum()), int((~positive).sum()), len(scores)
        if not cases or not controls:
            return cls(np.full(models, _NAN), np.full((models, models), _NAN), "a class is absent")
        of_case, of_control = np.empty((models, cases)), np.empty((models, controls))
        for model, score in enumerate(scores):
            rank = mid_ranks(score)
            of_case[model] = (rank[positive] - mid_ranks(score[positive])) / controls  # controls that score lower
            of_control[model] = 1 - (rank[~positive] - mid_ranks(score[~positive])) / cases
        areas = of_case.mean(axis=1)
        if min(cases, controls) < 2:
            return cls(areas, np.full((models, models), _NAN), "a class has a single patient: no variance")
        spread = np.atleast_2d(np.cov(of_case)) / cases + np.atleast_2d(np.cov(of_control)) / controls
        return cls(areas, spread)

    def difference(self, first: int, second: int, confidence: float = 0.95) -> Difference:
        """Area of model `first` less that of `second`, with its interval and test."""
        value = float(self.areas[first] - self.areas[second])
        if self.note or np.isnan(value):
            return Difference(value, _NAN, _NAN, _NAN, _NAN, _NAN, self.note or "a score is no number")
        c = self.covariance
        variance = float(c[first, first] + c[second, second] - 2 * c[first, second])
        if variance <= 1e-14:
            why = "the difference has no variance: the models order the patients alike, or both without doubt"
            return Difference(value, 0.0, value, value, _NAN, _NAN, why)
        error = float(np.sqrt(variance))
        margin, z = float(ndtri((1 + confidence) / 2)) * error, value / error
        return Difference(value, error, value - margin, value + margin, z, float(2 * ndtr(-abs(z))))

    def all_equal(self) -> tuple[float, int, float]:
        """Chi-squared, degrees of freedom and p of the hypothesis that all areas are equal; NaN without variance."""
        models = len(self.areas)
        if self.note or models < 2 or np.isnan(self.areas).any():
            return _NAN, 0, _NAN
        contrasts = np.eye(models)[:-1] - np.eye(models)[1:]
        apart, spread = contrasts @ self.areas, contrasts @ self.covariance @ contrasts.T
        freedom = int(np.linalg.matrix_rank(spread, tol=1e-14, hermitian=True))
        if not freedom:
            return _NAN, 0, _NAN
        chi2 = float(apart @ np.linalg.pinv(spread, rcond=1e-12, hermitian=True) @ apart)
        return chi2, freedom, float(chdtrc(freedom, chi2))
