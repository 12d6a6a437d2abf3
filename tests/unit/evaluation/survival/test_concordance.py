"""Concordance: every pair by a loop, lifelines, scikit-survival, bootstrap counts, and no comparable pair."""

from __future__ import annotations

import time as clock
from functools import partial

import numpy as np
import pytest

from pathpipe.evaluation.bootstrap import draw_weights, interval
from pathpipe.evaluation.survival import concordance
from pathpipe.evaluation.survival.censoring import Censoring
from pathpipe.evaluation.survival.concordance import harrell, uno, why_undefined
from tests.unit.evaluation.survival.data import PEERS, cohort, draws, of_peers


def _slow(time: np.ndarray, event: np.ndarray, risk: np.ndarray, weight: np.ndarray, of_event: np.ndarray) -> float:
    won = pairs = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                size = weight[i] * weight[j] * of_event[i]
                pairs += size
                won += size * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
    return won / pairs if pairs else float("nan")


@pytest.mark.parametrize("seed", range(6))
def test_harrell_equals_a_loop_over_pairs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    time, event, risk = cohort(seed)
    weights = draws(seed, len(time))
    expected = [_slow(time, event, risk, w, np.ones(len(time))) for w in weights]
    np.testing.assert_allclose(harrell(time, event, risk, weights), expected, atol=1e-12)
    monkeypatch.setattr(concordance, "_BLOCK_VALUES", 70)  # two rows of pairs at a time
    np.testing.assert_allclose(harrell(time, event, risk, weights), expected, atol=1e-12)


def test_harrell_equals_lifelines_and_scikit_survival() -> None:
    time, event, risk, *_ = of_peers("crossed")
    found = harrell(time, event, risk, np.ones((1, len(time))))[0]
    assert found == pytest.approx(PEERS["lifelines"]["harrell"], abs=1e-12)
    assert found == pytest.approx(PEERS["scikit-survival"]["harrell"], abs=1e-12)


def test_by_hand() -> None:
    # events at 1 and 3, censored at 2 and 3: pairs (1,2) (1,3) (1,3c) (3,3c)
    time, event = np.array([1.0, 2, 3, 3]), np.array([True, False, True, False])
    whole = np.ones((1, 4))
    assert harrell(time, event, np.array([4.0, 3, 2, 1]), whole)[0] == 1
    assert harrell(time, event, np.array([4.0, 5, 2, 2]), whole)[0] == (0 + 1 + 1 + 0.5) / 4
    assert harrell(time, event, np.zeros(4), whole)[0] == 0.5
    # two events at one time say nothing
    assert np.isnan(harrell(np.ones(2), np.ones(2, bool), np.array([1.0, 2]), np.ones((1, 2)))[0])


@pytest.mark.parametrize("tau", ["1.0", "2.0", "3.0"])
def test_uno_equals_scikit_survival(tau: str) -> None:
    censoring = Censoring.of(*of_peers("train")[:2])
    time, event, risk, *_ = of_peers("test")
    found = uno(time, event, risk, np.ones((1, len(time))), censoring, float(tau))[0]
    assert found == pytest.approx(PEERS["scikit-survival"]["uno"][tau], abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_uno_equals_a_loop_also_where_events_and_censored_share_times(seed: int) -> None:
    past_time, past_event, _ = cohort(seed + 50, 60)
    time, event, risk = cohort(seed)
    weights, tau = draws(seed, len(time)), 3.5
    of_event = np.zeros(len(time))
    for i in np.flatnonzero(event & (time < tau)):
        left = 1.0
        for moment in np.unique(past_time[past_time < time[i]]):  # censored before the event; events come first
            here = past_time == moment
            at_risk = (past_time >= moment).sum() - (here & past_event).sum()
            left *= 1 - (here & ~past_event).sum() / at_risk if at_risk else 1
        of_event[i] = left**-2
    expected = [_slow(time, event & (time < tau), risk, w, of_event) for w in weights]
    # who has the event at or after tau is still someone to compare with, but at a tie as the other event it is
    found = uno(time, event, risk, weights, Censoring.of(past_time, past_event), tau)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_without_censoring_uno_is_harrell() -> None:
    time, _, risk = cohort(3)
    event = np.ones(len(time), bool)
    weights = draws(3, len(time))
    found = uno(time, event, risk, weights, Censoring.of(time, event))
    np.testing.assert_allclose(found, harrell(time, event, risk, weights), atol=1e-12)


def test_what_is_undefined_has_a_reason() -> None:
    time, event, risk = np.array([1.0, 2, 3]), np.array([True, False, True]), np.array([3.0, 2, 1])
    whole = np.ones((1, 3))
    short = Censoring.of(np.array([0.5, 1.5]), np.array([True, False]))
    assert np.isnan(harrell(time, np.zeros(3, bool), risk, whole)[0])
    assert why_undefined(time, np.zeros(3, bool)) == "all patients are censored"
    last = np.array([False, False, True])
    assert np.isnan(harrell(time, last, risk, whole)[0])
    assert why_undefined(time, last) == "no two patients can be compared"
    assert np.isnan(uno(time, event, risk, whole, short)[0])
    assert "last time of the training patients" in why_undefined(time, event, short)
    assert np.isfinite(uno(time, event, risk, whole, short, short.reach)[0])
    assert why_undefined(time, event, short, short.reach) == ""
    assert "before 0.5" in why_undefined(time, event, short, 0.5)
    assert np.isnan(harrell(time, event, np.array([1.0, np.nan, 2]), whole)[0])
    # a draw without the events is undefined alone
    assert np.isnan(harrell(time, event, risk, np.array([[1.0, 1, 1], [0, 1, 1]]))).tolist() == [False, True]


def test_refuses_shapes() -> None:
    with pytest.raises(ValueError, match="`risk`"):
        harrell(np.ones(3), np.ones(3, bool), np.ones(2), np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"weights must be \(draws, 3\)"):
        harrell(np.ones(3), np.ones(3, bool), np.ones(3), np.ones(3))


def test_many_patients_and_draws_in_seconds() -> None:
    rng = np.random.default_rng(0)
    risk = rng.normal(size=2000)
    time, event = rng.exponential(np.exp(-risk)), rng.random(2000) < 0.5
    began = clock.perf_counter()
    weights = draw_weights(event.astype(np.int64), 2000, seed=0)
    found = interval(partial(harrell, time, event, risk), weights, 0.95)
    assert clock.perf_counter() - began < 20  # 0.8 s on one quiet core
    assert found.low < found.value < found.high and found.high - found.low < 0.05
