"""Tests on a few numbers: statsmodels, scipy, by hand, and what can't be tested."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from pathpipe.evaluation.comparison.significance import corrected_t_test, holm


def test_corrected_t_by_hand() -> None:
    differences = np.array([0.02, 0.05, 0.01, 0.04, 0.03])  # mean 0.03, variance 0.00025
    found = corrected_t_test(differences, share_tested=1 / 4)
    error = np.sqrt((1 / 5 + 1 / 4) * 0.00025)
    assert found.difference == pytest.approx(0.03)
    assert (found.t, found.freedom) == (pytest.approx(0.03 / error), 4)
    assert found.p == pytest.approx(2 * student.sf(0.03 / error, 4), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((0.03 - 2.7764451 * error, 0.03 + 2.7764451 * error))


def test_without_correction_it_is_the_plain_t_test() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, 12)
    found, plain = corrected_t_test(differences, share_tested=1e-12), ttest_1samp(differences, 0)
    assert (found.t, found.p) == pytest.approx((plain.statistic, plain.pvalue), rel=1e-9)
    assert abs(corrected_t_test(differences, share_tested=0.25).t) < abs(found.t)


def test_folds_without_a_value() -> None:
    some = corrected_t_test(np.array([0.1, np.nan, 0.3]), 0.5)
    assert some.note == "1 of 3 folds have no value" and some.freedom == 1 and some.difference == pytest.approx(0.2)
    assert some.t == pytest.approx(corrected_t_test(np.array([0.1, 0.3]), 0.5).t)
    for bad, why in (([0.1, np.nan], "two folds"), ([], "two folds"), ([0.1, 0.1, 0.1], "same in all")):
        found = corrected_t_test(np.array(bad, float), 0.5)
        assert np.isnan(found.t) and np.isnan(found.p) and why in (found.note or "")
    with pytest.raises(ValueError, match="above 0"):
        corrected_t_test(np.ones(3), 0.0)


@pytest.mark.parametrize("many", [1, 2, 5, 12])
def test_holm_equals_statsmodels(many: int) -> None:
    rng = np.random.default_rng(many)
    for p in (rng.random(many), np.round(rng.random(many) ** 3, 1), np.zeros(many)):
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_passes_over_nan() -> None:
    found = holm(np.array([0.01, np.nan, 0.04, 0.03]))
    assert found[[0, 2, 3]].tolist() == pytest.approx([0.03, 0.06, 0.06]) and np.isnan(found[1])
    assert len(holm(np.zeros(0))) == 0
