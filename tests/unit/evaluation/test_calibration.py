"""Calibration: statsmodels on repeated patients, bins by a loop, Wilson's interval, and what can't be calibrated."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from statsmodels.stats.proportion import proportion_confint

from pathpipe.evaluation import calibration


def _case(seed: int, patients: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, overconfident scores with ties, and bootstrap-like counts (4, P)."""
    rng = np.random.default_rng(seed)
    odds = np.round(rng.normal(0.3, 1.2, patients), 1)
    outcome = (rng.random(patients) < expit(0.6 * odds - 0.4)).astype(np.int64)
    return outcome, expit(odds), rng.integers(0, 4, (4, patients)).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_intercept_and_slope_equal_statsmodels(seed: int) -> None:
    outcome, score, weights = _case(seed)
    intercept = calibration.calibration_intercept(outcome, score, weights)
    slope = calibration.calibration_slope(outcome, score, weights)
    for row, w in enumerate(weights):
        index = np.repeat(np.arange(len(score)), w.astype(int))
        y, odds, binomial = outcome[index], logit(score[index]), sm.families.Binomial()
        alone = sm.GLM(y, np.ones(len(y)), family=binomial, offset=odds).fit(tol=1e-12)
        assert intercept[row] == pytest.approx(alone.params[0], abs=1e-8)
        line = sm.GLM(y, sm.add_constant(odds), family=binomial).fit(tol=1e-12)
        assert slope[row] == pytest.approx(line.params[1], abs=1e-8)


def test_intercept_makes_as_many_outcomes_as_predicted() -> None:
    outcome, score, _ = _case(9)
    added = calibration.calibration_intercept(outcome, score, np.ones((1, 60)))[0]
    assert expit(logit(score) + added).sum() == pytest.approx(outcome.sum(), abs=1e-8)


def test_a_slope_far_from_1_is_found() -> None:
    outcome, score, _ = _case(2, 300)
    whole = np.ones((1, 300))
    plain = calibration.calibration_slope(outcome, score, whole)[0]
    for factor in (0.01, 0.2, 5.0):
        stretched = calibration.calibration_slope(outcome, expit(factor * logit(score)), whole)[0]
        assert stretched == pytest.approx(plain / factor, rel=1e-5)


def test_undefined_intercept_and_slope_are_nan() -> None:
    score, whole = np.array([0.1, 0.4, 0.6, 0.9]), np.ones((1, 4))
    for outcome in (np.zeros(4, np.int64), np.ones(4, np.int64)):
        assert np.isnan(calibration.calibration_intercept(outcome, score, whole)[0])
        assert np.isnan(calibration.calibration_slope(outcome, score, whole)[0])
    apart = np.array([0, 0, 1, 1])
    assert np.isnan(calibration.calibration_slope(apart, score, whole)[0])  # separated: no finite slope
    assert np.isfinite(calibration.calibration_intercept(apart, score, whole)[0])
    assert np.isnan(calibration.calibration_slope(np.array([0, 1, 0, 1]), np.full(4, 0.3), whole)[0])
    mixed, draws = np.array([0, 1, 0, 1]), np.array([[1.0, 1, 1, 1], [1, 0, 1, 0], [0, 2, 2, 0], [2, 1, 1, 1]])
    assert np.isnan(calibration.calibration_slope(mixed, score, draws)).tolist() == [False, True, True, False]
    assert np.isnan(calibration.calibration_intercept(mixed, score, draws)).tolist() == [False, True, False, False]
    certain = np.array([0.0, 1.0, 0.4, 0.6])
    assert np.isfinite(calibration.calibration_slope(np.array([0, 1, 1, 0]), certain, whole)[0])


@pytest.mark.parametrize("seed", range(4))
def test_ece_equals_a_loop_over_bins(seed: int) -> None:
    outcome, score, weights = _case(seed)
    bin_of = np.ceil(score * 10).clip(1).astype(np.int64) - 1
    found = calibration.expected_calibration_error(outcome, score, weights, bin_of)
    for row, w in enumerate(weights):
        total = 0.0
        for at in range(10):
            inside = (score > at / 10) & (score <= (at + 1) / 10)
            if w[inside].sum():
                gap = np.average(outcome[inside], weights=w[inside]) - np.average(score[inside], weights=w[inside])
                total += w[inside].sum() / w.sum() * abs(gap)
        assert found[row] == pytest.approx(total, abs=1e-12)


def test_bins() -> None:
    assert np.bincount(calibration.equal_mass_bins(np.arange(12) / 12, 4)).tolist() == [3, 3, 3, 3]
    tied = np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.1])
    bins = calibration.equal_mass_bins(tied, 3)
    assert len(set(bins[:4])) == 1 and bins[4] > bins[0] >= bins[5]
    shuffled = np.random.default_rng(0).permutation(6)
    np.testing.assert_array_equal(calibration.equal_mass_bins(tied[shuffled], 3), bins[shuffled])
    assert set(calibration.equal_mass_bins(np.full(5, 0.3), 4)) == {0}
    assert len(calibration.equal_mass_bins(np.zeros(0), 4)) == 0


def test_reliability_has_wilsons_interval() -> None:
    outcome, score, _ = _case(3)
    found = calibration.reliability_bins(outcome, score, calibration.equal_mass_bins(score, 6), 0.9)
    hits = found.observed * found.count
    low, high = proportion_confint(hits.round(), found.count, 0.1, method="wilson")
    np.testing.assert_allclose(found.low, low, atol=1e-12)
    np.testing.assert_allclose(found.high, high, atol=1e-12)
    assert found.count.sum() == 60 and hits.sum() == pytest.approx(outcome.sum())
    assert (found.predicted * found.count).sum() == pytest.approx(score.sum())
    assert (np.diff(found.predicted) > 0).all()
    empty_between = calibration.reliability_bins(np.array([0, 1]), np.array([0.05, 0.95]), np.array([0, 9]))
    assert empty_between.predicted.tolist() == [0.05, 0.95] and empty_between.high[0] < 1


def test_wilson_at_the_ends() -> None:
    low, high = calibration.wilson(np.array([0.0, 10, 0]), np.array([10.0, 10, 0]), 0.95)
    assert low[0] == pytest.approx(0, abs=1e-12) and high[0] == pytest.approx(0.2775, abs=5e-5)  # published example
    assert high[1] == pytest.approx(1) and np.isnan([low[2], high[2]]).all()


def test_top_label() -> None:
    right, confidence = calibration.top_label(np.array([0, 2]), np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]))
    assert right.tolist() == [1, 0] and confidence.tolist() == [0.5, 0.6]


def test_refuses_what_is_no_probability() -> None:
    outcome, whole = np.array([0, 1]), np.ones((1, 2))
    for bad in (np.array([0.2, 1.2]), np.array([-0.1, 0.5]), np.array([np.nan, 0.5])):
        with pytest.raises(ValueError, match="probabilities"):
            calibration.calibration_slope(outcome, bad, whole)
        with pytest.raises(ValueError, match="probabilities"):
            calibration.equal_mass_bins(bad, 5)
    with pytest.raises(ValueError, match="at least one bin"):
        calibration.equal_mass_bins(np.array([0.5]), 0)
    with pytest.raises(ValueError, match="0 and 1"):
        calibration.calibration_slope(np.array([0, 2]), np.array([0.2, 0.4]), whole)
