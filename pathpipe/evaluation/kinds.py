"""Evaluate any kind of target: classes as ever, grades, numbers and times by the measures that fit them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathpipe.errors import StoreError
from pathpipe.evaluation import measures, metrics
from pathpipe.evaluation.arrays import Floats, Ints
from pathpipe.evaluation.bootstrap import draw_weights
from pathpipe.evaluation.evaluate import Evaluation, evaluate_predictions
from pathpipe.evaluation.measures import Measure
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.survival import concordance
from pathpipe.settings import EvaluateSettings

_FOLD_C = "C-index (Harrell, mean of folds)"
Measured = Callable[[pd.DataFrame], dict[str, Measure]]


def measure_predictions(predictions: Predictions, settings: EvaluateSettings) -> Evaluation:
    """Measure a model on the patients it never saw, each counted once.

    Raises:
        StoreError: No patient was tested.
    """
    if predictions.kind == "classification":
        return evaluate_predictions(predictions, settings)
    test = predictions.averaged("test")
    if test.empty:
        raise StoreError("there is no test patient to measure", hint="the column `role` says who was tested")
    measured: Measured = measured_time if predictions.kind == "survival" else measured_number
    strata, names, confusion = np.zeros(len(test), np.int64), ["patients"], []
    if predictions.kind == "survival":
        strata, names = test["event"].to_numpy(np.int64), ["censored", "event"]
    elif predictions.kind == "ordinal":
        pool, names = predictions.pooled("test"), list(predictions.classes)
        test = test.assign(target=pool.targets)
        strata, measured = pool.targets, measured_grade
        confusion = metrics.confusion(strata, median_grade(pool.probabilities), len(names)).tolist()
    weights = draw_weights(strata, settings.bootstrap, settings.seed)
    counts = np.bincount(strata, minlength=len(names))
    return Evaluation(
        classes=predictions.classes,
        patients={name: int(count) for name, count in zip(names, counts, strict=True)},
        metrics={name: one.interval(weights, settings.confidence) for name, one in measured(test).items()},
        folds={int(str(fold)): _values(measured(rows), len(rows)) for fold, rows in test.groupby("fold", sort=True)},
        confusion=confusion,
        thresholds={},
        curves={},
        notes=("risks are compared between patients of one fold",) if predictions.kind == "survival" else (),
        kind=predictions.kind,
    )


def median_grade(probabilities: Floats) -> Ints:
    """(P,) the grade at which half of the probability is reached, of (P, C)."""
    # a sum of shares that is a half on paper may fall short of it on a computer
    return (probabilities.cumsum(axis=1)[:, :-1] < 0.5 - 1e-12).sum(axis=1).astype(np.int64)


def measured_number(test: pd.DataFrame) -> dict[str, Measure]:
    """Measures of a number: columns target and prediction."""
    return measures.measured(*_arrays(test, "target", "prediction"))


def measured_grade(test: pd.DataFrame) -> dict[str, Measure]:
    """Measures of grades: columns target (places of the grades) and `p_<grade>`; the median grade is predicted."""
    probabilities = test[[name for name in map(str, test.columns) if name.startswith("p_")]].to_numpy(np.float64)
    return measures.ordinal(test["target"].to_numpy(np.int64), probabilities, median_grade(probabilities))


def measured_time(test: pd.DataFrame) -> dict[str, Measure]:
    """Harrell's C: columns fold, time, event and risk.

    Risks of different folds come from different models, so only patients of one fold are compared; of several folds
    the mean is taken.
    """
    time, event, risk = _arrays(test, "time", "event", "risk")
    folds = test["fold"].to_numpy(np.int64)
    rows = [folds == fold for fold in np.unique(folds)]

    def mean_of_folds(weights: Floats) -> Floats:
        each = np.array([concordance.harrell(time[r], event[r] == 1, risk[r], weights[:, r]) for r in rows])
        known: npt.NDArray[np.bool_] = np.isfinite(each)
        total = np.where(known, each, 0.0).sum(axis=0)
        return np.divide(total, known.sum(axis=0), out=np.full(len(weights), np.nan), where=known.any(axis=0))

    return {_FOLD_C: Measure(mean_of_folds, concordance.why_undefined(time, event == 1) or "no two can be compared")}


def _values(named: dict[str, Measure], patients: int) -> dict[str, float]:
    return {name: float(one(np.ones((1, patients)))[0]) for name, one in named.items()}


def _arrays(table: pd.DataFrame, *names: str) -> list[Floats]:
    return [table[name].to_numpy(np.float64) for name in names]
