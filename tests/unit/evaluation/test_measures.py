"""Measures: every name gives the number of its function, and NaN always comes with its reason."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from pathpipe.evaluation import measures, metrics
from pathpipe.evaluation.bootstrap import draw_weights
from pathpipe.evaluation.comparison.delong import DeLong
from pathpipe.evaluation.survival.censoring import Censoring
from pathpipe.evaluation.thresholds import threshold_for


def _probabilities(seed: int, classes: int, patients: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.r_[np.arange(classes), rng.integers(0, classes, patients - classes)].astype(np.int64)
    probabilities = 0.3 * np.eye(classes)[targets] + 0.7 * rng.dirichlet(np.ones(classes), patients)
    return targets, probabilities, probabilities.argmax(axis=1)


def _survival(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, measures.Horizon]:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=50)
    time, event = np.round(rng.exponential(np.exp(-risk)), 2), rng.random(50) < 0.7
    censoring = Censoring.of(time, event)
    return time, event, risk, measures.Horizon(censoring, censoring.reach, np.quantile(time, [0.25, 0.5, 0.75]))


def test_every_measure_has_a_number_and_an_interval() -> None:
    targets, probabilities, predicted = _probabilities(0, 2)
    many, of_many, called = _probabilities(1, 4)
    time, event, risk, horizon = _survival(2)
    predicted_survival = np.exp(-np.exp(risk)[:, None] * horizon.times)
    truth = np.random.default_rng(3).normal(size=40)
    for named, strata in (
        (measures.classification(targets, probabilities, predicted), targets),
        (measures.classification(many, of_many, called), many),
        (measures.ordinal(many, of_many, called), many),
        (measures.measured(truth, truth + np.random.default_rng(4).normal(size=40)), None),
        (measures.survival(time, event, risk, horizon, predicted_survival), event.astype(np.int64)),
    ):
        patients = len(time) if "C-index (Uno)" in named else 40
        weights = draw_weights(np.zeros(patients, np.int64) if strata is None else strata, 60, seed=0)
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


def test_all_censored() -> None:
    time, event, risk, horizon = _survival(0)
    weights = draw_weights(np.zeros(50, np.int64), 30, seed=0)
    for name, one in measures.survival(time, event & False, risk, horizon).items():
        found = one.interval(weights, 0.9, "bca")
        assert np.isnan(found.value) and found.note == "all patients are censored", name


def test_training_patients_followed_too_shortly() -> None:
    time, event, risk, horizon = _survival(0)
    short = measures.Horizon(Censoring.of(np.array([0.1, 0.2]), np.array([True, False])), np.inf, horizon.times)
    weights = draw_weights(event.astype(np.int64), 30, seed=0)
    named = measures.survival(time, event, risk, short, np.exp(-np.exp(risk)[:, None] * horizon.times))
    for name in ("C-index (Uno)", "mean dynamic AUC", "integrated Brier score"):
        found = named[name].interval(weights, 0.9)
        assert np.isnan(found.value) and "training patients" in (found.note or ""), name
    assert np.isfinite(named["C-index (Harrell)"].interval(weights, 0.9).value)


def test_nobody() -> None:
    nobody, none, truly = np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool)
    horizon = _survival(0)[3]
    for named in (
        measures.classification(none, np.zeros((0, 2)), none),
        measures.ordinal(none, np.zeros((0, 3)), none),
        measures.measured(nobody, nobody),
        measures.survival(nobody, truly, nobody, horizon, np.zeros((0, 3))),
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
