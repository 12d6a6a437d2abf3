"""Measures: every name gives the number of its function, and NaN always comes with its reason."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from pathpipe.evaluation import measures, metrics
from pathpipe.evaluation.bootstrap import draw_weights
from pathpipe.evaluation.comparison.delong import DeLong
from pathpipe.evaluation.thresholds import threshold_for


def _probabilities(seed: int, classes: int, patients: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.r_[np.arange(classes), rng.integers(0, classes, patients - classes)].astype(np.int64)
    probabilities = 0.3 * np.eye(classes)[targets] + 0.7 * rng.dirichlet(np.ones(classes), patients)
    return targets, probabilities, probabilities.argmax(axis=1)


def test_every_measure_has_a_number_and_an_interval() -> None:
    targets, probabilities, predicted = _probabilities(0, 2)
    many, of_many, called = _probabilities(1, 4)
    truth = np.random.default_rng(3).normal(size=40)
    for named, strata in (
        (measures.classification(targets, probabilities, predicted), targets),
        (measures.classification(many, of_many, called), many),
        (measures.ordinal(many, of_many, called), many),
        (measures.measured(truth, truth + np.random.default_rng(4).normal(size=40)), None),
    ):
        weights = draw_weights(np.zeros(40, np.int64) if strata is None else strata, 60, seed=0)
        for name, one in named.items():
            for method in ("percentile", "bca"):
                found = one.interval(weights, 0.9, method, strata)
                assert found.low <= found.high and np.isfinite(found.value), name
                assert found.low - 0.5 < found.value < found.high + 0.5, name
            assert one(weights[:2].astype(float)).shape == (2,)


def test_numbers_are_those_of_their_names() -> None:
    targets, probabilities, predicted = _probabilities(0, 2)
    whole = np.ones((1, 40))
    named = measures.classification(targets, probabilities, predicted)
    assert named["AUROC"](whole)[0] == pytest.approx(roc_auc_score(targets, probabilities[:, 1]))
    assert named["sensitivity"](whole)[0] == predicted[targets == 1].mean()
    assert named["specificity"](whole)[0] == 1 - predicted[targets == 0].mean()
    many, of_many, called = _probabilities(1, 4)
    ordered = measures.ordinal(many, of_many, called)
    assert ordered["quadratic kappa"](whole)[0] == pytest.approx(cohen_kappa_score(many, called, weights="quadratic"))
    assert ordered["Spearman"](whole)[0] == pytest.approx(spearmanr(many, of_many @ np.arange(4)).statistic)
    assert ordered["MAE (classes)"](whole)[0] == np.abs(many - called).mean()
    assert named["log loss"].higher_is_better is False and named["calibration slope"].higher_is_better is None


def test_an_absent_class() -> None:
    _, probabilities, predicted = _probabilities(0, 2)
    ones = np.ones(40, np.int64)
    weights = draw_weights(ones, 30, seed=0)
    named = measures.classification(ones, probabilities, predicted)
    notes = {name: one.interval(weights, 0.9).note for name, one in named.items() if np.isnan(one(np.ones((1, 40)))[0])}
    assert set(notes) == {
        "AUROC", "balanced accuracy", "specificity", "calibration intercept", "calibration slope",
    }  # fmt: skip
    assert notes["specificity"] == "no patient is negative" and notes["AUROC"] == "a class is absent"


def test_constant_numbers() -> None:
    truth, weights = np.arange(8.0), draw_weights(np.zeros(8, np.int64), 30, seed=0)
    flat = measures.measured(truth, np.full(8, 3.0))
    assert flat["Pearson"].interval(weights, 0.9).note == "the prediction is constant"
    assert np.isfinite(flat["R2"].interval(weights, 0.9).value)
    same = measures.measured(np.full(8, 3.0), truth)
    assert same["R2"].interval(weights, 0.9).note == "the truth is constant"
    assert same["Spearman"].interval(weights, 0.9).note == "the truth is constant"
    nobody = measures.measured(np.zeros(0), np.zeros(0))
    assert np.isnan(nobody["MAE"](np.ones((1, 0)))[0]) and nobody["Pearson"].undefined == "there is no patient"


def test_nobody() -> None:
    nobody, none = np.zeros(0), np.zeros(0, np.int64)
    for named in (
        measures.classification(none, np.zeros((0, 2)), none),
        measures.ordinal(none, np.zeros((0, 3)), none),
        measures.measured(nobody, nobody),
    ):
        for name, one in named.items():
            assert np.isnan(one(np.ones((2, 0)))).tolist() == [True, True], name


def test_a_score_that_is_no_number_spoils_what_orders_by_it() -> None:
    targets, probabilities, predicted = _probabilities(0, 2)
    whole, time = np.ones((1, 40)), np.arange(1.0, 41)
    kept = measures.classification(targets, probabilities, predicted)
    broken = probabilities.copy()
    broken[3] = np.nan
    assert np.isnan(metrics.auroc(targets, broken, whole)[0]) and np.isnan(metrics.auprc(targets, broken, whole)[0])
    assert np.isfinite(kept["AUROC"](whole)[0])
    assert np.isnan(measures.measured(time, broken[:, 1])["Spearman"](whole)[0])
    found = DeLong.of(targets, np.stack([broken[:, 1], probabilities[:, 1]]))
    assert np.isnan(found.areas).tolist() == [True, False]
    assert found.difference(0, 1).note == "a score is no number" and np.isnan(found.all_equal()[2])
    with pytest.raises(ValueError, match="finite"):
        threshold_for(targets, broken[:, 1], "sensitivity", 0.9)


def test_refuses_shapes() -> None:
    targets, probabilities, predicted = _probabilities(0, 2)
    with pytest.raises(ValueError, match="`predicted`"):
        measures.classification(targets, probabilities, predicted[1:])
    with pytest.raises(ValueError, match="`predicted`"):
        measures.measured(np.zeros(3), np.zeros(2))
