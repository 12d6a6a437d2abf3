"""Decision curves: by hand, by a loop over repeated patients, intervals, and an absent class."""

from __future__ import annotations

import numpy as np
import pytest

from pathpipe.evaluation.bootstrap import draw_weights
from pathpipe.evaluation.decision import decision_curve, net_benefit, net_benefit_of_everyone


def test_by_hand() -> None:
    # at 0.2 one acts on four: two rightly, two wrongly at 1/4 each
    targets, score = np.array([1, 0, 1, 0, 0]), np.array([0.9, 0.7, 0.2, 0.3, 0.1])
    thresholds, whole = np.array([0.2, 0.5, 0.8]), np.ones((1, 5))
    found = net_benefit(targets, score, whole, thresholds)[0]
    assert found.tolist() == pytest.approx([(2 - 2 / 4) / 5, (1 - 1) / 5, 1 / 5])
    everyone = net_benefit_of_everyone(targets, whole, thresholds)[0]
    assert everyone.tolist() == pytest.approx([(2 - 3 / 4) / 5, (2 - 3) / 5, (2 - 3 * 4) / 5])


@pytest.mark.parametrize("seed", range(3))
def test_equals_counting_repeated_patients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets, score = rng.integers(0, 2, 30), np.round(rng.random(30), 1)
    weights, thresholds = rng.integers(0, 4, (4, 30)).astype(float), np.array([0.1, 0.3, 0.75])
    found = net_benefit(targets, score, weights, thresholds)
    for row, w in enumerate(weights):
        index = np.repeat(np.arange(30), w.astype(int))
        for at, t in enumerate(thresholds):
            acted = score[index] >= t
            hits, misses = (acted & (targets[index] == 1)).sum(), (acted & (targets[index] == 0)).sum()
            assert found[row, at] == pytest.approx((hits - misses * t / (1 - t)) / len(index), abs=1e-12)


def test_curve_and_its_intervals() -> None:
    rng = np.random.default_rng(1)
    targets = np.arange(120) % 3 // 2
    score = np.clip(rng.normal(0.3 + 0.35 * targets, 0.15), 0, 1)
    thresholds = np.array([0.01, 0.3, 0.5])
    weights = draw_weights(np.zeros(120, np.int64), 800, seed=0)
    found = decision_curve(targets, score, thresholds, weights, 0.95)
    best_without = np.maximum(found.everyone.value, 0)
    np.testing.assert_allclose(found.gain.value, found.model.value - best_without, atol=1e-12)
    draws = np.array(
        [
            net_benefit(targets, score, w[None], thresholds)[0]
            - np.maximum(net_benefit_of_everyone(targets, w[None], thresholds)[0], 0)
            for w in weights.astype(float)
        ]
    )
    np.testing.assert_allclose(found.gain.low, np.quantile(draws, 0.025, axis=0), atol=1e-12)
    np.testing.assert_allclose(found.gain.high, np.quantile(draws, 0.975, axis=0), atol=1e-12)
    assert found.gain.low[2] > 0 and found.note is None
    assert (found.everyone.low < found.everyone.high).all()


def test_share_of_class_1_is_fixed_when_drawn_within_classes() -> None:
    targets = np.arange(40) % 2
    found = decision_curve(targets, np.full(40, 0.5), np.array([0.3]), draw_weights(targets, 50, 0), 0.95)
    assert found.everyone.low[0] == pytest.approx(found.everyone.high[0])


def test_an_absent_class_has_a_reason() -> None:
    ones = np.ones(6, np.int64)
    found = decision_curve(ones, np.linspace(0, 1, 6), np.array([0.5]), draw_weights(ones, 20, 0), 0.95)
    assert found.note == "a class is absent" and np.isnan(found.model.value[0]) and found.gain.draws[0] == 0


def test_refuses_thresholds_at_the_ends() -> None:
    for bad in (np.array([0.0]), np.array([1.0]), np.array(0.5)):
        with pytest.raises(ValueError, match="thresholds"):
            net_benefit(np.array([0, 1]), np.array([0.1, 0.2]), np.ones((1, 2)), bad)
