"""Calibration of a model's probabilities: as they are, and corrected by what each fold's validation patients teach."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pathpipe.evaluation import calibration, measures
from pathpipe.evaluation.arrays import Bools, Floats, Ints
from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.evaluation import Calibration, Recalibrated, ReliabilityPoints
from pathpipe.evaluation.measures import Measure
from pathpipe.evaluation.predictions import Pool, Predictions
from pathpipe.evaluation.recalibration import Platt, Temperature

BINS = 5
TOP = "the most probable class is right"
_KEPT = ("log loss", "Brier score", "ECE", "calibration intercept", "calibration slope")
_TINY = 1e-12
Gauge = Callable[[Mapping[str, Measure]], dict[str, Interval]]
Fit = tuple[dict[str, float], str | None, Callable[[Floats], Floats]]


def calibrate(predictions: Predictions, gauge: Gauge, confidence: float) -> Calibration:
    """Reliability of class probabilities, and the same after temperature and, of two classes, Platt scaling.

    The logits are logarithms of the probabilities, which seeds and models were averaged as: a temperature of 1 then
    changes nothing.

    Args:
        gauge: Measures of the test patients, in the order of `Predictions.pooled`, -> numbers with intervals.
        confidence: Of the intervals of the reliability.
    """
    val, test = predictions.pooled("val"), predictions.pooled("test")
    deciding = predictions.deciding(val.patients, val.folds)
    fits: dict[str, Callable[[Ints, Floats], Fit]] = {"temperature": _temperature}
    if len(test.classes) == 2:
        fits["platt"] = _platt
    return Calibration(
        outcome=test.classes[1] if len(test.classes) == 2 else TOP,
        reliability=reliability_points(test.targets, test.probabilities, confidence),
        recalibrated={name: _corrected(val, test, deciding, fit, gauge, confidence) for name, fit in fits.items()},
    )


def reliability_points(targets: Ints, probabilities: Floats, confidence: float) -> ReliabilityPoints:
    """Points of class 1 of two, of the most probable class of more."""
    if probabilities.shape[1] == 2:
        outcome, score = targets, probabilities[:, 1]
    else:
        outcome, score = calibration.top_label(targets, probabilities)
    score = np.clip(score, 0, 1)
    found = calibration.reliability_bins(outcome, score, calibration.equal_mass_bins(score, BINS), confidence)
    return ReliabilityPoints(
        predicted=found.predicted.tolist(),
        observed=found.observed.tolist(),
        low=found.low.tolist(),
        high=found.high.tolist(),
        count=found.count.tolist(),
    )


def _corrected(
    val: Pool,
    test: Pool,
    deciding: Mapping[int, Bools],
    fit: Callable[[Ints, Floats], Fit],
    gauge: Gauge,
    confidence: float,
) -> Recalibrated:
    fitted, notes, corrected = {}, [], np.empty_like(test.probabilities)
    for fold, of_val in deciding.items():
        of_test = test.folds == fold
        numbers, note, apply = fit(val.targets[of_val], _logits(val.probabilities[of_val]))
        fitted[fold] = numbers
        corrected[of_test] = apply(_logits(test.probabilities[of_test]))
        if note:
            notes.append(f"fold {fold}: {note}; its probabilities are left as they are")
    predicted = corrected.argmax(axis=1).astype(np.int64)  # moves none of the numbers kept
    named = measures.classification(test.targets, corrected, predicted)
    kept = gauge({name: named[name] for name in _KEPT if name in named})
    return Recalibrated(fitted, kept, reliability_points(test.targets, corrected, confidence), tuple(notes))


def _temperature(targets: Ints, logits: Floats) -> Fit:
    if not len(targets):
        return {"temperature": float("nan")}, "there is no validation patient", Temperature(float("nan")).apply
    found = Temperature.fit(targets, logits)
    return {"temperature": found.value}, found.note, found.apply


def _platt(targets: Ints, logits: Floats) -> Fit:
    nan = float("nan")
    if not len(targets):
        return {"slope": nan, "intercept": nan}, "there is no validation patient", Platt(nan, nan).apply
    found = Platt.fit(targets, logits)
    return {"slope": found.slope, "intercept": found.intercept}, found.note, found.apply


def _logits(probabilities: Floats) -> Floats:
    return np.asarray(np.log(np.clip(probabilities, _TINY, 1)))
