"""Recalibration of an evaluation: fitted on a fold's validation, applied to its test patients, nothing else."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from pathpipe.evaluation.bootstrap import draw_weights
from pathpipe.evaluation.evaluate import evaluate_predictions, measure_all
from pathpipe.evaluation.evaluation import Calibration
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.recalibrated import TOP, calibrate
from pathpipe.evaluation.recalibration import Platt, Temperature
from pathpipe.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=100)


def _overconfident(classes: int = 2, factor: float = 4.0, folds: int = 2, patients: int = 80) -> Predictions:
    """Right logits, but for a factor that is another in each fold."""
    parts = []
    for fold in range(folds):
        for role in ("val", "test"):
            rng = np.random.default_rng([fold, len(role)])
            right = rng.normal(size=(patients, classes)) * 1.5
            shares = np.exp(right) / np.exp(right).sum(axis=1, keepdims=True)
            targets = [int(rng.choice(classes, p=row)) for row in shares]
            said = right * (factor + fold)
            said -= said.max(axis=1, keepdims=True)
            p = np.exp(said) / np.exp(said).sum(axis=1, keepdims=True)
            who = [f"{role}{fold}-{at}" for at in range(patients)]
            parts.append(Predictions.of("abcd"[:classes], who, ["abcd"[t] for t in targets], said, p, (fold, 0, role)))
    return Predictions.concatenate(parts)


def _calibration(predictions: Predictions) -> Calibration:
    found = evaluate_predictions(predictions, SETTINGS).calibration
    assert found is not None
    return found


@pytest.mark.parametrize("classes", [2, 3])
def test_temperature_of_each_fold_is_the_inverse_of_what_spoilt_it(classes: int) -> None:
    predictions = _overconfident(classes, patients=400)
    before = evaluate_predictions(predictions, SETTINGS).metrics
    found = _calibration(predictions)
    after = found.recalibrated["temperature"]
    fitted = [after.fitted[fold]["temperature"] for fold in (0, 1)]
    assert fitted == pytest.approx([4, 5], rel=0.2) and not after.notes
    for name in ("log loss", "Brier score", "ECE"):
        assert after.metrics[name].value < before[name].value
    assert after.metrics["log loss"].high < before["log loss"].low
    assert found.outcome == ("b" if classes == 2 else TOP)
    assert ("platt" in found.recalibrated) == (classes == 2)
    if classes == 2:
        assert before["calibration slope"].value < 0.5 < after.metrics["calibration slope"].value < 1.5


def test_corrected_probabilities_are_those_of_the_fits() -> None:
    predictions = _overconfident()
    found = _calibration(predictions).recalibrated
    val, test = predictions.pooled("val"), predictions.pooled("test")
    warm, lined = np.empty(160), np.empty(160)
    for fold in (0, 1):
        here, there = val.folds == fold, test.folds == fold
        logits, of_test = np.log(val.probabilities[here]), np.log(test.probabilities[there])
        temperature = Temperature.fit(val.targets[here], logits)
        platt = Platt.fit(val.targets[here], logits)
        assert found["temperature"].fitted[fold]["temperature"] == pytest.approx(temperature.value)
        assert found["platt"].fitted[fold] == pytest.approx({"slope": platt.slope, "intercept": platt.intercept})
        odds = logit(test.probabilities[there, 1])
        np.testing.assert_allclose(odds, of_test[:, 1] - of_test[:, 0], atol=1e-6)
        warm[there] = expit(odds / temperature.value)
        lined[there] = expit(platt.slope * odds + platt.intercept)
    assert found["temperature"].metrics["log loss"].value == pytest.approx(log_loss(test.targets, warm))
    assert found["platt"].metrics["log loss"].value == pytest.approx(log_loss(test.targets, lined))
    points = found["platt"].reliability
    assert sum(points.count) == 160 and min(points.predicted) >= lined.min() and max(points.predicted) <= lined.max()
    first = np.sort(lined)[: points.count[0]]
    assert points.predicted[0] == pytest.approx(first.mean())
    assert all(low <= share <= high for low, share, high in zip(points.low, points.observed, points.high, strict=True))


def test_test_patients_fit_nothing() -> None:
    predictions = _overconfident()
    before = _calibration(predictions)
    rows = predictions.table["role"] == "test"
    predictions.table.loc[rows, ["p_a", "p_b"]] = predictions.table.loc[rows, ["p_b", "p_a"]].to_numpy()
    after = _calibration(predictions)
    for name in ("temperature", "platt"):
        assert before.recalibrated[name].fitted == after.recalibrated[name].fitted
    assert before.reliability != after.reliability


def test_without_validation_probabilities_stay_and_the_note_says_so() -> None:
    predictions = _overconfident()
    table = predictions.table
    one_class = (table["role"] == "val") & (table["fold"] == 0) & (table["target"] == "a")
    missing = (table["role"] == "val") & (table["fold"] == 1)
    alone = Predictions(("a", "b"), table[~one_class & ~missing])
    found = _calibration(alone)
    for one in found.recalibrated.values():
        assert one.notes == (
            "fold 0: the validation patients are of one class; its probabilities are left as they are",
            "fold 1: there is no validation patient; its probabilities are left as they are",
        )
        assert all(np.isnan(value) for row in one.fitted.values() for value in row.values())
        assert one.reliability.observed == found.reliability.observed
        assert one.reliability.predicted == pytest.approx(found.reliability.predicted)


def test_probabilities_of_0_and_1_are_no_trouble() -> None:
    predictions = _overconfident()
    rows = predictions.table.index[:3]
    predictions.table.loc[rows, ["p_a", "p_b"]] = [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    pool = predictions.pooled("test")
    weights = draw_weights(pool.targets, 100, 0)
    gauge = partial(measure_all, weights=weights, strata=pool.targets, settings=SETTINGS)
    found = calibrate(predictions, gauge, 0.95)
    assert all(np.isfinite(one.metrics["log loss"].value) for one in found.recalibrated.values())
