"""Kaplan-Meier: a published table, lifelines' numbers, statsmodels, a slow product, and data without events."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.duration.survfunc import SurvfuncRight

from pathpipe.evaluation.survival.kaplan_meier import kaplan_meier, weighted_survival
from tests.unit.evaluation.survival.data import MP_RELAPSE, MP_WEEKS, PEERS, PLACEBO_WEEKS, cohort, draws, of_peers


def test_leukaemia_trial_as_published() -> None:
    found = kaplan_meier(MP_WEEKS, MP_RELAPSE)
    # Kleinbaum & Klein, Survival Analysis, table 2.1 (weeks of relapse)
    weeks = np.array([6, 7, 10, 13, 16, 22, 23])
    np.testing.assert_allclose(found.at(weeks), [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482], atol=5e-5)
    assert found.median == 23
    assert (found.events.sum(), found.censored.sum()) == (9, 12)
    assert kaplan_meier(PLACEBO_WEEKS, np.ones(21, bool)).median == 8


def test_equals_lifelines_with_its_interval_and_median() -> None:
    time, event, *_ = of_peers("crossed")
    found, theirs = kaplan_meier(time, event), PEERS["lifelines"]["kaplan_meier"]
    np.testing.assert_array_equal(found.time, theirs["time"])
    np.testing.assert_allclose(found.survival, theirs["survival"], atol=1e-12)
    np.testing.assert_allclose(found.low, theirs["low"], atol=1e-12)
    np.testing.assert_allclose(found.high, theirs["high"], atol=1e-12)
    assert found.median == theirs["median"]
    assert found.median_low == theirs["median_low"]
    expected = theirs["median_high"]
    assert np.isnan(found.median_high) if np.isinf(expected) else found.median_high == expected


@pytest.mark.parametrize("seed", range(6))
def test_equals_statsmodels(seed: int) -> None:
    time, event, _ = cohort(seed)
    found, theirs = kaplan_meier(time, event, 0.9), SurvfuncRight(time, event.astype(int))
    at = found.events > 0
    np.testing.assert_array_equal(found.time[at], theirs.surv_times)
    np.testing.assert_allclose(found.survival[at], theirs.surv_prob, atol=1e-12)
    np.testing.assert_array_equal(found.at_risk[at], theirs.n_risk)
    inner = at & (found.survival > 0)
    error = theirs.surv_prob_se[theirs.surv_prob > 0] / theirs.surv_prob[theirs.surv_prob > 0]
    log_survival = np.log(found.survival[inner])
    width = 1.6448536269514722 * error / np.abs(log_survival)
    np.testing.assert_allclose(found.low[inner], np.exp(log_survival * np.exp(width)), atol=1e-12)
    np.testing.assert_allclose(found.high[inner], np.exp(log_survival * np.exp(-width)), atol=1e-12)


def test_median_at_exactly_a_half_is_that_time() -> None:
    # 2/3 x 3/4 is 1/2 on paper
    assert kaplan_meier(np.array([1.0, 1, 2, 3, 3, 3]), np.array([1, 1, 1, 0, 0, 0], bool)).median == 2


def test_bounds_at_1_and_at_0() -> None:
    found = kaplan_meier(np.array([1.0, 2, 3]), np.array([False, True, True]))
    assert (found.survival[0], found.low[0], found.high[0]) == (1, 1, 1)
    assert found.survival[-1] == 0 and np.isnan(found.low[-1]) and np.isnan(found.high[-1])


def test_after_the_last_patient_nothing_is_known_unless_all_had_the_event() -> None:
    censored_last = kaplan_meier(np.array([1.0, 2.0]), np.array([True, False]))
    assert censored_last.at([0.5, 1, 2]).tolist() == [1, 0.5, 0.5] and np.isnan(censored_last.at(2.1))
    assert kaplan_meier(np.array([1.0, 2.0]), np.array([True, True])).at(9.0) == 0


def test_all_censored_and_nobody_have_a_reason() -> None:
    found = kaplan_meier(np.array([3.0, 1.0]), np.zeros(2, bool))
    assert found.survival.tolist() == [1, 1] and np.isnan(found.median)
    assert found.note is not None and "censored" in found.note
    nobody = kaplan_meier(np.zeros(0), np.zeros(0, bool))
    assert nobody.note == "there is no patient" and np.isnan(nobody.at([0.0, 1.0])).all()


def test_refuses_what_is_no_time() -> None:
    for bad in (np.array([-1.0, 2]), np.array([np.nan, 2]), np.ones((2, 1))):
        with pytest.raises(ValueError, match="finite numbers"):
            kaplan_meier(bad, np.ones(2, bool))
    with pytest.raises(ValueError, match="one row a patient"):
        kaplan_meier(np.ones(3), np.ones(2, bool))
    with pytest.raises(ValueError, match="0 and 1"):
        kaplan_meier(np.ones(3), np.array([0, 1, 2]))


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_repetitions(seed: int) -> None:
    time, event, _ = cohort(seed)
    weights, times = draws(seed, len(time)), np.array([0.2, 1.0, 2.25, 4.0])
    found = weighted_survival(time, event, weights, times)
    for row, weight in enumerate(weights):
        index = np.repeat(np.arange(len(time)), weight.astype(int))
        again = kaplan_meier(time[index], event[index])
        expected = [np.r_[1, again.survival][np.searchsorted(again.time, t, side="right")] for t in times]
        np.testing.assert_allclose(found[row], expected, atol=1e-12)
