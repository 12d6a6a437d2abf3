"""Metrics of measured and of ordered targets, in the weights style: (K, P) -> (K,), NaN where there is no meaning."""

from __future__ import annotations

import numpy as np

from pathpipe.evaluation.arrays import Floats, Ints, ranks, ratio, same_length, same_weights

_CONSTANT = 1e-28  # a variance of standardised values below this is rounding: every drawn patient has one value


def mean_absolute_error(targets: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean of |prediction - truth|, in the target's unit."""
    return _mean(np.abs(_errors(targets, predicted)), weights)


def root_mean_squared_error(targets: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Root of the mean squared error, in the target's unit."""
    return np.sqrt(_mean(np.square(_errors(targets, predicted)), weights))


def mean_error(targets: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean of prediction - truth: how much too high on average, in the target's unit."""
    return _mean(_errors(targets, predicted), weights)


def r_squared(targets: Floats, predicted: Floats, weights: Floats) -> Floats:
    """1 - squared errors / squared distances of the truth from its own mean; NaN where the truth is constant.

    Below 0 when the mean of these patients would have been the better prediction.
    """
    errors = np.square(_errors(targets, predicted))
    weights = same_weights(weights, len(targets))
    scale = _scale(targets)
    spread = _sum_of_squares(_centred(np.broadcast_to(targets / scale, weights.shape), weights), weights)
    return 1 - ratio(weights @ (errors / scale**2), spread)


def pearson(targets: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Pearson's correlation; NaN where the truth or the prediction is constant."""
    weights = same_weights(weights, same_length(targets=targets, predicted=predicted))
    x = np.broadcast_to(targets / _scale(targets), weights.shape)
    y = np.broadcast_to(predicted / _scale(predicted), weights.shape)
    return _correlation(x, y, weights)


def spearman(targets: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Spearman's rank correlation, ties by mid-ranks, ranked anew in each draw; NaN where either side is constant.

    Reference: Spearman (1904), American Journal of Psychology 15, 72-101; Kendall & Gibbons (1990), ch. 3, on ties.
    """
    patients = same_length(targets=targets, predicted=predicted)
    weights = same_weights(weights, patients)
    return _correlation(ranks(targets, weights) / patients, ranks(predicted, weights) / patients, weights)


def calibration_slope(targets: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Slope of the least-squares line of the truth over the prediction; 1 is right, below 1 predictions spread too far.

    NaN where the prediction is constant.
    """
    return _line(targets, predicted, weights)[0]


def calibration_intercept(targets: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Where that line meets a prediction of 0, in the target's unit; 0 is right."""
    return _line(targets, predicted, weights)[1]


def _line(targets: Floats, predicted: Floats, weights: Floats) -> tuple[Floats, Floats]:
    weights = same_weights(weights, same_length(targets=targets, predicted=predicted))
    scale = _scale(predicted)
    x = _centred(np.broadcast_to(predicted / scale, weights.shape), weights)
    slope = ratio((weights * x) @ targets, _sum_of_squares(x, weights)) / scale
    return slope, _mean(targets, weights) - slope * _mean(predicted, weights)


def quadratic_kappa(targets: Ints, predicted: Ints, weights: Floats, classes: int) -> Floats:
    """Cohen's kappa with squared distances between ordered classes; NaN where chance alone disagrees on nothing.

    Reference: Cohen (1968), Psychological Bulletin 70, 213-220.
    """
    return _weighted_kappa(targets, predicted, weights, classes, power=2)


def linear_kappa(targets: Ints, predicted: Ints, weights: Floats, classes: int) -> Floats:
    """Cohen's kappa with absolute distances between ordered classes; NaN where chance alone disagrees on nothing.

    Reference: Cicchetti & Allison (1971), American Journal of EEG Technology 11, 101-109.
    """
    return _weighted_kappa(targets, predicted, weights, classes, power=1)


def _weighted_kappa(targets: Ints, predicted: Ints, weights: Floats, classes: int, power: int) -> Floats:
    weights = same_weights(weights, same_length(targets=targets, predicted=predicted))
    for name, values in (("targets", targets), ("predicted", predicted)):
        if len(values) and not (values.min() >= 0 and values.max() < classes):
            raise ValueError(f"`{name}` must be classes 0 to {classes - 1}")
    steps = np.arange(classes)
    cost = np.abs(steps[:, None] - steps[None]).astype(np.float64) ** power
    seen = weights @ cost[targets, predicted]
    true, said = weights @ np.eye(classes)[targets], weights @ np.eye(classes)[predicted]  # (K, C)
    by_chance = ratio(((true @ cost) * said).sum(axis=1), weights.sum(axis=1))
    return 1 - ratio(seen, by_chance)


def _errors(targets: Floats, predicted: Floats) -> Floats:
    same_length(targets=targets, predicted=predicted)
    return np.asarray(predicted, np.float64) - targets


def _mean(values: Floats, weights: Floats) -> Floats:
    weights = same_weights(weights, len(values))
    return ratio(weights @ values, weights.sum(axis=1))


def _scale(values: Floats) -> float:
    """A size of the values, so that "constant" means the same in um and in km."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest or 1.0


def _centred(values: Floats, weights: Floats) -> Floats:
    return values - ratio((weights * values).sum(axis=1), weights.sum(axis=1))[:, None]


def _sum_of_squares(centred: Floats, weights: Floats) -> Floats:
    squares = (weights * np.square(centred)).sum(axis=1)
    squares[squares <= _CONSTANT * weights.sum(axis=1)] = 0.0
    return np.asarray(squares)


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    x, y = _centred(x, weights), _centred(y, weights)
    across = (weights * x * y).sum(axis=1)
    return ratio(across, np.sqrt(_sum_of_squares(x, weights) * _sum_of_squares(y, weights)))
