"""Numbers on confounding, against scipy, statsmodels and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.stats.contingency import association

from pathpipe.training import confounding
from pathpipe.training.confounding import class_association, martingale_residuals, mean_association, recognised


def _column(codes: np.ndarray, letter: str) -> list[str]:
    return [f"{letter}{code}" for code in codes]


def test_cramers_v_is_scipys_but_for_the_correction() -> None:
    rng = np.random.default_rng(0)
    site = rng.integers(0, 3, 20_000)
    label = np.where(rng.random(20_000) < 0.4, site % 2, rng.integers(0, 2, 20_000))
    found = class_association(_column(label, "c"), _column(site, "s"), 0)
    table = stats.contingency.crosstab(label, site).count
    assert found is not None
    assert found.value == pytest.approx(association(table, method="cramer"), abs=1e-3)
    assert (found.p, found.patients) == (1 / 2000, 20_000)


def test_cramers_v_of_a_small_table_by_hand() -> None:
    # 10 patients, 2 x 2 table [[4, 1], [1, 4]]: chi2 = 3.6; phi2 = .36 - 1/9; rows and columns shrink to 2 - 1/9
    first, second = list("aaaaabbbbb"), list("xxxxyxyyyy")
    found = class_association(first, second, 0)
    assert found is not None
    assert found.value == pytest.approx(np.sqrt((0.36 - 1 / 9) / (1 - 1 / 9)))
    assert found.p == pytest.approx(stats.fisher_exact([[4, 1], [1, 4]]).pvalue, abs=0.03)


def test_unknown_values_don_t_count_and_one_value_says_nothing() -> None:
    found = class_association(["a", "b", "", "a", "b"], ["x", "y", "x", "", "y"], 0)
    assert found is not None and found.patients == 3
    assert class_association(["a", "a"], ["x", "y"], 0) is None
    assert mean_association(np.array([1.0, 2.0]), ["x", "x"], 0) is None
    assert mean_association(np.array([2.0, 2.0]), ["x", "y"], 0) is None
    assert recognised(np.zeros((9, 2)), list("aaaaabbbb"), 0) is None


def test_eta_squared_is_that_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(1)
    site = rng.integers(0, 4, 120)
    scores = rng.normal(size=120) + 0.25 * site
    found = mean_association(scores, _column(site, "s"), 0)
    groups = [scores[site == code] for code in range(4)]
    f = stats.f_oneway(*groups)
    assert found is not None
    assert found.value == pytest.approx(f.statistic * 3 / (f.statistic * 3 + 116))
    assert found.p == pytest.approx(f.pvalue, abs=0.02)


def test_residuals_add_up_to_the_log_rank_test() -> None:
    rng = np.random.default_rng(2)
    times = np.ceil(rng.exponential(10, 80))  # with ties
    events, group = rng.random(80) < 0.7, rng.integers(0, 2, 80)
    residuals = martingale_residuals(times, events)
    expected = 0.0  # observed minus expected events of group 1, time by time
    for time in np.unique(times[events]):
        risk = times >= time
        deaths = events & (times == time)
        expected += (deaths & (group == 1)).sum() - deaths.sum() * (risk & (group == 1)).sum() / risk.sum()
    assert residuals[group == 1].sum() == pytest.approx(expected)
    assert residuals.sum() == pytest.approx(0, abs=1e-9)
    tested = stats.logrank(
        stats.CensoredData.right_censored(times[group == 0], ~events[group == 0]),
        stats.CensoredData.right_censored(times[group == 1], ~events[group == 1]),
    )
    found = mean_association(residuals, _column(group, "s"), 0)
    assert found is not None and found.p == pytest.approx(tested.pvalue, abs=0.05)


def test_a_site_is_recognised_from_patients_not_seen() -> None:
    rng = np.random.default_rng(3)
    site = rng.permutation(np.repeat([0, 1, 2], [40, 20, 10]))
    means = rng.normal(size=(70, 16))
    chance = recognised(means, _column(site, "s"), 0)
    means[np.arange(70), site] += 5
    told = recognised(means, _column(site, "s"), 0)
    assert chance is not None and told is not None
    assert chance.low <= chance.chance == 1 / 3 <= chance.high
    assert told.accuracy > 0.95 and 0.75 < told.low < told.accuracy and told.values == 3
    assert recognised(means, _column(site, "s"), 0) == told


def test_rare_values_stay_out_and_large_cohorts_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    site = np.repeat([0, 1, 2], [60, 30, 4])
    monkeypatch.setattr(confounding, "_MOST", 30)
    told = recognised(rng.normal(size=(94, 4)), ["" if code == 9 else f"s{code}" for code in site], 0)
    assert told is not None and (told.values, told.patients) == (2, 30)
