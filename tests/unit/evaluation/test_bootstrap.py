"""The bootstrap: against a slow loop, against scipy, and honest where it can't say anything."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import roc_auc_score

from pathpipe.evaluation import bootstrap, metrics
from pathpipe.evaluation.bootstrap import draw_weights, interval


def _scores(patients: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(patients) % 3 // 2  # two to one
    score = np.round(rng.normal(0.4 + 0.25 * targets, 0.25).clip(0, 1), 2)
    return targets.astype(np.int64), score


def _both(score: np.ndarray) -> np.ndarray:
    return np.stack([1 - score, score], axis=1)


def test_every_draw_keeps_the_size_of_each_class() -> None:
    strata = np.array([2, 0, 0, 1, 0, 1, 2, 2, 2])
    weights = draw_weights(strata, 500, seed=1)
    for stratum, size in ((0, 3), (1, 2), (2, 4)):
        assert (weights[:, strata == stratum].sum(axis=1) == size).all()
    assert weights.dtype == np.uint8
    # each patient is drawn once on average: sd of the mean of 500 draws is below 0.04
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)


def test_draws_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = np.arange(30) % 2
    first = draw_weights(strata, 100, seed=5)
    assert not np.array_equal(first, draw_weights(strata, 100, seed=6))
    monkeypatch.setattr(bootstrap, "_CHUNK_BYTES", 8 * 30 * 7)  # seven draws at a time
    np.testing.assert_array_equal(first, draw_weights(strata, 100, seed=5))


def test_counts_of_a_large_cohort_do_not_overflow() -> None:
    weights = draw_weights(np.zeros(400, np.int64), 3, seed=0)
    assert weights.dtype == np.uint16
    assert (weights.sum(axis=1) == 400).all()


def test_equals_a_loop_over_repeated_patients() -> None:
    targets, score = _scores(45)
    weights = draw_weights(targets, 300, seed=3)
    slow = []
    for weight in weights:
        index = np.repeat(np.arange(45), weight)
        slow.append(roc_auc_score(targets[index], score[index]))
    found = interval(lambda w: metrics.auroc(targets, _both(score), w), weights, 0.9)
    assert found.value == pytest.approx(roc_auc_score(targets, score), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.05, 0.95])), abs=1e-12)
    assert found.draws == 300 and found.note is None


def test_chunks_leave_the_interval_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, score = _scores(45)
    weights = draw_weights(targets, 101, seed=3)

    def area(w: np.ndarray) -> np.ndarray:
        return metrics.auroc(targets, _both(score), w)

    whole = interval(area, weights, 0.95)
    monkeypatch.setattr(bootstrap, "_CHUNK_BYTES", 8 * 45 * 10)
    assert interval(area, weights, 0.95) == whole


def test_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(2.0, 60)
    weights = draw_weights(np.zeros(60, np.int64), 6000, seed=2)
    ours = interval(lambda w: w @ values / w.sum(axis=1), weights, 0.95)
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=6000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    spread = values.std() / np.sqrt(60)
    assert ours.low == pytest.approx(theirs.low, abs=0.08 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.08 * spread)


def test_auroc_agrees_with_scipy_resampling_each_class() -> None:
    targets, score = _scores(90)
    positive, negative = score[targets == 1], score[targets == 0]

    def area(p: np.ndarray, n: np.ndarray, axis: int) -> np.ndarray:
        p, n = np.moveaxis(p, axis, -1)[..., :, None], np.moveaxis(n, axis, -1)[..., None, :]
        return ((p > n) + 0.5 * (p == n)).mean(axis=(-2, -1))

    theirs = scipy_bootstrap(
        (positive, negative), area, n_resamples=3000, method="percentile", batch=500, rng=np.random.default_rng(4)
    ).confidence_interval
    weights = draw_weights(targets, 3000, seed=0)
    ours = interval(lambda w: metrics.auroc(targets, _both(score), w), weights, 0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.008)


def test_says_so_when_every_draw_is_alike() -> None:
    targets = np.array([0, 0, 1, 1])
    weights = draw_weights(targets, 200, seed=0)
    found = interval(lambda w: metrics.auroc(targets, _both(np.array([0.1, 0.2, 0.8, 0.9])), w), weights, 0.95)
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert found.note is not None and "alike" in found.note


def test_says_so_when_a_number_is_undefined() -> None:
    targets = np.zeros(5, np.int64)
    weights = draw_weights(targets, 200, seed=0)
    found = interval(lambda w: metrics.auroc(targets, _both(np.linspace(0, 1, 5)), w), weights, 0.95)
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.draws == 0 and found.note == "a class is absent"


def test_draws_without_a_value_are_left_out_and_counted() -> None:
    weights = np.array([[1, 1], [0, 2], [2, 0], [1, 1]], np.uint8)
    # undefined where the first patient isn't drawn
    found = interval(lambda w: np.where(w[:, 0] > 0, w[:, 0], np.nan), weights, 0.9)
    assert found.draws == 3
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile([1, 2, 1], [0.05, 0.95])))


def test_ten_thousand_draws_of_auroc_take_seconds() -> None:
    targets, score = _scores(200)
    start = time.process_time()
    weights = draw_weights(targets, 10_000, seed=0)
    found = interval(lambda w: metrics.auroc(targets, _both(score), w), weights, 0.95)
    assert found.draws == 10_000 and found.low < found.value < found.high
    assert time.process_time() - start < 5
