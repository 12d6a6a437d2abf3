"""Metrics of classification: plain arrays in, numbers out, NaN where a number has no meaning.

Every function takes weights, so that a bootstrap draw is a vector of counts and thousands of draws are one matrix
product: a patient drawn twice weighs 2. Shapes: `targets` (P,), `probabilities` (P, C), `weights` (K, P) -> (K,).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pathpipe.evaluation.arrays import Bools, Floats, Ints, ratio, tie_groups

Binary = Callable[[Bools, Floats, Floats], Floats]


def auroc(targets: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve; ties count half. Binary: of class 1. More classes: mean of one against the rest.

    Reference: Hanley & McNeil (1982), Radiology 143, 29-36 (the Mann-Whitney form).
    """
    return _mean_over_classes(_auroc_binary, targets, probabilities, weights)


def auprc(targets: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Average precision, sum of (recall step x precision), ties taken together. More classes: mean one against rest."""
    return _mean_over_classes(_average_precision, targets, probabilities, weights)


def _mean_over_classes(one: Binary, targets: Ints, probabilities: Floats, weights: Floats) -> Floats:
    classes = probabilities.shape[1]
    columns = [1] if classes == 2 else range(classes)
    values = [one(targets == column, probabilities[:, column], weights) for column in columns]
    return np.asarray(np.mean(values, axis=0))


def _auroc_binary(positive: Bools, score: Floats, weights: Floats) -> Floats:
    return mann_whitney(weights * positive, weights * ~positive, score)


def mann_whitney(cases: Floats, controls: Floats, score: Floats) -> Floats:
    """Weighted share of pairs of a case and a control in which the case scores higher; ties count half.

    Args:
        cases: (K, P) weight of each patient as a case; 0 for who is none.
        controls: (K, P) weight as a control.
        score: (P,).

    Returns:
        (K,); NaN where there is no pair, and where a score is NaN.
    """
    if np.isnan(score).any():
        return np.full(len(cases), np.nan)
    order = np.argsort(score, kind="stable")
    starts, _ = tie_groups(score[order])
    pos = np.add.reduceat(cases[:, order], starts, axis=1)  # (K, G), one column per distinct score
    neg = np.add.reduceat(controls[:, order], starts, axis=1)
    below = np.cumsum(neg, axis=1) - neg
    return ratio((pos * (below + neg / 2)).sum(axis=1), cases.sum(axis=1) * controls.sum(axis=1))


def _average_precision(positive: Bools, score: Floats, weights: Floats) -> Floats:
    if np.isnan(score).any():
        return np.full(len(weights), np.nan)
    order = np.argsort(-score, kind="stable")
    positive, weights = positive[order], weights[:, order]
    starts, _ = tie_groups(score[order])
    hits = np.add.reduceat(weights * positive, starts, axis=1)
    taken = np.cumsum(np.add.reduceat(weights, starts, axis=1), axis=1)
    found = np.cumsum(hits, axis=1)
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    return ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def accuracy(targets: Ints, predicted: Ints, weights: Floats) -> Floats:
    """Share of right predictions. `predicted` is (P,)."""
    return ratio(weights @ (predicted == targets), weights.sum(axis=1))


def recalls(targets: Ints, predicted: Ints, weights: Floats, classes: int) -> Floats:
    """(K, C) share of each class that is found; NaN for a class that is absent."""
    columns = [
        ratio(weights @ ((targets == c) & (predicted == c)), weights @ (targets == c).astype(float))
        for c in range(classes)
    ]
    return np.stack(columns, axis=1)


def balanced_accuracy(targets: Ints, predicted: Ints, weights: Floats, classes: int) -> Floats:
    """Mean recall over classes; NaN when one is absent."""
    return np.asarray(recalls(targets, predicted, weights, classes).mean(axis=1))


def f1_macro(targets: Ints, predicted: Ints, weights: Floats, classes: int) -> Floats:
    """Mean over classes of `f1_of`; a class neither true nor predicted makes it NaN."""
    return np.asarray(np.mean([f1_of(targets, predicted, weights, c) for c in range(classes)], axis=0))


def f1_of(targets: Ints, predicted: Ints, weights: Floats, index: int) -> Floats:
    """2 TP / (2 TP + FP + FN) of one class; NaN when it is neither true nor predicted."""
    hit = weights @ ((targets == index) & (predicted == index))
    total = weights @ (targets == index).astype(float) + weights @ (predicted == index).astype(float)
    return ratio(2 * hit, total)


def brier(targets: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Mean squared error of the probabilities. Binary: of class 1 (0 to 1). More classes: summed (0 to 2).

    Reference: Brier (1950), Monthly Weather Review 78, 1-3.
    """
    truth = np.eye(probabilities.shape[1])[targets]
    errors = np.square(probabilities - truth).sum(axis=1)
    errors = errors / 2 if probabilities.shape[1] == 2 else errors
    return ratio(weights @ errors, weights.sum(axis=1))


def log_loss(targets: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Mean negative log-likelihood, nats; probabilities are kept 1e-15 away from 0."""
    likely = np.clip(probabilities[np.arange(len(targets)), targets], 1e-15, 1)
    return ratio(weights @ -np.log(likely), weights.sum(axis=1))


def confusion(targets: Ints, predicted: Ints, classes: int) -> Ints:
    """(C, C) counts: rows are truth, columns are predictions."""
    return np.bincount(targets * classes + predicted, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def youden_threshold(targets: Ints, score: Floats) -> float | None:
    """The threshold on the probability of class 1 with the largest sensitivity + specificity - 1.

    Midway between two neighbouring scores; of several, the one nearest to 0.5. None when a class is absent.

    Reference: Youden (1950), Cancer 3, 32-35.
    """
    if len(np.unique(targets)) < 2:
        return None
    distinct = np.unique(score)
    cuts = np.r_[distinct[0] / 2, (distinct[1:] + distinct[:-1]) / 2]
    positive = targets == 1
    above = score[:, None] > cuts[None]  # (P, T)
    gain = above[positive].mean(axis=0) - above[~positive].mean(axis=0)
    best = np.flatnonzero(gain >= gain.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])
