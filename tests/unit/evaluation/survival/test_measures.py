"""Measures of survival: every name gives the number of its function, and NaN always comes with its reason."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from pathpipe.evaluation.bootstrap import draw_weights
from pathpipe.evaluation.survival.censoring import Censoring
from pathpipe.evaluation.survival.concordance import harrell, uno
from pathpipe.evaluation.survival.measures import Horizon, Timed, survival


def _timed(seed: int, patients: int = 50) -> tuple[Timed, Horizon]:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=patients)
    time, event = np.round(rng.exponential(np.exp(-risk)), 2), rng.random(patients) < 0.7
    times = np.array([0.2, 0.6, 1.1])
    folds = rng.integers(0, 3, patients)
    chances = np.exp(-np.exp(risk)[:, None] * times)
    return Timed(time, event, risk, folds, times, chances), Horizon.of(time, event, [])


def test_every_measure_has_a_number_and_an_interval() -> None:
    timed, horizon = _timed(2)
    strata = timed.event.astype(np.int64)
    weights = draw_weights(strata, 60, seed=0)
    named = survival(timed, horizon)
    assert len(named) == 4 + 1 + len(horizon.times) + 1
    for name, one in named.items():
        for method in ("percentile", "bca"):
            found = one.interval(weights, 0.9, method, strata)
            assert found.low <= found.high and np.isfinite(found.value), name
        assert one(weights[:2].astype(float)).shape == (2,)
    assert named["integrated Brier score"].higher_is_better is False


@pytest.mark.parametrize("weighted", [False, True])
def test_within_folds_pairs_are_those_of_one_fold(weighted: bool) -> None:
    timed, horizon = _timed(3)
    weights = draw_weights(np.zeros(50, np.int64), 5, seed=0).astype(float) if weighted else np.ones((1, 50))
    among = partial(uno, censoring=horizon.censoring, tau=horizon.tau)
    for name, function in (("Harrell", harrell), ("Uno", among)):
        found = survival(timed, horizon)[f"C-index ({name}, within folds)"](weights)
        # far apart in time, folds are compared after all, but always in the right order
        late = timed.time + 1000.0 * timed.folds
        if name == "Harrell":
            shifted = function(late, timed.event, timed.risk - 1000.0 * timed.folds, weights)
            inside = [timed.folds == fold for fold in range(3)]
            each = np.array([function(timed.time[r], timed.event[r], timed.risk[r], weights[:, r]) for r in inside])
            assert (found >= each.min(axis=0)).all() and (found <= each.max(axis=0)).all()
            assert (shifted >= found).all()
        one_fold = replace(timed, folds=np.zeros(50, np.int64))
        pooled = function(timed.time, timed.event, timed.risk, weights)
        np.testing.assert_allclose(survival(one_fold, horizon)[f"C-index ({name}, within folds)"](weights), pooled)
        np.testing.assert_allclose(survival(timed, horizon)[f"C-index ({name}, pooled)"](weights), pooled)


def test_areas_follow_predicted_survival_and_risk_where_there_is_none() -> None:
    timed, horizon = _timed(4)
    whole = np.ones((1, 50))
    bare = replace(timed, times=np.zeros(0), survival=np.zeros((50, 0)))
    for name in ("mean dynamic AUC", f"AUC at {horizon.times[1]:g}"):  # one model: the same order at all times
        by_chance, by_risk = (survival(one, horizon)[name](whole)[0] for one in (timed, bare))
        assert by_chance == pytest.approx(by_risk)
    assert "integrated Brier score" not in survival(bare, horizon)
    np.testing.assert_allclose(
        timed.survival_at(np.array([0.0, 0.2, 0.4, 5.0]))[7],
        [1.0, timed.survival[7, 0], (timed.survival[7, 0] + timed.survival[7, 1]) / 2, timed.survival[7, 2]],
    )


def test_all_censored() -> None:
    timed, horizon = _timed(0)
    weights = draw_weights(np.zeros(50, np.int64), 30, seed=0)
    named = survival(replace(timed, event=timed.event & False), horizon)
    assert np.isfinite(named.pop("integrated Brier score")(np.ones((1, 50)))[0]), "who lives is a truth too"
    for name, one in named.items():
        found = one.interval(weights, 0.9, "bca")
        assert np.isnan(found.value) and found.note == "all patients are censored", name


def test_training_patients_followed_too_shortly() -> None:
    timed, horizon = _timed(0)
    short = Horizon(Censoring.of(np.array([0.1, 0.2]), np.array([True, False])), np.inf, horizon.times)
    weights = draw_weights(timed.event.astype(np.int64), 30, seed=0)
    named = survival(timed, short)
    for name in ("C-index (Uno, pooled)", "mean dynamic AUC", "integrated Brier score"):
        found = named[name].interval(weights, 0.9)
        assert np.isnan(found.value) and "training patients" in (found.note or ""), name
    assert np.isfinite(named["C-index (Harrell, pooled)"].interval(weights, 0.9).value)


def test_nobody_and_no_training() -> None:
    timed, horizon = _timed(0)
    nobody = Timed(np.zeros(0), np.zeros(0, bool), np.zeros(0), np.zeros(0, np.int64), timed.times, np.zeros((0, 3)))
    for name, one in survival(nobody, horizon).items():
        assert np.isnan(one(np.ones((2, 0)))).tolist() == [True, True], name
    assert list(survival(timed, None)) == ["C-index (Harrell, within folds)", "C-index (Harrell, pooled)"]
    never = Horizon.of(timed.time, timed.event & False, [])
    assert len(never.times) == 0 and "mean dynamic AUC" not in survival(timed, never)
