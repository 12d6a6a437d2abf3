"""BCa intervals and bands: scipy with one and with two samples, a slow jackknife, and where BCa is undefined."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from pathpipe.evaluation import bootstrap, metrics
from pathpipe.evaluation.bootstrap import band, draw_weights, interval, jackknife


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(axis=1)


def _areas(cases: np.ndarray, controls: np.ndarray, axis: int = -1) -> np.ndarray:
    above = cases[..., :, None] > controls[..., None, :]
    same = cases[..., :, None] == controls[..., None, :]
    return (above + same / 2).mean(axis=(-1, -2))


def test_one_sample_equals_scipy() -> None:
    values = np.random.default_rng(1).exponential(2.0, 40)
    weights = draw_weights(np.zeros(40, np.int64), 20000, seed=2)
    ours = interval(partial(_mean, values), weights, 0.9, method="bca")
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=20000, confidence_level=0.9, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    plain = interval(partial(_mean, values), weights, 0.9)
    assert ours.note is None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.025)
    assert ours.high - plain.high > 0.05  # a skewed sample: the correction is larger than the noise of the draws


def test_two_samples_equal_scipy() -> None:
    rng = np.random.default_rng(4)
    targets = np.r_[np.ones(12, np.int64), np.zeros(30, np.int64)]
    score = np.round(rng.normal(targets * 1.5), 1)
    weights = draw_weights(targets, 10000, seed=0)
    both = np.stack([-score, score], axis=1)
    ours = interval(partial(metrics.auroc, targets, both), weights, 0.95, method="bca", strata=targets)
    theirs = scipy_bootstrap(
        (score[:12], score[12:]),
        _areas,
        n_resamples=10000,
        method="BCa",
        vectorized=True,
        batch=500,
        rng=np.random.default_rng(5),
    ).confidence_interval
    plain = interval(partial(metrics.auroc, targets, both), weights, 0.95)
    assert ours.note is None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert plain.low - ours.low > 0.012


def test_is_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Efron & Tibshirani (1993), eq. 14.10, 14.14 and 14.15, as they are written."""
    from scipy.stats import norm

    values = np.random.default_rng(7).exponential(1.0, 15)
    weights = draw_weights(np.zeros(15, np.int64), 999, seed=1)
    draws = np.array([np.repeat(values, w).mean() for w in weights])
    z0 = norm.ppf(np.mean(draws < values.mean()))
    alone = np.array([np.delete(values, i).mean() for i in range(15)])
    u = alone.mean() - alone
    a = (u**3).sum() / (6 * (u**2).sum() ** 1.5)
    z = norm.ppf([0.05, 0.95])
    levels = norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
    found = interval(partial(_mean, values), weights, 0.9, method="bca")
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, levels)), abs=1e-12)
    monkeypatch.setattr(bootstrap, "_CHUNK_BYTES", 8 * 15 * 4)  # four at a time
    np.testing.assert_allclose(jackknife(partial(_mean, values), 15), alone, atol=1e-12)
    assert interval(partial(_mean, values), weights, 0.9, method="bca") == found


def test_falls_back_loudly() -> None:
    def area(targets: np.ndarray, score: np.ndarray) -> partial[np.ndarray]:
        return partial(metrics.auroc, targets, np.stack([1 - score, score], axis=1))

    targets = np.r_[1, np.zeros(9, np.int64)].astype(np.int64)
    score = np.linspace(0.6, 0.1, 10)
    score[3] = 0.9
    weights = draw_weights(targets, 500, seed=0)
    lonely = interval(area(targets, score), weights, 0.9, method="bca", strata=targets)
    percentile = interval(area(targets, score), weights, 0.9)
    assert (lonely.low, lonely.high) == (percentile.low, percentile.high)
    assert lonely.note is not None and "BCa is undefined (without one of the patients" in lonely.note
    spread = np.arange(10) % 2
    perfect = interval(area(spread, spread.astype(float)), draw_weights(spread, 500, 0), 0.9, method="bca")
    assert (perfect.low, perfect.high) == (1, 1) and perfect.note is not None and "alike" in perfect.note


def test_a_number_at_its_limit() -> None:
    values = np.arange(1.0, 9)
    weights = draw_weights(np.zeros(8, np.int64), 400, seed=0)
    weights = weights[weights[:, 7] == 0]
    top = interval(lambda w: np.where(w > 0, values, 0).max(axis=1), weights, 0.9, method="bca")
    assert top.value == 8 and top.high <= 7
    assert top.note is not None and "one side" in top.note


def test_undefined_says_why() -> None:
    weights = draw_weights(np.zeros(5, np.int64), 20, seed=0)
    found = interval(lambda w: np.full(len(w), np.nan), weights, 0.9, method="bca", undefined="all are censored")
    assert np.isnan(found.value) and found.note == "all are censored" and found.draws == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(partial(_mean, np.arange(5.0)), weights, 95)


def test_a_band_is_an_interval_at_each_point() -> None:
    values = np.random.default_rng(1).normal(size=(30, 3))
    values[:, 2] = np.nan
    weights = draw_weights(np.zeros(30, np.int64), 400, seed=2)
    found = band(lambda w: w @ values / 30, weights, 0.9)
    for at in range(2):
        one = interval(lambda w, at=at: w @ values[:, at] / 30, weights, 0.9)  # type: ignore[misc]
        assert (found.value[at], found.low[at], found.high[at]) == pytest.approx((one.value, one.low, one.high))
    assert np.isnan([found.value[2], found.low[2], found.high[2]]).all()
    assert found.draws.tolist() == [400, 400, 0]


def test_ten_thousand_draws_in_seconds() -> None:
    targets = np.arange(500) % 3 // 2
    score = np.random.default_rng(0).normal(targets * 0.8)
    began = time.perf_counter()
    weights = draw_weights(targets, 10000, seed=0)
    found = interval(
        partial(metrics.auroc, targets, np.stack([-score, score], axis=1)), weights, 0.95, method="bca", strata=targets
    )
    assert time.perf_counter() - began < 15  # half a second on one quiet core
    assert found.draws == 10000 and found.low < found.value < found.high
