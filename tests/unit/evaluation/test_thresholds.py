"""Thresholds for a wanted sensitivity or specificity: every cut tried, ties, and what can't be had."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from pathpipe.evaluation.thresholds import predictive_values, sensitivity, specificity, threshold_for


def _rates(targets: np.ndarray, called: np.ndarray) -> tuple[float, float]:
    return called[targets == 1].mean(), (~called[targets == 0]).mean()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 1.0])
def test_no_other_cut_does_better(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    targets = np.r_[0, 1, rng.integers(0, 2, 30)]
    score = np.round(rng.normal(targets * 0.7), 1)
    tried = [_rates(targets, score > cut) for cut in np.r_[-np.inf, np.unique(score)]]
    for wanted, other in (("sensitivity", 1), ("specificity", 0)):
        found = threshold_for(targets, score, wanted, level)  # type: ignore[arg-type]
        rates = _rates(targets, score > found.value)
        assert rates == pytest.approx((found.sensitivity, found.specificity), abs=1e-12)
        assert rates[1 - other] >= level - 1e-12
        assert rates[other] == pytest.approx(max(r[other] for r in tried if r[1 - other] >= level - 1e-12))
        assert not np.isin(found.value, score) and found.note is None


def test_by_hand() -> None:
    targets, score = np.array([0, 0, 1, 0, 1]), np.array([0.1, 0.2, 0.4, 0.6, 0.8])
    all_found = threshold_for(targets, score, "sensitivity", 0.9)
    assert all_found.value == pytest.approx(0.3) and all_found.specificity == pytest.approx(2 / 3)
    none_wrong = threshold_for(targets, score, "specificity", 0.9)
    assert none_wrong.value == pytest.approx(0.7) and none_wrong.sensitivity == 0.5


def test_what_can_not_be_chosen_has_a_reason() -> None:
    one_class = threshold_for(np.ones(3, np.int64), np.arange(3.0), "sensitivity", 0.9)
    assert np.isnan(one_class.value) and one_class.note is not None and "absent" in one_class.note
    assert np.isnan(threshold_for(np.zeros(0, np.int64), np.zeros(0), "sensitivity", 0.9).value)
    alike = threshold_for(np.array([0, 1]), np.array([0.3, 0.3]), "sensitivity", 0.9)
    assert (alike.sensitivity, alike.specificity) == (1, 0) and alike.note is not None and "equal" in alike.note


def test_refuses_levels_and_targets() -> None:
    for level in (0.0, 1.1):
        with pytest.raises(ValueError, match="must lie above 0"):
            threshold_for(np.array([0, 1]), np.array([0.3, 0.4]), "sensitivity", level)
    with pytest.raises(ValueError, match="0 and 1"):
        threshold_for(np.array([0, 2]), np.array([0.3, 0.4]), "sensitivity", 0.9)


def test_rates_equal_scikit_learn_on_counts() -> None:
    rng = np.random.default_rng(0)
    targets, called = rng.integers(0, 2, 40), rng.random(40) < 0.5
    weights = rng.integers(0, 4, (5, 40)).astype(float)
    ppv, npv = predictive_values(targets, called, weights)
    for row, w in enumerate(weights):
        assert sensitivity(targets, called, weights)[row] == pytest.approx(
            recall_score(targets, called, sample_weight=w)
        )
        expected = recall_score(1 - targets, ~called, sample_weight=w)
        assert specificity(targets, called, weights)[row] == pytest.approx(expected)
        assert ppv[row] == pytest.approx(precision_score(targets, called, sample_weight=w))
        assert npv[row] == pytest.approx(precision_score(1 - targets, ~called, sample_weight=w))


def test_rates_of_an_absent_class_are_nan() -> None:
    ones, called = np.ones(3, np.int64), np.array([True, True, True])
    assert np.isnan(specificity(ones, called, np.ones((1, 3)))[0])
    assert np.isnan(sensitivity(1 - ones, called, np.ones((1, 3)))[0])
    assert np.isnan(predictive_values(ones, called, np.ones((1, 3)))[1][0])
