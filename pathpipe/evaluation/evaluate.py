"""Evaluate: predictions of one model into a table of numbers with intervals, pooled over folds and by fold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.evaluation import metrics
from pathpipe.evaluation.bootstrap import Interval, draw_weights, interval
from pathpipe.evaluation.curves import Curve, precision_recall, reliability, roc
from pathpipe.evaluation.predictions import Pool, Predictions
from pathpipe.settings import EvaluateSettings

Floats = npt.NDArray[np.float64]
FEW = 5  # patients of a class below which a percentile interval visibly covers too little


@dataclass(frozen=True)
class Evaluation:
    """What is known of a model.

    Attributes:
        classes: In the order of the confusion matrix.
        patients: Patients of each class, by name.
        metrics: Name -> number with interval, pooled over the test folds, by patient.
        folds: Fold -> metric -> value on that fold's test patients.
        confusion: Rows are truth, columns are predictions.
        thresholds: Fold -> probability of class 1 above which it is predicted; chosen on that fold's validation
            patients. Empty for more than two classes, where the largest probability decides.
        curves: `roc`, `precision-recall` and `reliability` of class 1; of more than two classes `roc of <class>` and
            so on, each class against the rest. None of a class that is absent.
        notes: What a reader must know.
        kind: Of the target. Without classes there is no confusion and there are no curves.
    """

    classes: tuple[str, ...]
    patients: dict[str, int]
    metrics: dict[str, Interval]
    folds: dict[int, dict[str, float]]
    confusion: list[list[int]]
    thresholds: dict[int, float]
    curves: dict[str, Curve]
    notes: tuple[str, ...] = field(default_factory=tuple)
    kind: str = "classification"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; numbers that are undefined become null."""
        return _nullable(asdict(self))

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Evaluation:
        """Inverse of `to_dict`."""
        return cls(
            classes=tuple(value["classes"]),
            patients=value["patients"],
            metrics={name: _interval(one) for name, one in value["metrics"].items()},
            folds={
                int(fold): {name: math.nan if one is None else one for name, one in row.items()}
                for fold, row in value["folds"].items()
            },
            confusion=value["confusion"],
            thresholds={int(fold): one for fold, one in value["thresholds"].items()},
            curves={name: Curve(**one) for name, one in value["curves"].items()},
            notes=tuple(value["notes"]),
            kind=value["kind"],
        )


def evaluate_predictions(predictions: Predictions, settings: EvaluateSettings) -> Evaluation:
    """Measure a model on the patients it never saw.

    Every patient is tested once; the folds' test patients are pooled. Classes are predicted by a threshold chosen on
    each fold's validation patients (Youden), never on test.

    Raises:
        StoreError: No patient was tested.
    """
    val, test = predictions.pooled("val"), predictions.pooled("test")
    if not test.patients:
        raise StoreError("there is no test patient to measure", hint="the column `role` says who was tested")
    predicted, thresholds, notes = _predict(val, test)
    weights = draw_weights(test.targets, settings.bootstrap, settings.seed)
    numbers = {
        name: interval(metric, weights, settings.confidence) for name, metric in _metrics(test, predicted).items()
    }
    counts = np.bincount(test.targets, minlength=len(test.classes))
    by_fold = {}
    for fold in np.unique(test.folds):
        rows = test.folds == fold
        part, ones = test.take(rows), np.ones((1, int(rows.sum())))
        by_fold[int(fold)] = {name: float(m(ones)[0]) for name, m in _metrics(part, predicted[rows]).items()}
    return Evaluation(
        classes=test.classes,
        patients={name: int(count) for name, count in zip(test.classes, counts, strict=True)},
        metrics=numbers,
        folds=by_fold,
        confusion=metrics.confusion(test.targets, predicted, len(test.classes)).tolist(),
        thresholds=thresholds,
        curves=_curves(test),
        notes=(*_few(test.classes, counts), *notes),
    )


def _few(classes: tuple[str, ...], counts: npt.NDArray[np.intp]) -> list[str]:
    """Warnings of classes too small to say much about."""
    notes = []
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            notes.append(f"no test patient is `{name}`: numbers that need one are undefined")
        elif count < FEW:
            many = "patients are" if count > 1 else "patient is"
            notes.append(f"only {count} test {many} `{name}`: the intervals are narrower than the truth")
    return notes


def _predict(val: Pool, test: Pool) -> tuple[npt.NDArray[np.int64], dict[int, float], list[str]]:
    if len(test.classes) > 2:
        return test.probabilities.argmax(axis=1).astype(np.int64), {}, []
    thresholds, notes = {}, []
    predicted = np.zeros(len(test.targets), np.int64)
    for fold in np.unique(test.folds):
        of_val, of_test = val.folds == fold, test.folds == fold
        threshold = metrics.youden_threshold(val.targets[of_val], val.probabilities[of_val, 1])
        if threshold is None:
            threshold = 0.5
            notes.append(f"fold {fold}: its validation patients lack a class, so the threshold is 0.5")
        thresholds[int(fold)] = threshold
        predicted[of_test] = test.probabilities[of_test, 1] > threshold
    return predicted, thresholds, notes


def _metrics(pool: Pool, predicted: npt.NDArray[np.int64]) -> dict[str, Any]:
    targets, probabilities, classes = pool.targets, pool.probabilities, len(pool.classes)
    named = {
        "AUROC": lambda w: metrics.auroc(targets, probabilities, w),
        "AUPRC": lambda w: metrics.auprc(targets, probabilities, w),
        "accuracy": lambda w: metrics.accuracy(targets, predicted, w),
        "balanced accuracy": lambda w: metrics.balanced_accuracy(targets, predicted, w, classes),
        "F1 (macro)": lambda w: metrics.f1_macro(targets, predicted, w, classes),
        "Brier score": lambda w: metrics.brier(targets, probabilities, w),
        "log loss": lambda w: metrics.log_loss(targets, probabilities, w),
    }
    if classes == 2:
        named["sensitivity"] = lambda w: metrics.recalls(targets, predicted, w, 2)[:, 1]
        named["specificity"] = lambda w: metrics.recalls(targets, predicted, w, 2)[:, 0]
    return named


def _curves(pool: Pool) -> dict[str, Curve]:
    binary = len(pool.classes) == 2
    curves = {}
    for index in [1] if binary else range(len(pool.classes)):
        name, positive, score = pool.classes[index], pool.targets == index, pool.probabilities[:, index]
        if positive.all() or not positive.any():
            continue
        for kind, draw in (("roc", roc), ("precision-recall", precision_recall), ("reliability", reliability)):
            curves[kind if binary else f"{kind} of {name}"] = draw(positive, score)
    return curves


def _interval(value: dict[str, Any]) -> Interval:
    numbers = [math.nan if value[key] is None else float(value[key]) for key in ("value", "low", "high")]
    return Interval(numbers[0], numbers[1], numbers[2], draws=value["draws"], note=value["note"])


def _nullable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _nullable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nullable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
