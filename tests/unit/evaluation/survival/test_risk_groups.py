"""Risk groups: cut on validation alone, and the numbers of the statistics on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from pathpipe.evaluation.evaluate import evaluate_predictions
from pathpipe.evaluation.evaluation import RiskGroups
from pathpipe.evaluation.predictions import Predictions
from pathpipe.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=100)


def _predictions(folds: int = 2, patients: int = 40) -> Predictions:
    rng = np.random.default_rng(0)
    parts = []
    for fold in range(folds):
        for role in ("val", "test"):
            hidden = rng.normal(size=patients)
            time, event = np.round(rng.exponential(np.exp(-hidden)) * 10, 2), (rng.random(patients) < 0.7).astype(int)
            columns = {"time": time, "event": event, "risk": hidden + rng.normal(size=patients) + 100 * fold}
            who = [f"{role}{fold}-{at:02d}" for at in range(patients)]
            parts.append(Predictions.of_columns("survival", who, columns, (fold, 0, role)))
    return Predictions.concatenate(parts)


def _groups(predictions: Predictions) -> tuple[RiskGroups, tuple[str, ...]]:
    found = evaluate_predictions(predictions, SETTINGS)
    assert found.risk_groups is not None
    return found.risk_groups, found.notes


def _test_rows(predictions: Predictions, groups: RiskGroups) -> pd.DataFrame:
    test = predictions.table[predictions.table["role"] == "test"]
    return test.assign(high=test["risk"] > test["fold"].map(groups.cuts))


def test_cuts_are_medians_of_validation() -> None:
    predictions = _predictions()
    found, _ = _groups(predictions)
    val = predictions.table[predictions.table["role"] == "val"]
    assert found.cuts == val.groupby("fold")["risk"].median().to_dict()
    moved = Predictions((), predictions.table.copy(), "survival")
    moved.table.loc[moved.table["role"] == "test", "risk"] += 3
    assert _groups(moved)[0].cuts == found.cuts and _groups(moved)[0].groups != found.groups


def test_curves_and_tests_are_those_of_statsmodels() -> None:
    predictions = _predictions()
    found, _ = _groups(predictions)
    test = _test_rows(predictions, found)
    assert [group.name for group in found.groups] == ["low", "high", "all"]
    for group, rows in zip(found.groups, (test[~test["high"]], test[test["high"]], test), strict=True):
        assert (group.patients, group.events) == (len(rows), int(rows["event"].sum()))
        expected = SurvfuncRight(rows["time"], rows["event"])
        steps = [group.time.index(time) for time in expected.surv_times]
        np.testing.assert_allclose([group.survival[at] for at in steps], expected.surv_prob, atol=1e-12)
        assert [group.at_risk[at] for at in steps] == expected.n_risk.tolist()
        assert group.median == pytest.approx(expected.quantile(0.5))
    chi2, p = survdiff(test["time"], test["event"], test["high"], strata=test["fold"])
    assert (found.log_rank_chi2, found.log_rank_p) == pytest.approx((chi2, p))
    fit = PHReg(test["time"], test[["high"]].astype(float), test["event"], strata=test["fold"], ties="efron").fit(
        disp=0
    )
    assert found.hazard_ratio.value == pytest.approx(np.exp(fit.params[0]), rel=1e-5)
    assert found.hazard_ratio.p == pytest.approx(fit.pvalues[0], rel=1e-4)
    low, high = np.exp(fit.conf_int()[0])
    assert (found.hazard_ratio.low, found.hazard_ratio.high) == pytest.approx((low, high), rel=1e-4)
    assert found.hazard_ratio.value > 1.5, "a scale of its own in each fold does no harm"


def test_a_fold_without_validation_is_in_no_group() -> None:
    predictions = _predictions()
    table = predictions.table
    some = Predictions((), table[(table["role"] == "test") | (table["fold"] == 1)], "survival")
    found, notes = _groups(some)
    assert np.isnan(found.cuts[0]) and np.isfinite(found.cuts[1])
    assert [group.patients for group in found.groups[:2]] == [
        int((~_test_rows(some, found).query("fold == 1")["high"]).sum()),
        int(_test_rows(some, found).query("fold == 1")["high"].sum()),
    ]
    assert found.groups[2].patients == 80 and "fold 0: it has no validation patient to cut risks by" in notes
    none, _ = _groups(Predictions((), table[table["role"] == "test"], "survival"))
    assert none.log_rank_note == "no patient is in a risk group" == none.hazard_ratio.note
    assert [group.patients for group in none.groups] == [0, 0, 80]


def test_all_censored_and_one_group() -> None:
    predictions = _predictions()
    predictions.table["event"] = 0
    found, _ = _groups(predictions)
    assert found.log_rank_note == found.hazard_ratio.note == "all patients are censored"
    assert found.groups[2].survival == [1.0] * len(found.groups[2].time) and np.isnan(found.groups[2].median)
    flat = _predictions()
    flat.table["risk"] = 1.0
    found, _ = _groups(flat)
    assert found.log_rank_note == "there is only one group" and np.isnan(found.hazard_ratio.value)
