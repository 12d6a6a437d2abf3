"""Evaluation: the numbers of scikit-learn on the pooled patients, thresholds of validation alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sklearn

from pathpipe.errors import StoreError
from pathpipe.evaluation.bootstrap import draw_weights, interval
from pathpipe.evaluation.evaluate import Surroundings, evaluate_predictions
from pathpipe.evaluation.evaluation import Evaluation
from pathpipe.evaluation.metrics import auroc
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
        "PPV": sklearn.precision_score(pool.targets, predicted),
        "NPV": sklearn.precision_score(pool.targets, predicted, pos_label=0),
        "F1": sklearn.f1_score(pool.targets, predicted),
    }
    areas = [sklearn.roc_auc_score(pool.targets[rows], score[rows]) for rows in (pool.folds == f for f in range(3))]
    expected["AUROC (mean of folds)"] = float(np.mean(areas))
    assert next(iter(found.metrics)) == "AUROC"
    assert {name: found.metrics[name].value for name in expected} == pytest.approx(expected, abs=1e-12)
    assert set(found.metrics) - set(expected) == {"ECE", "calibration intercept", "calibration slope"}
    assert found.confusion == sklearn.confusion_matrix(pool.targets, predicted).tolist()
    assert found.patients == {"a": 12, "b": 9}
    for name, one in found.metrics.items():
        assert one.low < one.high and (name == "ECE" or one.low <= one.value <= one.high), name


def test_every_fold_has_its_own_row() -> None:
    predictions = _binary()
    found = evaluate_predictions(predictions, SETTINGS)
    pool = predictions.pooled("test")
    assert sorted(found.folds) == [0, 1, 2] and found.fold_patients == {0: 7, 1: 7, 2: 7}
    areas = [row["AUROC"] for row in found.folds.values()]
    mean = found.fold_means["AUROC"]
    assert (mean.mean, mean.sd, mean.folds) == pytest.approx((np.mean(areas), np.std(areas, ddof=1), 3))
    assert found.metrics["AUROC (mean of folds)"].value == pytest.approx(mean.mean)
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
    assert list(found.by_class) == ["a", "b", "c"] == list(found.decisions)
    for index, row in enumerate(found.by_class.values()):
        positive, called = pool.targets == index, predicted == index
        assert row["AUROC"].value == pytest.approx(sklearn.roc_auc_score(positive, pool.probabilities[:, index]))
        assert row["AUPRC"].value == pytest.approx(
            sklearn.average_precision_score(positive, pool.probabilities[:, index])
        )
        assert row["sensitivity"].value == pytest.approx(sklearn.recall_score(positive, called))
        assert row["specificity"].value == pytest.approx(sklearn.recall_score(~positive, ~called))
        assert row["PPV"].value == pytest.approx(sklearn.precision_score(positive, called))
        assert row["F1"].value == pytest.approx(sklearn.f1_score(positive, called))
    macro = found.metrics["F1 (macro)"].value
    assert np.mean([row["F1"].value for row in found.by_class.values()]) == pytest.approx(macro)
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


def test_thresholds_that_reach_what_was_asked_on_validation() -> None:
    predictions = _binary()
    for wanted, level in (("sensitivity", 0.9), ("specificity", 0.8)):
        settings = EvaluateSettings(bootstrap=100, threshold=f"{wanted}={level}")
        thresholds = evaluate_predictions(predictions, settings).thresholds
        pool = predictions.pooled("val")
        for fold, threshold in thresholds.items():
            targets, score = (values[pool.folds == fold] for values in (pool.targets, pool.probabilities[:, 1]))
            of_class = targets == (1 if wanted == "sensitivity" else 0)
            reached = (score[of_class] > threshold) == (wanted == "sensitivity")
            assert reached.mean() >= level
            gains = []
            for cut in score:  # no other cut reaches the level and does better by the other class
                right = (score > cut) == (wanted == "sensitivity")
                if right[of_class].mean() >= level:
                    gains.append(((score > cut) != (wanted == "sensitivity"))[~of_class].mean())
            assert ((score > threshold) != (wanted == "sensitivity"))[~of_class].mean() >= max(gains)


@pytest.mark.parametrize("rule", ["best", "sensitivity", "sensitivity=0", "specificity=1.2", "sensitivity=x"])
def test_refuses_other_rules(rule: str) -> None:
    with pytest.raises(ValueError, match="must be `youden`, `sensitivity=X` or `specificity=X`"):
        EvaluateSettings(threshold=rule)


def test_a_fixed_test_set_is_cut_by_the_validation_of_all_models_that_speak() -> None:
    parts = []
    for fold in range(3):
        parts.append(_part(fold, "val", [0, 1, 1, 0, 1]))
        test = _part(fold, "test", [0, 1, 0, 1])
        parts.append(Predictions(test.classes, test.table.assign(patient_id=["A", "B", "C", "D"])))
    predictions = Predictions.concatenate(parts)
    assert predictions.speaking() == {0: (0, 1, 2)}
    found = evaluate_predictions(predictions, SETTINGS)
    pool = predictions.pooled("val")
    best = max(
        (
            (pool.probabilities[:, 1] > cut)[pool.targets == 1].mean()
            - (pool.probabilities[:, 1] > cut)[pool.targets == 0].mean()
        )
        for cut in pool.probabilities[:, 1] - 1e-9
    )
    called = pool.probabilities[:, 1] > found.thresholds[0]
    assert called[pool.targets == 1].mean() - called[pool.targets == 0].mean() == pytest.approx(best)
    assert found.fold_patients == {0: 4} and list(found.thresholds) == [0]


def test_decision_curve_is_net_benefit() -> None:
    predictions = _binary()
    found = evaluate_predictions(predictions, SETTINGS).decisions
    assert list(found) == ["b"]
    pool, curve = predictions.pooled("test"), found["b"]
    for at, threshold in enumerate(curve.thresholds):
        treated = pool.probabilities[:, 1] >= threshold
        odds = threshold / (1 - threshold)
        by_hand = (treated & (pool.targets == 1)).mean() - odds * (treated & (pool.targets == 0)).mean()
        everyone = (pool.targets == 1).mean() - odds * (pool.targets == 0).mean()
        assert curve.model[at] == pytest.approx(by_hand) and curve.everyone[at] == pytest.approx(everyone)
        assert curve.gain[at] == pytest.approx(by_hand - max(everyone, 0))
        assert curve.model_low[at] <= curve.model_high[at]


def test_percentile_and_bca_differ_and_are_the_bootstraps_own() -> None:
    bca, percentile = (
        evaluate_predictions(_binary(), EvaluateSettings(bootstrap=300, interval=kind)).metrics["AUROC"]
        for kind in ("bca", "percentile")
    )
    assert bca.value == percentile.value and (bca.low, bca.high) != (percentile.low, percentile.high)
    pool = _binary().pooled("test")
    weights = draw_weights(pool.targets, 300, 0)
    by_hand = interval(lambda w: auroc(pool.targets, pool.probabilities, w), weights, 0.95)
    assert percentile == by_hand


def test_subgroups() -> None:
    predictions = _binary()
    pool = predictions.pooled("test")
    site = {patient: "AB"[number % 2] for number, patient in enumerate(pool.patients[:-1])}
    sex = dict.fromkeys(pool.patients, "f")
    found = evaluate_predictions(predictions, SETTINGS, Surroundings(None, {"site": site, "sex": sex}))
    assert [(one.column, one.value, one.patients) for one in found.subgroups] == [
        ("site", "A", 10),
        ("site", "B", 10),
        ("site", "(missing)", 1),
        ("sex", "f", 21),
    ]
    rows = np.array([site.get(patient) == "A" for patient in pool.patients])
    first, alone, everyone = found.subgroups[0], found.subgroups[2], found.subgroups[3]
    area = sklearn.roc_auc_score(pool.targets[rows], pool.probabilities[rows, 1])
    assert first.metrics["AUROC"].value == pytest.approx(area) and first.metrics["AUROC"].low < area
    assert first.counts == {"a": int((pool.targets[rows] == 0).sum()), "b": int((pool.targets[rows] == 1).sum())}
    assert first.note is not None and "too few to conclude from" in first.note
    assert (
        np.isnan(alone.metrics["AUROC"].value)
        and alone.note == "no patient is `b`: numbers that need one are undefined"
    )
    assert everyone.note is None and everyone.metrics["AUROC"] == found.metrics["AUROC"]
    assert {"sensitivity", "specificity", "Brier score"} <= set(first.metrics)
