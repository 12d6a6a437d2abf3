"""Evaluation: the numbers of scikit-learn on the pooled patients, thresholds of validation alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sklearn

from pathpipe.errors import StoreError
from pathpipe.evaluation.evaluate import Evaluation, evaluate_predictions
from pathpipe.evaluation.predictions import Predictions
from pathpipe.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=200)


def _part(
    fold: int, role: str, targets: list[int], classes: int = 2, seed: int = 0, strength: float = 1.0
) -> Predictions:
    names = tuple("abcdef"[:classes])
    rng = np.random.default_rng([fold, seed, len(role), len(targets)])
    logits = rng.normal(size=(len(targets), classes)) + strength * np.eye(classes)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    patients = [f"{role}{fold}-{index}" for index in range(len(targets))]
    return Predictions.of(names, patients, [names[t] for t in targets], logits, probabilities, (fold, seed, role))


def _binary(strength: float = 1.0) -> Predictions:
    parts = []
    for fold in range(3):
        parts += [_part(fold, "val", [0, 1] * 6), _part(fold, "test", [0, 1, 0, 0, 1, 1, 0], strength=strength)]
    return Predictions.concatenate(parts)


def test_numbers_are_those_of_scikit_learn_on_the_pooled_test_patients() -> None:
    predictions = _binary()
    found = evaluate_predictions(predictions, SETTINGS)
    pool = predictions.pooled("test")
    score = pool.probabilities[:, 1]
    cuts = np.array([found.thresholds[int(fold)] for fold in pool.folds])
    predicted = (score > cuts).astype(int)
    expected = {
        "AUROC": sklearn.roc_auc_score(pool.targets, score),
        "AUPRC": sklearn.average_precision_score(pool.targets, score),
        "accuracy": sklearn.accuracy_score(pool.targets, predicted),
        "balanced accuracy": sklearn.balanced_accuracy_score(pool.targets, predicted),
        "F1 (macro)": sklearn.f1_score(pool.targets, predicted, average="macro"),
        "Brier score": sklearn.brier_score_loss(pool.targets, score),
        "log loss": sklearn.log_loss(pool.targets, score),
        "sensitivity": sklearn.recall_score(pool.targets, predicted),
        "specificity": sklearn.recall_score(pool.targets, predicted, pos_label=0),
    }
    assert {name: one.value for name, one in found.metrics.items()} == pytest.approx(expected, abs=1e-12)
    assert found.confusion == sklearn.confusion_matrix(pool.targets, predicted).tolist()
    assert found.patients == {"a": 12, "b": 9}
    for one in found.metrics.values():
        assert one.low <= one.value <= one.high and one.low < one.high


def test_every_fold_has_its_own_row() -> None:
    predictions = _binary()
    found = evaluate_predictions(predictions, SETTINGS)
    pool = predictions.pooled("test")
    assert sorted(found.folds) == [0, 1, 2]
    for fold, row in found.folds.items():
        here = pool.folds == fold
        assert row["AUROC"] == pytest.approx(sklearn.roc_auc_score(pool.targets[here], pool.probabilities[here, 1]))
        predicted = pool.probabilities[here, 1] > found.thresholds[fold]
        assert row["accuracy"] == pytest.approx((predicted == pool.targets[here]).mean())


def test_test_patients_never_move_a_threshold() -> None:
    thresholds = evaluate_predictions(_binary(), SETTINGS).thresholds
    assert evaluate_predictions(_binary(strength=-4.0), SETTINGS).thresholds == thresholds
    moved = _binary()
    rows = (moved.table["role"] == "val") & (moved.table["fold"] == 1)
    moved.table.loc[rows, ["p_a", "p_b"]] = moved.table.loc[rows, ["p_b", "p_a"]].to_numpy()
    changed = evaluate_predictions(moved, SETTINGS).thresholds
    assert changed[1] != thresholds[1]
    assert (changed[0], changed[2]) == (thresholds[0], thresholds[2])


def test_a_validation_of_one_class_falls_back_to_a_half_and_says_so() -> None:
    parts = [_part(0, "val", [1, 1, 1]), _part(0, "test", [0, 1] * 6), _part(1, "test", [1, 0] * 5)]
    found = evaluate_predictions(Predictions.concatenate(parts), SETTINGS)
    assert found.thresholds == {0: 0.5, 1: 0.5}
    assert found.notes == (
        "fold 0: its validation patients lack a class, so the threshold is 0.5",
        "fold 1: its validation patients lack a class, so the threshold is 0.5",
    )


def test_more_than_two_classes() -> None:
    parts = [_part(fold, role, [0, 1, 2] * 3 + [fold], 3) for fold in range(2) for role in ("val", "test")]
    predictions = Predictions.concatenate(parts)
    found = evaluate_predictions(predictions, SETTINGS)
    pool = predictions.pooled("test")
    predicted = pool.probabilities.argmax(axis=1)
    expected = sklearn.roc_auc_score(pool.targets, pool.probabilities, multi_class="ovr", average="macro")
    assert found.metrics["AUROC"].value == pytest.approx(expected, abs=1e-12)
    assert found.metrics["accuracy"].value == pytest.approx(sklearn.accuracy_score(pool.targets, predicted))
    assert "sensitivity" not in found.metrics and found.thresholds == {}
    assert found.confusion == sklearn.confusion_matrix(pool.targets, predicted).tolist()


def test_curves_are_of_class_1_or_of_each_class_against_the_rest() -> None:
    pool = _binary().pooled("test")
    curves = evaluate_predictions(_binary(), SETTINGS).curves
    assert sorted(curves) == ["precision-recall", "reliability", "roc"]
    assert sklearn.auc(curves["roc"].x, curves["roc"].y) == pytest.approx(
        sklearn.roc_auc_score(pool.targets, pool.probabilities[:, 1])
    )
    parts = [_part(0, role, [0, 1, 1, 0] * 3, 3) for role in ("val", "test")]  # nobody is `c`
    predictions = Predictions.concatenate(parts)
    pool, curves = predictions.pooled("test"), evaluate_predictions(predictions, SETTINGS).curves
    assert sorted(curves) == [
        f"{kind} of {name}" for kind in ("precision-recall", "reliability", "roc") for name in "ab"
    ]
    assert sklearn.auc(curves["roc of b"].x, curves["roc of b"].y) == pytest.approx(
        sklearn.roc_auc_score(pool.targets == 1, pool.probabilities[:, 1])
    )


def test_a_class_missing_in_a_fold_is_null_there_and_survives_json() -> None:
    parts = [_part(0, "val", [0, 1]), _part(0, "test", [0, 0, 0]), _part(1, "val", [0, 1]), _part(1, "test", [1] * 6)]
    found = evaluate_predictions(Predictions.concatenate(parts), SETTINGS)
    assert np.isnan(found.folds[0]["AUROC"]) and np.isnan(found.folds[0]["sensitivity"])
    assert np.isfinite(found.folds[0]["specificity"]) and np.isfinite(found.metrics["AUROC"].value)
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["folds"]["0"]["AUROC"] is None
    again = Evaluation.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    assert np.isnan(again.folds[0]["AUROC"])


def test_a_class_missing_altogether_is_no_crash() -> None:
    parts = [_part(0, "val", [0, 1, 0, 1]), _part(0, "test", [0] * 6)]
    found = evaluate_predictions(Predictions.concatenate(parts), SETTINGS)
    assert np.isnan(found.metrics["AUROC"].value) and found.metrics["AUROC"].note == "a class is absent"
    assert found.curves == {}
    assert found.notes == ("no test patient is `b`: numbers that need one are undefined",)


def test_a_handful_of_patients_is_called_that() -> None:
    parts = [_part(0, "val", [0, 1, 0, 1]), _part(0, "test", [0] * 6 + [1])]
    found = evaluate_predictions(Predictions.concatenate(parts), SETTINGS)
    assert found.notes == ("only 1 test patient is `b`: the intervals are narrower than the truth",)


def test_json_round_trip() -> None:
    found = evaluate_predictions(_binary(), SETTINGS)
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_equal_input_gives_equal_numbers_whatever_the_order_of_rows() -> None:
    predictions = _binary()
    shuffled = Predictions(predictions.classes, predictions.table.sample(frac=1, random_state=1))
    assert evaluate_predictions(shuffled, SETTINGS) == evaluate_predictions(predictions, SETTINGS)


def test_refuses_predictions_without_a_test() -> None:
    with pytest.raises(StoreError, match="no test patient"):
        evaluate_predictions(_part(0, "val", [0, 1]), SETTINGS)
