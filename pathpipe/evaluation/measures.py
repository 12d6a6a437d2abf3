"""Which numbers a model is measured by, for each kind of target, each with the reason it may be undefined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pathpipe.evaluation import calibration, metrics, regression, thresholds
from pathpipe.evaluation.arrays import Bools, Floats, Ints, same_length
from pathpipe.evaluation.bootstrap import Counts, Interval, Method, Metric, interval

BINS = 10


@dataclass(frozen=True)
class Measure:
    """A number of a model on given patients, as a function of their weights.

    Attributes:
        metric: (K, P) weights -> (K,) values.
        undefined: What to say where it is NaN.
        higher_is_better: False of errors, None where the best value lies in between.
    """

    metric: Metric
    undefined: str
    higher_is_better: bool | None = True

    def __call__(self, weights: Floats) -> Floats:
        """(K,) values."""
        return self.metric(weights)

    def interval(
        self, weights: Counts, confidence: float, method: Method = "percentile", strata: Ints | None = None
    ) -> Interval:
        """The value on the patients as they are, with its bootstrap interval; or NaN and the reason."""
        return interval(self.metric, weights, confidence, method=method, strata=strata, undefined=self.undefined)


def classification(targets: Ints, probabilities: Floats, predicted: Ints) -> dict[str, Measure]:
    """Measures of two or more classes without order.

    Args:
        targets: (P,) classes.
        probabilities: (P, C).
        predicted: (P,) classes, e.g. by a threshold chosen on validation.
    """
    same_length(targets=targets, probabilities=probabilities, predicted=predicted)
    classes = probabilities.shape[1]
    outcome, score = (targets, probabilities[:, 1]) if classes == 2 else calibration.top_label(targets, probabilities)
    absent, nobody = "a class is absent", "there is no patient"
    named = {
        "AUROC": Measure(partial(metrics.auroc, targets, probabilities), absent),
        "AUPRC": Measure(partial(metrics.auprc, targets, probabilities), absent),
        "accuracy": Measure(partial(metrics.accuracy, targets, predicted), nobody),
        "balanced accuracy": Measure(partial(metrics.balanced_accuracy, targets, predicted, classes=classes), absent),
        "F1 (macro)": Measure(partial(metrics.f1_macro, targets, predicted, classes=classes), absent),
        "Brier score": Measure(partial(metrics.brier, targets, probabilities), nobody, False),
        "log loss": Measure(partial(metrics.log_loss, targets, probabilities), nobody, False),
        "ECE": Measure(
            partial(
                calibration.expected_calibration_error,
                outcome,
                score,
                bin_of=calibration.equal_mass_bins(score, BINS),
            ),
            nobody,
            False,
        ),
    }
    if classes == 2:
        called = predicted == 1
        slope = "a class is absent, the scores are constant, or they separate the classes without a mistake"
        named |= {
            **_called(targets, called),
            "F1": Measure(partial(metrics.f1_of, targets, predicted, index=1), "no patient is, or is called, positive"),
            "calibration intercept": Measure(
                partial(calibration.calibration_intercept, targets, score), absent, higher_is_better=None
            ),
            "calibration slope": Measure(
                partial(calibration.calibration_slope, targets, score), slope, higher_is_better=None
            ),
        }
    return named


def _called(positive: Ints, called: Bools) -> dict[str, Measure]:
    """Shares at a threshold; predictive values hold at these patients' share of positive ones."""
    return {
        "sensitivity": Measure(partial(thresholds.sensitivity, positive, called), "no patient is positive"),
        "specificity": Measure(partial(thresholds.specificity, positive, called), "no patient is negative"),
        "PPV": Measure(
            lambda weights: thresholds.predictive_values(positive, called, weights)[0], "no patient is called positive"
        ),
        "NPV": Measure(
            lambda weights: thresholds.predictive_values(positive, called, weights)[1], "no patient is called negative"
        ),
    }


def one_against_rest(targets: Ints, probabilities: Floats, predicted: Ints, index: int) -> dict[str, Measure]:
    """Measures of one of several classes against all others."""
    positive, absent = (targets == index).astype(np.int64), "the class, or every other, is absent"
    pair = np.stack([1 - probabilities[:, index], probabilities[:, index]], axis=1)
    return {
        "AUROC": Measure(partial(metrics.auroc, positive, pair), absent),
        "AUPRC": Measure(partial(metrics.auprc, positive, pair), "the class is absent"),
        **_called(positive, predicted == index),
        "F1": Measure(partial(metrics.f1_of, targets, predicted, index=index), "no patient is, or is called, of it"),
    }


def ordinal(targets: Ints, probabilities: Floats, predicted: Ints) -> dict[str, Measure]:
    """Measures of ordered classes: kappa, and errors and correlation of the steps between them.

    Args:
        targets: (P,) classes, rising.
        probabilities: (P, C).
        predicted: (P,) classes.
    """
    same_length(targets=targets, probabilities=probabilities, predicted=predicted)
    classes = probabilities.shape[1]
    expected = probabilities @ np.arange(classes)
    one_class = "all patients are, and are predicted, of one class"
    named = {
        "quadratic kappa": Measure(partial(regression.quadratic_kappa, targets, predicted, classes=classes), one_class),
        "linear kappa": Measure(partial(regression.linear_kappa, targets, predicted, classes=classes), one_class),
        "MAE (classes)": Measure(
            partial(regression.mean_absolute_error, targets.astype(np.float64), predicted.astype(np.float64)),
            "there is no patient",
            False,
        ),
        "Spearman": Measure(
            partial(regression.spearman, targets.astype(np.float64), expected),
            _constant(targets.astype(np.float64), expected),
        ),
    }
    kept = ("accuracy", "balanced accuracy")
    return named | {
        name: one for name, one in classification(targets, probabilities, predicted).items() if name in kept
    }


def measured(targets: Floats, predicted: Floats) -> dict[str, Measure]:
    """Measures of a target that is a number; both (P,), in the target's unit."""
    same_length(targets=targets, predicted=predicted)
    nobody, constant = "there is no patient", _constant(targets, predicted)
    return {
        "MAE": Measure(partial(regression.mean_absolute_error, targets, predicted), nobody, False),
        "RMSE": Measure(partial(regression.root_mean_squared_error, targets, predicted), nobody, False),
        "mean error": Measure(partial(regression.mean_error, targets, predicted), nobody, None),
        "R2": Measure(partial(regression.r_squared, targets, predicted), "the truth is constant"),
        "Pearson": Measure(partial(regression.pearson, targets, predicted), constant),
        "Spearman": Measure(partial(regression.spearman, targets, predicted), constant),
        "calibration slope": Measure(
            partial(regression.calibration_slope, targets, predicted), constant, higher_is_better=None
        ),
        "calibration intercept": Measure(
            partial(regression.calibration_intercept, targets, predicted), constant, higher_is_better=None
        ),
    }


def _constant(targets: Floats, predicted: Floats) -> str:
    if len(targets) == 0:
        return "there is no patient"
    return "the truth is constant" if np.ptp(targets) == 0 else "the prediction is constant"
