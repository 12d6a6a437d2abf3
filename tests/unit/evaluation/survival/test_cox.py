"""Cox's model: published, lifelines, statsmodels with several covariates and strata, and where there is no fit."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.duration.hazard_regression import PHReg

from pathpipe.evaluation.survival.cox import cox
from tests.unit.evaluation.survival.data import PEERS, PLACEBO, RELAPSE, WEEKS, cohort, of_peers


def test_leukaemia_trial_as_published() -> None:
    fit = cox(WEEKS, RELAPSE, PLACEBO)
    found = fit.covariates[0]
    # R, coxph(Surv(weeks, relapse) ~ placebo), ties by Efron
    assert fit.note is None
    assert found.coefficient == pytest.approx(1.5721, abs=5e-5)
    assert found.error == pytest.approx(0.4124, abs=5e-5)
    assert found.ratio == pytest.approx(4.817, abs=5e-4)
    assert (found.low, found.high) == pytest.approx((2.147, 10.81), rel=5e-4)
    assert found.p == pytest.approx(0.000138, abs=5e-7)
    assert 2 * (fit.log_likelihood - fit.null_log_likelihood) == pytest.approx(16.35, abs=5e-3)


@pytest.mark.parametrize("name", ["plain", "stratified"])
def test_equals_lifelines(name: str) -> None:
    time, event, risk, group, stratum = of_peers("crossed")
    found = cox(time, event, np.c_[risk, group == 1], stratum if name == "stratified" else None)
    theirs = PEERS["lifelines"]["cox"][name]
    for key, attribute in (("coefficients", "coefficient"), ("errors", "error"), ("p", "p"), ("low", "low")):
        np.testing.assert_allclose([getattr(c, attribute) for c in found.covariates], theirs[key], rtol=1e-6)
    np.testing.assert_allclose([c.high for c in found.covariates], theirs["high"], rtol=1e-6)
    assert found.log_likelihood == pytest.approx(theirs["log_likelihood"], abs=1e-8)
    assert found.p == pytest.approx(theirs["likelihood_ratio_p"], rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_equals_statsmodels(seed: int) -> None:
    time, event, risk = cohort(seed, 80)
    rng = np.random.default_rng(seed)
    x, strata = np.c_[risk, rng.normal(1e4, 500, 80), rng.integers(0, 2, 80)], rng.integers(0, 3, 80)
    for ours, theirs in (
        (cox(time, event, x), PHReg(time, x, status=event, ties="efron").fit()),
        (cox(time, event, x, strata), PHReg(time, x, status=event, strata=strata, ties="efron").fit()),
    ):
        np.testing.assert_allclose([c.coefficient for c in ours.covariates], theirs.params, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose([c.error for c in ours.covariates], theirs.bse, rtol=1e-5)
        np.testing.assert_allclose([c.p for c in ours.covariates], theirs.pvalues, rtol=1e-4)
        assert ours.log_likelihood == pytest.approx(theirs.llf, abs=1e-6)


def _slow(beta: float, time: np.ndarray, event: np.ndarray, x: np.ndarray) -> float:
    """Efron's log partial likelihood as it is written."""
    total = 0.0
    for moment in np.unique(time[event]):
        tied = event & (time == moment)
        for nth in range(tied.sum()):
            gone = nth / tied.sum()
            total -= np.log(np.exp(beta * x[time >= moment]).sum() - gone * np.exp(beta * x[tied]).sum())
        total += beta * x[tied].sum()
    return total


@pytest.mark.parametrize("seed", range(3))
def test_is_the_top_of_the_likelihood(seed: int) -> None:
    time, event, x = cohort(seed)
    found = cox(time, event, x)
    beta = found.covariates[0].coefficient
    top = _slow(beta, time, event, x)
    assert found.log_likelihood == pytest.approx(top, abs=1e-9)
    assert found.null_log_likelihood == pytest.approx(_slow(0, time, event, x), abs=1e-9)
    assert top > max(_slow(beta - 1e-3, time, event, x), _slow(beta + 1e-3, time, event, x))
    curvature = (_slow(beta + 1e-3, time, event, x) + _slow(beta - 1e-3, time, event, x) - 2 * top) / 1e-6
    assert found.covariates[0].error == pytest.approx((-curvature) ** -0.5, rel=1e-4)


def test_units_and_place_of_a_covariate_change_nothing_else() -> None:
    time, event, x = cohort(7)
    one, far = cox(time, event, x).covariates[0], cox(time, event, x * 1e-3 + 5000).covariates[0]
    assert far.coefficient * 1e-3 == pytest.approx(one.coefficient, rel=1e-6)
    assert far.p == pytest.approx(one.p, rel=1e-6)


def test_what_has_no_fit_has_a_reason() -> None:
    time, event, x = np.arange(1.0, 11), np.ones(10, bool), np.arange(10.0)
    late = (time > 5).astype(float)
    for found, why in (
        (cox(time, ~event, x), "censored"),
        (cox(time, event, np.ones(10)), "one value"),
        (cox(time, event, -x), "no bound"),
        (cox(time, event, late), "no bound"),
        (cox(time, event, np.r_[np.nan, x[1:]]), "missing"),
        (cox(time, event, np.c_[x % 3, 2 * (x % 3)]), "follows from"),
        (cox(time, np.arange(10) == 9, x), "don't differ"),  # the last patient alone at risk
    ):
        assert found.note is not None and why in found.note
        assert all(np.isnan(c.ratio) and np.isnan(c.p) for c in found.covariates)


def test_refuses_covariates_of_another_length() -> None:
    with pytest.raises(ValueError, match="`covariates`"):
        cox(np.ones(3), np.ones(3, bool), np.ones(4))
