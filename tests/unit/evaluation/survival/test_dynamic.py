"""Dynamic AUC and Brier score: scikit-survival, plain loops with ties and counts, plain metrics without censoring."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from pathpipe.evaluation.survival import dynamic
from pathpipe.evaluation.survival.censoring import Censoring
from tests.unit.evaluation.survival.data import PEERS, cohort, draws, of_peers

THEIRS = PEERS["scikit-survival"]
TIMES = np.array(THEIRS["times"])


def _survival(risk: np.ndarray, times: np.ndarray) -> np.ndarray:
    return np.exp(-np.exp(0.7 * risk)[:, None] * times / 3)


def test_equals_scikit_survival() -> None:
    censoring = Censoring.of(*of_peers("train")[:2])
    time, event, risk, *_ = of_peers("test")
    whole, survival = np.ones((1, len(time))), _survival(risk, TIMES)
    for found, expected in (
        (dynamic.dynamic_auc(time, event, risk, whole, censoring, TIMES), THEIRS["dynamic_auc"]),
        (dynamic.dynamic_auc(time, event, -survival, whole, censoring, TIMES), THEIRS["dynamic_auc_of_survival"]),
        (dynamic.mean_dynamic_auc(time, event, risk, whole, censoring, TIMES), THEIRS["mean_dynamic_auc"]),
        (dynamic.brier_at(time, event, survival, whole, censoring, TIMES), THEIRS["brier"]),
        (dynamic.integrated_brier(time, event, survival, whole, censoring, TIMES), THEIRS["integrated_brier"]),
    ):
        np.testing.assert_allclose(found[0], expected, atol=1e-12)


def _g(past_time: np.ndarray, past_event: np.ndarray, before: float, inclusive: bool) -> float:
    left = 1.0
    for moment in np.unique(past_time):
        if moment < before or (inclusive and moment == before):
            here = past_time == moment
            at_risk = (past_time >= moment).sum() - (here & past_event).sum()
            left *= 1 - (here & ~past_event).sum() / at_risk if at_risk else 1
    return left


@pytest.mark.parametrize("seed", range(5))
def test_equals_loops_with_ties_and_counts(seed: int) -> None:
    past_time, past_event, _ = cohort(seed + 50, 80)
    time, event, risk = cohort(seed)
    weights, times = draws(seed, len(time)), np.array([1.0, 1.75, 2.5])
    survival = _survival(risk, times)
    censoring = Censoring.of(past_time, past_event)
    auc = dynamic.dynamic_auc(time, event, risk, weights, censoring, times)
    brier = dynamic.brier_at(time, event, survival, weights, censoring, times)
    for row, w in enumerate(weights):
        for at, t in enumerate(times):
            won = pairs = errors = 0.0
            for i in range(len(time)):
                if event[i] and time[i] <= t:
                    of_event = w[i] / _g(past_time, past_event, time[i], False)
                    errors += of_event * survival[i, at] ** 2
                    for j in np.flatnonzero(time > t):
                        pairs += of_event * w[j]
                        won += of_event * w[j] * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0)
                elif time[i] > t:
                    errors += w[i] / _g(past_time, past_event, t, True) * (1 - survival[i, at]) ** 2
            assert auc[row, at] == pytest.approx(won / pairs if pairs else np.nan, abs=1e-12, nan_ok=True)
            assert brier[row, at] == pytest.approx(errors / w.sum(), abs=1e-12)


def test_without_censoring_they_are_plain_auroc_and_brier_score() -> None:
    time, _, risk = cohort(4, 40)
    event, times = np.ones(40, bool), np.array([1.0, 3.0])
    censoring, whole, survival = Censoring.of(time, event), np.ones((1, 40)), _survival(risk, times)
    auc = dynamic.dynamic_auc(time, event, risk, whole, censoring, times)[0]
    brier = dynamic.brier_at(time, event, survival, whole, censoring, times)[0]
    for at, t in enumerate(times):
        assert auc[at] == pytest.approx(roc_auc_score(time <= t, risk), abs=1e-12)
        assert brier[at] == pytest.approx(brier_score_loss(time > t, survival[:, at]), abs=1e-12)
    integral = dynamic.integrated_brier(time, event, survival, whole, censoring, times)[0]
    assert integral == pytest.approx(brier.mean(), abs=1e-12)  # one trapeze


def test_censoring_by_hand() -> None:
    # at 2 an event and a censored: the event leaves first, so one of three at risk is censored
    found = Censoring.of(np.array([1.0, 2, 2, 3, 4]), np.array([0, 1, 0, 1, 0], bool))
    np.testing.assert_allclose(found.at([0.5, 1, 2, 3, 4]), [1, 0.8, 0.8 * 2 / 3, 0.8 * 2 / 3, 0])
    np.testing.assert_allclose(found.before([1, 2, 3, 4]), [1, 0.8, 0.8 * 2 / 3, 0.8 * 2 / 3])
    assert found.reach == 4 and found.before(4.1) == 0
    assert np.isnan(Censoring.of(np.array([1.0, 2]), np.array([False, True])).at(2.1))


def test_what_is_undefined_has_a_reason() -> None:
    time, event, risk = np.array([1.0, 2, 3]), np.array([True, True, False]), np.array([3.0, 2, 1])
    whole, times = np.ones((1, 3)), np.array([0.5, 1.5, 3.0])
    censoring = Censoring.of(time, event)
    auc = dynamic.dynamic_auc(time, event, risk, whole, censoring, times)[0]
    assert np.isnan(auc).tolist() == [True, False, True]
    assert dynamic.why_undefined(time, event, censoring, times) == "no event was seen by one of the times"
    assert "nobody" in dynamic.why_undefined(time, event, censoring, times[1:])
    assert "training" in dynamic.why_undefined(time, event, censoring, np.array([1.5, 3.5]))
    assert dynamic.why_undefined(time, np.zeros(3, bool), censoring, times) == "all patients are censored"
    assert dynamic.why_undefined(time, event, censoring, times[1:2]) == ""
    none = dynamic.dynamic_auc(time, np.zeros(3, bool), risk, whole, censoring, times)
    assert np.isnan(none).all()
    assert np.isnan(dynamic.mean_dynamic_auc(time, np.zeros(3, bool), risk, whole, censoring, times))[0]
    late = np.array([1.5, 3.5])
    short = Censoring.of(np.array([1.0, 2]), np.array([False, True]))
    scores = dynamic.brier_at(time, event, _survival(risk, late), whole, short, late)[0]
    assert np.isfinite(scores[0]) and np.isnan(scores[1])
    assert np.isnan(dynamic.integrated_brier(time, event, _survival(risk, late), whole, short, late)[0])


def test_a_time_that_no_event_leads_to_does_not_spoil_the_mean() -> None:
    time, event, risk = np.array([1.0, 2, 3, 4]), np.array([True, True, False, False]), np.array([3.0, 1, 2, 0])
    censoring, whole = Censoring.of(time, event), np.ones((1, 4))
    early = dynamic.mean_dynamic_auc(time, event, risk, whole, censoring, np.array([0.5, 1.5, 2.5]))[0]
    assert early == dynamic.mean_dynamic_auc(time, event, risk, whole, censoring, np.array([1.5, 2.5]))[0]
    assert early == pytest.approx((1 + 0.75) / 2)


def test_refuses_shapes() -> None:
    time, event, risk = cohort(0)
    censoring, whole, times = Censoring.of(time, event), np.ones((1, 30)), np.array([1.0, 2.0])
    with pytest.raises(ValueError, match="one column for each of 2 times"):
        dynamic.brier_at(time, event, np.ones((30, 1)), whole, censoring, times)
    with pytest.raises(ValueError, match="one column for each of 2 times"):
        dynamic.brier_at(time, event, risk, whole, censoring, times)
    with pytest.raises(ValueError, match="rise"):
        dynamic.integrated_brier(time, event, np.ones((30, 2)), whole, censoring, times[::-1])
    with pytest.raises(ValueError, match="two times"):
        dynamic.integrated_brier(time, event, np.ones((30, 1)), whole, censoring, times[:1])
    with pytest.raises(ValueError, match="without patients"):
        Censoring.of(np.zeros(0), np.zeros(0, bool))
