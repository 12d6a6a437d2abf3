"""Metrics against scikit-learn, the bootstrap against a plain loop and scipy, thresholds that never see test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from pathpipe.errors import StoreError
from pathpipe.evaluation import metrics
from pathpipe.evaluation.baseline import colour_baseline
from pathpipe.evaluation.bootstrap import draw_weights, interval
from pathpipe.evaluation.curves import precision_recall, reliability, roc
from pathpipe.evaluation.evaluate import Evaluation, evaluate_predictions
from pathpipe.evaluation.predictions import Predictions
from pathpipe.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=500, seed=1)


def _problem(n: int, classes: int, seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(n) % classes)
    raw = rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[targets]
    raw = np.round(raw) if ties else raw
    return targets, np.exp(raw) / np.exp(raw).sum(1, keepdims=True)


def _ones(n: int) -> np.ndarray:
    return np.ones((1, n))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_binary_metrics_equal_scikit_learn(seed: int, ties: bool) -> None:
    targets, p = _problem(53, 2, seed, ties)
    predicted = (p[:, 1] > 0.4).astype(int)
    w = _ones(53)
    for ours, theirs in [
        (metrics.auroc(targets, p, w), sk.roc_auc_score(targets, p[:, 1])),
        (metrics.auprc(targets, p, w), sk.average_precision_score(targets, p[:, 1])),
        (metrics.accuracy(targets, predicted, w), sk.accuracy_score(targets, predicted)),
        (metrics.balanced_accuracy(targets, predicted, w, 2), sk.balanced_accuracy_score(targets, predicted)),
        (metrics.f1_macro(targets, predicted, w, 2), sk.f1_score(targets, predicted, average="macro")),
        (metrics.brier(targets, p, w), sk.brier_score_loss(targets, p[:, 1])),
        (metrics.log_loss(targets, p, w), sk.log_loss(targets, p[:, 1])),
        (metrics.recalls(targets, predicted, w, 2)[:, 1], sk.recall_score(targets, predicted)),
        (metrics.recalls(targets, predicted, w, 2)[:, 0], sk.recall_score(targets, predicted, pos_label=0)),
    ]:
        assert ours[0] == pytest.approx(theirs, abs=1e-12)
    assert metrics.confusion(targets, predicted, 2).tolist() == sk.confusion_matrix(targets, predicted).tolist()


@pytest.mark.parametrize("ties", [False, True])
def test_multi_class_metrics_equal_scikit_learn(ties: bool) -> None:
    targets, p = _problem(60, 4, 0, ties)
    predicted, w = p.argmax(1), _ones(60)
    assert metrics.auroc(targets, p, w)[0] == pytest.approx(
        sk.roc_auc_score(targets, p, multi_class="ovr", average="macro"), abs=1e-12
    )
    assert metrics.auprc(targets, p, w)[0] == pytest.approx(
        sk.average_precision_score(np.eye(4)[targets], p, average="macro"), abs=1e-12
    )
    assert metrics.f1_macro(targets, predicted, w, 4)[0] == pytest.approx(
        sk.f1_score(targets, predicted, average="macro"), abs=1e-12
    )
    assert metrics.brier(targets, p, w)[0] == pytest.approx(np.square(p - np.eye(4)[targets]).sum(1).mean())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_weights_mean_repeating_patients(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.r_[0, 1, rng.integers(0, 2, n)]
    score = rng.integers(0, 4, n + 2) / 4
    p = np.stack([1 - score, score], 1)
    counts = np.r_[1, 1, rng.integers(0, 4, n)]
    rows = np.repeat(np.arange(n + 2), counts)
    for metric in (metrics.auroc, metrics.auprc, metrics.brier):
        assert metric(targets, p, counts[None].astype(float))[0] == pytest.approx(
            metric(targets[rows], p[rows], _ones(len(rows)))[0], abs=1e-12
        )


def test_an_absent_class_is_nan_and_not_a_crash() -> None:
    targets, p = np.zeros(5, int), np.full((5, 2), 0.5)
    assert np.isnan(metrics.auroc(targets, p, _ones(5))[0])
    assert np.isnan(metrics.balanced_accuracy(targets, targets, _ones(5), 2)[0])
    assert metrics.youden_threshold(targets, p[:, 1]) is None
    found = interval(lambda w: metrics.auroc(targets, p, w), draw_weights(targets, 50, 0), 0.95)
    assert np.isnan(found.value) and found.note == "a class is absent"


def test_youden_against_trying_every_cut() -> None:
    targets, p = _problem(40, 2, 3, ties=False)
    score = p[:, 1]
    best = max(np.linspace(0, 1, 5001), key=lambda cut: _youden(targets, score, cut))
    ours = metrics.youden_threshold(targets, score)
    assert ours is not None and _youden(targets, score, ours) == pytest.approx(_youden(targets, score, best))
    assert metrics.youden_threshold(np.array([0, 1]), np.array([0.2, 0.6])) == pytest.approx(0.4)


def _youden(targets: np.ndarray, score: np.ndarray, cut: float) -> float:
    return float((score[targets == 1] > cut).mean() + (score[targets == 0] <= cut).mean() - 1)


def test_bootstrap_against_a_plain_loop_over_the_same_draws() -> None:
    targets, p = _problem(30, 2, 5, ties=True)
    weights = draw_weights(targets, 300, seed=7)
    assert (weights.sum(1) == 30).all() and (weights[:, targets == 1].sum(1) == (targets == 1).sum()).all()
    slow = []
    for row in weights.astype(int):
        rows = np.repeat(np.arange(30), row)
        slow.append(sk.roc_auc_score(targets[rows], p[rows, 1]))
    found = interval(lambda w: metrics.auroc(targets, p, w), weights, 0.9)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.05, 0.95])), abs=1e-12)
    assert found.value == pytest.approx(sk.roc_auc_score(targets, p[:, 1])) and found.draws == 300
    assert np.array_equal(weights, draw_weights(targets, 300, seed=7))


def test_bootstrap_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).normal(3, 2, 80)
    weights = draw_weights(np.zeros(80, int), 20_000, 0)
    found = interval(lambda w: w @ values / w.sum(1), weights, 0.95)
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.low == pytest.approx(reference.low, abs=0.02) and found.high == pytest.approx(reference.high, abs=0.02)


def test_perfect_separation_says_what_its_interval_means() -> None:
    targets = np.array([0, 0, 1, 1])
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    found = interval(lambda w: metrics.auroc(targets, p, w), draw_weights(targets, 100, 0), 0.95)
    assert (found.low, found.high) == (1, 1) and "same value" in (found.note or "")


def test_curves_equal_scikit_learn() -> None:
    targets, p = _problem(40, 2, 2, ties=True)
    positive, score = targets == 1, p[:, 1]
    fpr, tpr, _ = sk.roc_curve(targets, score, drop_intermediate=False)
    ours = roc(positive, score)
    assert ours.x == pytest.approx(list(fpr)) and ours.y == pytest.approx(list(tpr))
    precision, recall, _ = sk.precision_recall_curve(targets, score)
    ours = precision_recall(positive, score)
    assert ours.x[1:] == pytest.approx(list(recall[::-1][1:])) and ours.y[1:] == pytest.approx(
        list(precision[::-1][1:])
    )
    points = reliability(positive, score, bins=4)
    assert points.count is not None and sum(points.count) == 40 and points.x == sorted(points.x)


def _predictions(seed: int = 0, seeds: tuple[int, ...] = (0, 1)) -> Predictions:
    """Two folds; on validation the right threshold is high, on test a low one would look better."""
    rng = np.random.default_rng(seed)
    parts = []
    for fold in range(2):
        for role in ("val", "test"):
            n = 12
            targets = np.arange(n) % 2
            for model in seeds:
                score = np.clip(
                    0.3 + 0.4 * targets + rng.normal(0, 0.15, n) + (0.2 if role == "val" else 0), 0.01, 0.99
                )
                p = np.stack([1 - score, score], 1)
                names = [f"{role}{fold}-{i}" for i in range(n)]
                labels = [("no", "yes")[t] for t in targets]
                parts.append(Predictions.of(("no", "yes"), names, labels, np.log(p), p, (fold, model, role)))
    return Predictions.concatenate(parts)


def test_threshold_comes_from_validation_and_patients_are_pooled() -> None:
    predictions = _predictions()
    found = evaluate_predictions(predictions, SETTINGS)
    val, test = predictions.pooled("val"), predictions.pooled("test")
    for fold, threshold in found.thresholds.items():
        rows = val.folds == fold
        assert threshold == metrics.youden_threshold(val.targets[rows], val.probabilities[rows, 1])
    assert found.patients == {"no": 12, "yes": 12} and set(found.folds) == {0, 1}
    assert found.metrics["AUROC"].value == pytest.approx(sk.roc_auc_score(test.targets, test.probabilities[:, 1]))
    predicted = test.probabilities[:, 1] > np.array([found.thresholds[int(fold)] for fold in test.folds])
    assert found.metrics["sensitivity"].value == pytest.approx(sk.recall_score(test.targets, predicted))
    assert np.sum(found.confusion) == 24

    # other test probabilities leave the thresholds where they are
    table = predictions.table.copy()
    table.loc[table["role"] == "test", "p_yes"] = 0.123
    assert evaluate_predictions(Predictions(predictions.classes, table), SETTINGS).thresholds == found.thresholds


def test_evaluation_round_trip_and_determinism() -> None:
    found = evaluate_predictions(_predictions(), SETTINGS)
    again = Evaluation.from_dict(found.to_dict())
    assert again.to_dict() == found.to_dict() == evaluate_predictions(_predictions(), SETTINGS).to_dict()
    assert again.metrics["AUROC"] == found.metrics["AUROC"] and again.curves["roc"] == found.curves["roc"]


def test_seeds_are_averaged_per_patient() -> None:
    predictions = _predictions(seeds=(0, 1, 2))
    pool = predictions.pooled("test")
    assert len(pool.patients) == 24
    rows = predictions.table[predictions.table["patient_id"] == pool.patients[3]]
    assert len(rows) == 3 and pool.probabilities[3, 1] == pytest.approx(rows["p_yes"].mean())


def test_predictions_file(tmp_path: Path) -> None:
    predictions = _predictions()
    predictions.write(tmp_path / "p.csv")
    again = Predictions.read(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(again.table, predictions.table, check_exact=True)
    assert again.classes == ("no", "yes")
    for text, message in [
        ("a,b\n1,2\n", "it lacks patient_id"),
        ("patient_id,fold,seed,role,target,p_a,p_b,logit_a,logit_b\nP,0,0,test,a,x,1,0,0\n", "isn't a number"),
        ("patient_id,fold,seed,role,target,p_a,p_b,logit_a,logit_b\nP,0,0,test,a,inf,1,0,0\n", "isn't finite"),
    ]:
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(StoreError, match=message):
            Predictions.read(tmp_path / "bad.csv")


def test_colour_baseline_against_doing_it_by_hand() -> None:
    rng = np.random.default_rng(0)
    names = [f"P{i:02d}" for i in range(30)]
    labels = {name: "no" if i % 2 else "yes" for i, name in enumerate(names)}
    colour = {name: (rng.normal(size=6) + (labels[name] == "yes")).tolist() for name in names}
    rows = [(0, name, ("train", "train", "val", "test")[i % 4]) for i, name in enumerate(names)]
    splits = pd.DataFrame(rows, columns=["fold", "patient_id", "role"])
    found = colour_baseline(colour, labels, ("no", "yes"), splits)
    train = [name for _, name, role in rows if role == "train"]
    x = np.array([colour[name] for name in train])
    mean, std = x.mean(0), x.std(0)
    model = LogisticRegression(max_iter=10_000).fit((x - mean) / std, [labels[name] for name in train])
    test = found.table[found.table["role"] == "test"]
    by_hand = model.predict_proba((np.array([colour[p] for p in test["patient_id"]]) - mean) / std)[:, 1]
    assert test["p_yes"].tolist() == pytest.approx(by_hand.tolist(), abs=1e-6)
    assert set(found.table["role"]) == {"val", "test"}
