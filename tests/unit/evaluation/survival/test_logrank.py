"""The log-rank test: published, lifelines, statsmodels with and without strata, and where there is nothing to test."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.duration.survfunc import survdiff

from pathpipe.evaluation.survival.logrank import log_rank
from tests.unit.evaluation.survival.data import PEERS, PLACEBO, RELAPSE, WEEKS, cohort, of_peers


def test_leukaemia_trial_as_published() -> None:
    found = log_rank(WEEKS, RELAPSE, np.where(PLACEBO, "placebo", "6-MP"))
    assert found.groups == ("6-MP", "placebo")
    assert found.observed.tolist() == [9, 21]
    np.testing.assert_allclose(found.expected, [19.25, 10.75], atol=5e-3)  # R, survdiff(Surv(weeks, relapse) ~ drug)
    assert found.chi2 == pytest.approx(16.793, abs=5e-4)  # Kleinbaum & Klein, table 2.4
    assert found.p == pytest.approx(4.17e-5, rel=2e-3)
    assert (found.freedom, found.note) == (1, None)


def test_three_groups_equal_lifelines() -> None:
    time, event, _, group, _ = of_peers("crossed")
    found, theirs = log_rank(time, event, group), PEERS["lifelines"]["log_rank"]
    assert found.freedom == 2
    assert found.chi2 == pytest.approx(theirs["chi2"], abs=1e-10)
    assert found.p == pytest.approx(theirs["p"], abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("groups", [2, 4])
def test_equals_statsmodels_with_and_without_strata(seed: int, groups: int) -> None:
    time, event, _ = cohort(seed, 60)
    rng = np.random.default_rng(seed)
    group, strata = rng.integers(0, groups, 60), rng.integers(0, 3, 60)
    for ours, theirs in (
        (log_rank(time, event, group), survdiff(time, event, group)),
        (log_rank(time, event, group, strata), survdiff(time, event, group, strata=strata)),
    ):
        assert ours.chi2 == pytest.approx(theirs[0], rel=1e-9)
        assert ours.p == pytest.approx(theirs[1], rel=1e-8)
        assert ours.observed.sum() == pytest.approx(ours.expected.sum(), abs=1e-9)


def test_what_can_not_be_tested_has_a_reason() -> None:
    time = np.array([1.0, 2, 3, 4])
    two = np.array(["a", "a", "b", "b"])
    for found, why in (
        (log_rank(time, np.zeros(4, bool), two), "censored"),
        (log_rank(time, np.ones(4, bool), np.zeros(4)), "one group"),
        (log_rank(time, np.array([1, 1, 0, 0], bool), two, strata=two), "never at risk"),
        (log_rank(np.zeros(0), np.zeros(0, bool), np.zeros(0)), "one group"),
    ):
        assert np.isnan(found.chi2) and np.isnan(found.p)
        assert found.note is not None and why in found.note


def test_a_group_that_is_never_at_risk_costs_a_degree_of_freedom() -> None:
    time = np.array([0.5, 1, 2, 3, 4])
    event = np.array([0, 1, 1, 1, 0], bool)
    with_it = log_rank(time, event, np.array(["gone", "a", "b", "a", "b"]))
    without = log_rank(time[1:], event[1:], np.array(["a", "b", "a", "b"]))
    assert with_it.freedom == without.freedom == 1
    assert with_it.chi2 == pytest.approx(without.chi2, abs=1e-12)
    assert with_it.expected[2] == 0


def test_refuses_a_group_of_another_length() -> None:
    with pytest.raises(ValueError, match="`group`"):
        log_rank(np.ones(3), np.ones(3, bool), np.ones(2))
