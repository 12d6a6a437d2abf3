"""Permutation and bootstrap of a difference: scipy's exact test, every exchange by a loop, seeds, level under null."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test as scipy_permutation
from sklearn.metrics import roc_auc_score

from pathpipe.evaluation import metrics, regression
from pathpipe.evaluation.arrays import mid_ranks
from pathpipe.evaluation.bootstrap import Metric, draw_weights
from pathpipe.evaluation.comparison.paired import bootstrap_difference, permutation_test
from pathpipe.evaluation.survival.concordance import harrell


def _area(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> Metric:
    score = np.r_[first, second]
    return partial(metrics.auroc, np.r_[targets, targets], np.stack([-score, score], axis=1))


def _scores(seed: int, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(patients) % 2
    return targets, np.round(rng.normal(targets), 1), np.round(rng.normal(0.2 * targets), 1)


@pytest.mark.parametrize("seed", range(3))
def test_few_patients_are_enumerated(seed: int) -> None:
    targets, first, second = _scores(seed, 7)
    found = permutation_test(_area(targets, first, second), 7, draws=128, seed=0)
    seen = roc_auc_score(targets, first) - roc_auc_score(targets, second)
    every = []
    for swap in product([False, True], repeat=7):
        a, b = np.where(swap, second, first), np.where(swap, first, second)
        every.append(roc_auc_score(targets, a) - roc_auc_score(targets, b))
    assert found.exact and found.draws == 128
    assert found.difference == pytest.approx(seen, abs=1e-12)
    assert found.p == pytest.approx(np.mean(np.abs(every) >= abs(seen) - 1e-12), abs=1e-12)


def test_equals_scipys_exact_test_of_a_mean() -> None:
    rng = np.random.default_rng(3)
    truth, first, second = rng.normal(size=10), rng.normal(size=10), rng.normal(size=10)
    metric = partial(regression.mean_absolute_error, np.r_[truth, truth], np.r_[first, second])
    found = permutation_test(metric, 10, draws=5000, seed=0)
    theirs = scipy_permutation(
        (np.abs(first - truth), np.abs(second - truth)),
        lambda a, b: abs(np.mean(a) - np.mean(b)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert found.exact and found.p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_drawn_exchanges_come_near_and_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, first, second = _scores(1, 12)
    metric = _area(targets, first, second)
    exact = permutation_test(metric, 12, draws=4096, seed=0)
    drawn = permutation_test(metric, 12, draws=4095, seed=0)
    assert exact.exact and not drawn.exact
    assert drawn.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p * (1 - exact.p) / 4095) + 1 / 4096)
    monkeypatch.setattr("pathpipe.evaluation.comparison.paired._CHUNK_VALUES", 24 * 100)
    assert permutation_test(metric, 12, draws=4095, seed=0) == drawn
    assert permutation_test(metric, 12, draws=4095, seed=1).p != drawn.p


def test_p_is_never_zero() -> None:
    targets = np.arange(60) % 2
    found = permutation_test(_area(targets, targets * 1.0, 1.0 - targets), 60, draws=199, seed=0)
    assert found.difference == 1 and found.p == 1 / 200


def test_level_under_the_null() -> None:
    small = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        targets = np.arange(24) % 2
        first, second = (mid_ranks(rng.normal(targets * 0.8)) for _ in range(2))
        small += permutation_test(_area(targets, first, second), 24, draws=199, seed=seed).p <= 0.1
    assert 0.04 < small / 200 < 0.17  # 0.1 but for chance (sd 0.021)


def test_works_for_survival() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 9, 8) / 2.0, np.array([1, 1, 1, 0, 1, 0, 1, 1], bool)
    first, second = -time, rng.normal(size=8)

    def c(w: np.ndarray) -> np.ndarray:
        return harrell(np.r_[time, time], np.r_[event, event], np.r_[mid_ranks(first), mid_ranks(second)], w)

    found = permutation_test(c, 8, draws=256, seed=0)
    whole = np.ones((1, 8))
    apart = harrell(time, event, first, whole)[0] - harrell(time, event, second, whole)[0]
    assert found.exact and found.difference == pytest.approx(apart, abs=1e-12)


def test_undefined_has_a_reason() -> None:
    ones = np.ones(5, np.int64)
    found = permutation_test(_area(ones, np.arange(5.0), np.arange(5.0)), 5, 100, 0, "a class is absent")
    assert np.isnan(found.p) and found.note == "a class is absent"
    assert permutation_test(_area(ones[:0], np.zeros(0), np.zeros(0)), 0, 100, 0).note is not None
    nothing = bootstrap_difference(lambda w: w[:, 0] * np.nan, lambda w: w[:, 0], draw_weights(ones, 50, 0), 0.9)
    assert np.isnan(nothing.p) and np.isnan(nothing.interval.value)


def test_same_model_twice() -> None:
    targets, first, _ = _scores(0, 10)
    assert permutation_test(_area(targets, first, first), 10, 2000, 0).p == 1
    area = partial(metrics.auroc, targets, np.stack([-first, first], axis=1))
    found = bootstrap_difference(area, area, draw_weights(targets, 200, 0), 0.9)
    assert found.interval.value == 0 and found.p == 1 and "alike" in (found.interval.note or "")


def test_bootstrap_difference_is_paired() -> None:
    targets, first, _ = _scores(2, 40)
    second = first + np.random.default_rng(1).normal(0, 0.2, 40)
    one, two = (partial(metrics.auroc, targets, np.stack([-s, s], axis=1)) for s in (first, second))
    weights = draw_weights(targets, 1000, seed=0)
    found = bootstrap_difference(one, two, weights, 0.95)
    draws = one(weights.astype(float)) - two(weights.astype(float))
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    far = min((draws <= 1e-12).sum(), (draws >= -1e-12).sum())
    assert found.p == pytest.approx(min(1, 2 * (far + 1) / 1001))
    assert bootstrap_difference(two, one, weights, 0.95).p == found.p
