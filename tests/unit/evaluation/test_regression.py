"""Metrics of numbers and of ordered classes: scikit-learn, scipy on repeated patients, and constant values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn import metrics as sklearn

from pathpipe.evaluation import regression
from pathpipe.evaluation.arrays import mid_ranks, ranks, ratio


def _case(seed: int, patients: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and prediction with ties, and bootstrap-like counts (5, P)."""
    rng = np.random.default_rng(seed)
    targets = np.round(rng.normal(60, 10, patients))
    predicted = np.round(0.6 * targets + rng.normal(20, 6, patients))
    return targets, predicted, rng.integers(0, 4, (5, patients)).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_errors_equal_scikit_learn(seed: int) -> None:
    targets, predicted, weights = _case(seed)
    for ours, theirs in (
        (regression.mean_absolute_error, sklearn.mean_absolute_error),
        (regression.root_mean_squared_error, sklearn.root_mean_squared_error),
        (regression.r_squared, sklearn.r2_score),
    ):
        expected = [theirs(targets, predicted, sample_weight=w) for w in weights]
        np.testing.assert_allclose(ours(targets, predicted, weights), expected, rtol=1e-12)
    expected = [np.average(predicted - targets, weights=w) for w in weights]
    np.testing.assert_allclose(regression.mean_error(targets, predicted, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_equal_scipy_on_repeated_patients(seed: int) -> None:
    targets, predicted, weights = _case(seed)
    pearson, spearman = (f(targets, predicted, weights) for f in (regression.pearson, regression.spearman))
    for row, weight in enumerate(weights):
        index = np.repeat(np.arange(len(targets)), weight.astype(int))
        assert pearson[row] == pytest.approx(pearsonr(targets[index], predicted[index]).statistic, abs=1e-12)
        assert spearman[row] == pytest.approx(spearmanr(targets[index], predicted[index]).statistic, abs=1e-12)
        np.testing.assert_allclose(ranks(targets, weight[None])[0][index], rankdata(targets[index]), atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_kappas_equal_scikit_learn(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, 50)
    predicted = np.clip(targets + rng.integers(-1, 2, 50), 0, classes - 1)
    weights = rng.integers(0, 4, (5, 50)).astype(float)
    for ours, name in ((regression.quadratic_kappa, "quadratic"), (regression.linear_kappa, "linear")):
        expected = [sklearn.cohen_kappa_score(targets, predicted, weights=name, sample_weight=w) for w in weights]
        np.testing.assert_allclose(ours(targets, predicted, weights, classes), expected, atol=1e-12)


def test_kappa_by_hand() -> None:
    # squares seen: 0 0 4 -> 4; by chance: truth (1,1,1)/3, said (2,0,1)/3 -> sum of 9 cells of 3 patients
    targets, predicted, whole = np.array([0, 2, 1]), np.array([0, 2, 0]), np.ones((1, 3))
    seen, chance = 1 / 3, (2 * (0 + 1 + 4) + 1 * (4 + 1 + 0)) / 9
    assert regression.quadratic_kappa(targets, predicted, whole, 3)[0] == pytest.approx(1 - seen / chance)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=25))
def test_mid_ranks_are_scipys(values: list[int]) -> None:
    np.testing.assert_array_equal(mid_ranks(np.array(values, float)), rankdata(values))


def test_constant_values_have_no_correlation() -> None:
    targets, whole = np.array([0.1, 0.2, 0.3, 0.7]), np.ones((1, 4))
    for constant in (np.full(4, 0.1), np.zeros(4), np.full(4, 1e9 + 1 / 3)):
        for one in (regression.pearson, regression.spearman):
            assert np.isnan(one(targets, constant, whole)[0])
            assert np.isnan(one(constant, targets, whole)[0])
        assert np.isnan(regression.r_squared(constant, targets, whole)[0])
    assert np.isfinite(regression.r_squared(targets, np.full(4, 0.1), whole)[0])
    # drawn four times the same patient
    drawn = np.array([[0.0, 0, 4, 0], [1, 1, 1, 1]])
    assert np.isnan(regression.pearson(targets, targets**2, drawn)).tolist() == [True, False]
    assert np.isnan(regression.spearman(targets, targets**2, drawn)).tolist() == [True, False]


def test_a_small_spread_far_from_zero_is_no_constant() -> None:
    targets = 1e6 + np.array([0.0, 1, 2, 3]) * 1e-3
    assert regression.pearson(targets, np.array([1.0, 2, 3, 4]), np.ones((1, 4)))[0] == pytest.approx(1, abs=1e-6)


def test_kappa_without_disagreement_by_chance_is_nan() -> None:
    same = np.ones(4, np.int64)
    assert np.isnan(regression.quadratic_kappa(same, same, np.ones((1, 4)), 3)[0])
    assert regression.quadratic_kappa(same, same * 0, np.ones((1, 4)), 3)[0] == 0


def test_refuses_shapes_and_classes_that_are_none() -> None:
    three, whole = np.arange(3.0), np.ones((1, 3))
    with pytest.raises(ValueError, match=r"`targets` \(3,\), `predicted` \(2,\)"):
        regression.pearson(three, three[:2], whole)
    with pytest.raises(ValueError, match="weights must be"):
        regression.mean_absolute_error(three, three, np.ones((1, 4)))
    with pytest.raises(ValueError, match="classes 0 to 1"):
        regression.quadratic_kappa(np.array([0, 1, 2]), np.zeros(3, np.int64), whole, 2)
    assert np.isnan(ratio([1, 2], [0, -1])).all()


def test_calibration_line_is_least_squares_of_repeated_patients() -> None:
    rng = np.random.default_rng(5)
    predicted = rng.normal(40, 9, 30)
    targets = 7 + 0.6 * predicted + rng.normal(size=30)
    weights = np.r_[np.ones((1, 30)), rng.multinomial(30, np.full(30, 1 / 30), size=4)].astype(float)
    slopes = regression.calibration_slope(targets, predicted, weights)
    intercepts = regression.calibration_intercept(targets, predicted, weights)
    for row, slope, intercept in zip(weights.astype(int), slopes, intercepts, strict=True):
        expected = np.polyfit(np.repeat(predicted, row), np.repeat(targets, row), 1)
        np.testing.assert_allclose([slope, intercept], expected, rtol=1e-9)
    flat = regression.calibration_slope(targets, np.full(30, 2.0), weights)
    assert np.isnan(flat).all() and np.isnan(regression.calibration_intercept(targets, np.full(30, 2.0), weights)).all()
