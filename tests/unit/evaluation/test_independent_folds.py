"""Folds drawn independently: one model validates on whom another tests, and no test patient decides for itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pathpipe.evaluation.evaluate import MIXED, TESTED_AGAIN, Surroundings, evaluate_predictions
from pathpipe.evaluation.evaluation import Evaluation
from pathpipe.evaluation.predictions import Predictions
from pathpipe.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=100)


def _classes(fold: int, role: str, rows: dict[str, tuple[int, float]]) -> Predictions:
    truth = [one for one, _ in rows.values()]
    score = np.array([one for _, one in rows.values()])
    both = np.stack([1 - score, score], axis=1)
    return Predictions.of("ab", [*rows], ["ab"[one] for one in truth], np.log(both), both, (fold, 0, role))


def _binary(y_is: int) -> Evaluation:
    """X and Y are tested in fold 0; fold 1 tests X again, and validates on Y."""
    parts = [
        _classes(0, "val", {"v1": (0, 0.2), "v2": (1, 0.3), "v3": (0, 0.6), "v4": (1, 0.7)}),
        _classes(0, "test", {"X": (0, 0.4), "Y": (y_is, 0.45)}),
        _classes(1, "val", {"Y": (y_is, 0.5), "v1": (0, 0.2), "v5": (0, 0.3), "v6": (1, 0.55)}),
        _classes(1, "test", {"X": (0, 0.4), "Z": (1, 0.8)}),
    ]
    return evaluate_predictions(Predictions.concatenate(parts), SETTINGS)


def test_the_label_of_a_test_patient_moves_nothing_that_is_decided_for_it() -> None:
    one, other = _binary(0), _binary(1)
    assert one.thresholds[0] == other.thresholds[0]
    assert one.thresholds[1] != other.thresholds[1]  # Z isn't Y
    assert one.calibration is not None and other.calibration is not None
    for how in ("temperature", "platt"):
        before, after = (found.calibration.recalibrated[how].fitted for found in (one, other) if found.calibration)
        assert before[0] == pytest.approx(after[0], nan_ok=True) and np.isfinite(list(before[0].values())).all(), how
    assert one.thresholds[0] == 0.25  # all of .3, .7, .55 and half of .2, .6, .2, .3: no cut does better


def _timed(fold: int, role: str, risks: dict[str, float]) -> Predictions:
    columns: dict[str, Any] = {"time": [3.0, 5.0, 8.0, 9.0][: len(risks)], "event": [1, 0, 1, 1][: len(risks)]}
    return Predictions.of_columns("survival", [*risks], {**columns, "risk": [*risks.values()]}, (fold, 0, role))


def test_the_cut_of_risks_leaves_out_who_is_cut() -> None:
    parts = [
        _timed(0, "val", {"v1": 1.0, "v2": 2.0, "v3": 4.0}),
        _timed(0, "test", {"X": 2.5, "Y": 7.0}),
        _timed(1, "val", {"v4": 3.0, "Y": 100.0}),
        _timed(1, "test", {"X": 2.5}),
    ]
    table = Predictions.concatenate(parts).table.assign(time=4.0, event=1)  # one truth a patient
    found = evaluate_predictions(Predictions((), table, "survival"), SETTINGS)
    assert found.risk_groups is not None and found.risk_groups.cuts == {0: 2.5}
    assert [note for note in found.notes if note in (TESTED_AGAIN, MIXED)] == [TESTED_AGAIN, MIXED]
    alike = table[(table["fold"] == 0) | (table["role"] == "val")]
    again = pd.concat([alike, alike[alike["role"] == "test"].assign(fold=1)], ignore_index=True)
    notes = evaluate_predictions(Predictions((), again, "survival"), SETTINGS).notes
    assert TESTED_AGAIN in notes and MIXED not in notes
    once = evaluate_predictions(Predictions((), alike.reset_index(drop=True), "survival"), SETTINGS).notes
    assert TESTED_AGAIN not in once


def test_a_group_is_cautioned_about_in_the_terms_of_its_target() -> None:
    rng = np.random.default_rng(0)
    names = [f"t{at}" for at in range(30)]
    site = {"site": {name: "A" if at % 10 else "B" for at, name in enumerate(names)}}
    columns: dict[str, Any] = {"time": rng.exponential(size=30), "event": 1, "risk": rng.normal(size=30)}
    timed = Predictions.of_columns("survival", names, columns, (0, 0, "test"))
    notes = [one.note for one in evaluate_predictions(timed, SETTINGS, Surroundings(columns=site)).subgroups]
    assert notes == [None, "only 3 are seen to have the event: too few to conclude from"]
    numbers = {"target": rng.normal(size=30), "prediction": rng.normal(size=30)}
    measured = Predictions.of_columns("regression", names, numbers, (0, 0, "test"))
    notes = [one.note for one in evaluate_predictions(measured, SETTINGS, Surroundings(columns=site)).subgroups]
    assert notes == [None, "only 3 patients: too few to conclude from"]


def test_a_class_may_be_called_like_an_end_of_a_follow_up() -> None:
    score = np.full((4, 2), 0.5)
    truth = ["censored", "event", "event", "event"]
    one = Predictions.of(("censored", "event"), list("pqrs"), truth, score, score, (0, 0, "test"))
    said = evaluate_predictions(one, SETTINGS).notes
    assert [note.partition(":")[0] for note in said[:2]] == [
        "only 1 test patient is `censored`",
        "only 3 test patients are `event`",
    ]
