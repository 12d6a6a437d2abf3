"""Which numbers a model is measured by, for each kind of target, each with the reason it may be undefined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pathpipe.evaluation import calibration, metrics, regression, thresholds
from pathpipe.evaluation.arrays import Bools, Floats, Ints, same_length
from pathpipe.evaluation.bootstrap import Counts, Interval, Method, Metric, interval
from pathpipe.evaluation.survival import concordance, dynamic
from pathpipe.evaluation.survival.censoring import Censoring

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
            "sensitivity": Measure(partial(thresholds.sensitivity, targets, called), "no patient is positive"),
            "specificity": Measure(partial(thresholds.specificity, targets, called), "no patient is negative"),
            "calibration intercept": Measure(
                partial(calibration.calibration_intercept, targets, score), absent, higher_is_better=None
            ),
            "calibration slope": Measure(
                partial(calibration.calibration_slope, targets, score), slope, higher_is_better=None
            ),
        }
    return named


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
    }


@dataclass(frozen=True)
class Horizon:
    """What measures of survival ask of censoring and time.

    Attributes:
        censoring: Of the training patients.
        tau: Uno's C counts events before it.
        times: (T,) rising, at which AUC and Brier score are taken.
    """

    censoring: Censoring
    tau: float
    times: Floats


def survival(
    time: Floats, event: Bools, risk: Floats, horizon: Horizon, predicted: Floats | None = None
) -> dict[str, Measure]:
    """Measures of a time that may be censored.

    Args:
        time: (P,).
        event: (P,) true where the event was seen.
        risk: (P,) higher means an earlier event.
        predicted: (P, T) survival at the horizon's times; without it there is no Brier score.
    """
    same_length(time=time, event=event, risk=risk)
    among, times, tau = horizon.censoring, horizon.times, horizon.tau
    pairs = concordance.why_undefined(time, event)
    weighted = concordance.why_undefined(time, event, among, tau)
    moments = dynamic.why_undefined(time, event, among, times) if len(time) else pairs
    in_draws = "no two patients can be compared"
    named = {
        "C-index (Harrell)": Measure(partial(concordance.harrell, time, event, risk), pairs or in_draws),
        "C-index (Uno)": Measure(
            partial(concordance.uno, time, event, risk, censoring=among, tau=tau), weighted or in_draws
        ),
        "mean dynamic AUC": Measure(
            partial(dynamic.mean_dynamic_auc, time, event, risk, censoring=among, times=times), moments or in_draws
        ),
    }
    if predicted is not None and len(times) > 1:
        named["integrated Brier score"] = Measure(
            partial(dynamic.integrated_brier, time, event, predicted, censoring=among, times=times),
            moments or "there is no patient",
            False,
        )
    return named


def _constant(targets: Floats, predicted: Floats) -> str:
    if len(targets) == 0:
        return "there is no patient"
    return "the truth is constant" if np.ptp(targets) == 0 else "the prediction is constant"
