"""Corrections of overconfident probabilities, fitted on validation patients and applied to others.

A temperature changes neither which of two patients scores higher nor the predicted class. Platt's line changes the
class, and where validation says that the scores are the wrong way round, also the order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, softmax

from pathpipe.evaluation.arrays import Floats, Ints, binary, same_length

_NAN = float("nan")


@dataclass(frozen=True)
class Temperature:
    """One number that all logits are divided by.

    Attributes:
        value: 1 changes nothing, more than 1 makes probabilities less extreme; NaN when there is no likeliest one.
        note: Why there is none.

    Reference: Guo et al. (2017), ICML, section 4.2.
    """

    value: float
    note: str | None = None

    @classmethod
    def fit(cls, targets: Ints, logits: Floats) -> Temperature:
        """The temperature of the largest likelihood of validation patients.

        Args:
            targets: (P,) classes.
            logits: (P, C).
        """
        _checked(targets, logits)
        if len(np.unique(targets)) < 2:
            return cls(_NAN, "the validation patients are of one class")
        centred = logits - logits.mean(axis=1, keepdims=True)
        scale = float(np.abs(centred).max())
        if scale <= 1e-12:
            return cls(_NAN, "the logits of all classes are equal: no temperature changes them")
        centred = centred / scale
        true = centred[np.arange(len(targets)), targets]
        if (true >= centred.max(axis=1)).all():
            return cls(_NAN, "every validation patient is classified right: the colder the likelier")
        if true.mean() <= 0:
            return cls(_NAN, "the logits say nothing about the class: the hotter the likelier")

        def slope(coldness: float) -> float:
            """Of the negative log-likelihood, which is convex in 1 / temperature."""
            return float(((softmax(coldness * centred, axis=1) * centred).sum(axis=1) - true).mean())

        above = 1.0
        while slope(above) < 0:
            above *= 2
        return cls(scale / float(brentq(slope, 0.0, above, xtol=1e-14, rtol=1e-12)))

    def apply(self, logits: Floats) -> Floats:
        """(P, C) probabilities; those of the plain logits when there is no fit."""
        return np.asarray(softmax(logits / (self.value if np.isfinite(self.value) else 1.0), axis=1))


@dataclass(frozen=True)
class Platt:
    """A line through the log-odds of class 1 against class 0.

    Attributes:
        slope: Factor of the difference of logits; NaN when it couldn't be fitted.
        intercept: What is added.
        note: Why it couldn't.

    Reference: Platt (1999), Advances in Large Margin Classifiers; Lin, Lin & Weng (2007), Machine Learning 68.
    """

    slope: float
    intercept: float
    note: str | None = None

    @classmethod
    def fit(cls, targets: Ints, logits: Floats) -> Platt:
        """Fit on validation patients, with Platt's softened targets, which keep the slope finite.

        Args:
            targets: (P,) 0 or 1.
            logits: (P, 2).

        Raises:
            ValueError: There are not two classes; for more, take a temperature.
        """
        _checked(targets, logits)
        if logits.shape[1] != 2:
            raise ValueError(f"Platt scaling is for two classes, not {logits.shape[1]}: take a temperature")
        positive, odds = binary(targets), logits[:, 1] - logits[:, 0]
        many, few = int(positive.sum()), int((~positive).sum())
        if not many or not few:
            return cls(_NAN, _NAN, "the validation patients are of one class")
        centre, spread = float(odds.mean()), float(odds.std())
        if spread <= 1e-12:
            return cls(_NAN, _NAN, "the logits of all validation patients are equal")
        soft = np.where(positive, (many + 1) / (many + 2), 1 / (few + 2))
        x = (odds - centre) / spread

        def loss(line: Floats) -> tuple[float, Floats]:
            score = line[0] + line[1] * x
            off = expit(score) - soft
            return float((np.logaddexp(0, score) - soft * score).sum()), np.array([off.sum(), (off * x).sum()])

        start = np.array([np.log((many + 1) / (few + 1)), 0.0])
        line = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x
        slope = float(line[1] / spread)
        return cls(slope, float(line[0] - slope * centre))

    def apply(self, logits: Floats) -> Floats:
        """(P, 2) probabilities; those of the plain logits when there is no fit."""
        odds = logits[:, 1] - logits[:, 0]
        fitted = np.isfinite(self.slope)
        one = expit(self.slope * odds + self.intercept if fitted else odds)
        return np.stack([1 - one, one], axis=1)


def _checked(targets: Ints, logits: Floats) -> None:
    same_length(targets=targets, logits=logits)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be (patients, classes), not {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    if len(targets) and not (targets.min() >= 0 and targets.max() < logits.shape[1]):
        raise ValueError(f"targets must be classes 0 to {logits.shape[1] - 1}")
