"""Which class is called: by thresholds that validation patients decide, and never those who are tested."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np

from pathpipe.evaluation.arrays import Floats, Ints
from pathpipe.evaluation.metrics import youden_threshold
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.thresholds import threshold_for

Rule = Literal["sensitivity", "specificity"]


def called_classes(predictions: Predictions, rule: str) -> tuple[Ints, dict[int, float], tuple[str, ...]]:
    """The class of each test patient, in the order of `Predictions.pooled`.

    Of two classes by a threshold a fold; of more the most probable.

    Args:
        rule: The setting `evaluate.threshold`.

    Returns:
        (P,) classes; fold -> threshold, none of more than two classes; what validation couldn't decide.
    """
    val, test = predictions.pooled("val"), predictions.pooled("test")
    if len(test.classes) > 2:
        return test.probabilities.argmax(axis=1).astype(np.int64), {}, ()
    thresholds: dict[int, float] = {}
    notes = []
    predicted = np.zeros(len(test.targets), np.int64)
    for fold, rows in predictions.deciding(val.patients, val.folds).items():
        threshold = _threshold(val.targets[rows], val.probabilities[rows, 1], rule)
        if threshold is None:
            threshold = 0.5
            notes.append(f"fold {fold}: its validation patients lack a class, so the threshold is 0.5")
        thresholds[fold] = threshold
        here = test.folds == fold
        predicted[here] = test.probabilities[here, 1] > threshold
    return predicted, thresholds, tuple(notes)


def _threshold(targets: Ints, score: Floats, rule: str) -> float | None:
    if rule == "youden":
        return youden_threshold(targets, score)
    wanted, _, level = rule.partition("=")
    if len(np.unique(targets)) < 2:
        return None
    return threshold_for(targets, score, cast("Rule", wanted), float(level)).value


def median_grade(probabilities: Floats) -> Ints:
    """(P,) the grade at which half of the probability is reached, of (P, C)."""
    # a sum of shares that is a half on paper may fall short of it on a computer
    return (probabilities.cumsum(axis=1)[:, :-1] < 0.5 - 1e-12).sum(axis=1).astype(np.int64)
