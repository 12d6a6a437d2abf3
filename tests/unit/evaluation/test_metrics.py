"""Metrics against scikit-learn: ties, weights, more than two classes, an absent class."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn
from sklearn.exceptions import UndefinedMetricWarning

from pathpipe.evaluation import metrics


def _case(seed: int, classes: int, patients: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities with many ties, and bootstrap-like counts (5, P) in which every class occurs."""
    rng = np.random.default_rng(seed)
    targets = np.r_[np.arange(classes), rng.integers(0, classes, patients - classes)]
    rows = rng.dirichlet(np.ones(classes), size=7)  # seven different rows for forty patients
    probabilities = rows[rng.integers(0, 7, patients)]
    weights = rng.integers(0, 4, (5, patients)).astype(float)
    weights[:, :classes] = 1
    return targets, probabilities, weights


def _decided(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(axis=1)


@pytest.mark.parametrize("seed", range(8))
def test_auroc_and_auprc_binary(seed: int) -> None:
    targets, probabilities, weights = _case(seed, 2)
    area = metrics.auroc(targets, probabilities, weights)
    precision = metrics.auprc(targets, probabilities, weights)
    for row, weight in enumerate(weights):
        score = probabilities[:, 1]
        assert area[row] == pytest.approx(sklearn.roc_auc_score(targets, score, sample_weight=weight), abs=1e-12)
        expected = sklearn.average_precision_score(targets, score, sample_weight=weight)
        assert precision[row] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_auroc_and_auprc_are_macro_one_against_rest(seed: int) -> None:
    targets, probabilities, weights = _case(seed, 4)
    one_hot = np.eye(4, dtype=int)[targets]
    area = metrics.auroc(targets, probabilities, weights)
    precision = metrics.auprc(targets, probabilities, weights)
    for row, weight in enumerate(weights):
        expected = sklearn.roc_auc_score(
            targets, probabilities, multi_class="ovr", average="macro", sample_weight=weight
        )
        assert area[row] == pytest.approx(expected, abs=1e-12)
        expected = sklearn.average_precision_score(one_hot, probabilities, average="macro", sample_weight=weight)
        assert precision[row] == pytest.approx(expected, abs=1e-12)


def test_a_tied_pair_counts_half() -> None:
    targets = np.array([0, 0, 1, 1])
    score = np.array([0.1, 0.5, 0.5, 0.9])
    both = np.stack([1 - score, score], axis=1)
    assert metrics.auroc(targets, both, np.ones((1, 4)))[0] == 3.5 / 4
    constant = np.full((4, 2), 0.5)
    assert metrics.auroc(targets, constant, np.ones((1, 4)))[0] == 0.5


def test_a_count_is_the_same_as_repeating_the_patient() -> None:
    targets, probabilities, weights = _case(3, 3)
    for weight in weights:
        repeated = np.repeat(np.arange(len(targets)), weight.astype(int))
        ones = np.ones((1, len(repeated)))
        for one in (metrics.auroc, metrics.auprc, metrics.brier, metrics.log_loss):
            by_weight = one(targets, probabilities, weight[None])[0]
            assert by_weight == pytest.approx(one(targets[repeated], probabilities[repeated], ones)[0], abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_decisions(classes: int) -> None:
    targets, probabilities, weights = _case(11, classes)
    predicted = _decided(probabilities)
    recall = metrics.recalls(targets, predicted, weights, classes)
    for row, w in enumerate(weights):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            pairs = [
                (
                    metrics.accuracy(targets, predicted, weights)[row],
                    sklearn.accuracy_score(targets, predicted, sample_weight=w),
                ),
                (
                    metrics.balanced_accuracy(targets, predicted, weights, classes)[row],
                    sklearn.balanced_accuracy_score(targets, predicted, sample_weight=w),
                ),
                (
                    metrics.f1_macro(targets, predicted, weights, classes)[row],
                    sklearn.f1_score(targets, predicted, average="macro", sample_weight=w),
                ),
            ]
        for ours, theirs in pairs:
            assert ours == pytest.approx(theirs, abs=1e-12)
        expected = sklearn.recall_score(targets, predicted, average=None, sample_weight=w)
        np.testing.assert_allclose(recall[row], expected, atol=1e-12)
    np.testing.assert_array_equal(
        metrics.confusion(targets, predicted, classes), sklearn.confusion_matrix(targets, predicted)
    )


def test_brier_and_log_loss() -> None:
    targets, probabilities, weights = _case(5, 2)
    for row, w in enumerate(weights):
        expected = sklearn.brier_score_loss(targets, probabilities[:, 1], sample_weight=w)
        assert metrics.brier(targets, probabilities, weights)[row] == pytest.approx(expected, abs=1e-12)
        expected = sklearn.log_loss(targets, probabilities, sample_weight=w)
        assert metrics.log_loss(targets, probabilities, weights)[row] == pytest.approx(expected, abs=1e-12)
    targets, probabilities, weights = _case(6, 3)
    slow = sum((probabilities[i, c] - (targets[i] == c)) ** 2 for i in range(len(targets)) for c in range(3))
    whole = np.ones((1, len(targets)))
    assert metrics.brier(targets, probabilities, whole)[0] == pytest.approx(slow / len(targets), abs=1e-12)


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    value = metrics.log_loss(np.array([1]), np.array([[1.0, 0.0]]), np.ones((1, 1)))[0]
    assert value == pytest.approx(-np.log(1e-15))


def test_an_absent_class_gives_nan_and_no_crash() -> None:
    targets, whole = np.zeros(6, np.int64), np.ones((1, 6))
    probabilities = np.tile([[0.3, 0.7], [0.6, 0.4]], (3, 1))
    predicted = _decided(probabilities)
    assert np.isnan(metrics.auroc(targets, probabilities, whole)[0])
    assert np.isnan(metrics.auprc(targets, probabilities, whole)[0])
    assert np.isnan(metrics.balanced_accuracy(targets, predicted, whole, 2)[0])
    recall = metrics.recalls(targets, predicted, whole, 2)[0]
    assert recall[0] == 0.5 and np.isnan(recall[1])
    assert metrics.accuracy(targets, predicted, whole)[0] == 0.5
    assert metrics.brier(targets, probabilities, whole)[0] == pytest.approx((0.49 + 0.16) / 2)


def test_only_draws_without_a_class_are_nan() -> None:
    targets, probabilities, _ = _case(2, 3, 12)
    weights = np.ones((3, 12))
    weights[1, targets == 2] = 0
    assert np.isnan(metrics.auroc(targets, probabilities, weights)).tolist() == [False, True, False]


@pytest.mark.parametrize("seed", range(10))
def test_youden_threshold_has_the_best_sum_that_the_roc_curve_offers(seed: int) -> None:
    targets, probabilities, _ = _case(seed, 2, 25)
    score = probabilities[:, 1]
    threshold = metrics.youden_threshold(targets, score)
    assert threshold is not None
    above = score > threshold
    gain = above[targets == 1].mean() - above[targets == 0].mean()
    false, true, _ = sklearn.roc_curve(targets, score)
    assert gain == pytest.approx((true - false).max(), abs=1e-12)


def test_youden_threshold_lies_midway_and_prefers_the_one_nearest_to_a_half() -> None:
    targets = np.array([0, 0, 1, 1])
    assert metrics.youden_threshold(targets, np.array([0.1, 0.2, 0.8, 0.9])) == 0.5
    assert metrics.youden_threshold(targets, np.array([0.1, 0.2, 0.3, 0.9])) == pytest.approx(0.25)
    # cuts at .15 and at .65 separate equally well: .65 is nearer to .5
    tied = metrics.youden_threshold(np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.6, 0.7]))
    assert tied == pytest.approx(0.65)


def test_youden_threshold_needs_both_classes() -> None:
    assert metrics.youden_threshold(np.ones(4, np.int64), np.linspace(0, 1, 4)) is None
    assert metrics.youden_threshold(np.zeros(0, np.int64), np.zeros(0)) is None
