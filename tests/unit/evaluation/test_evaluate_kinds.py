"""Predictions of grades, numbers and times: what is written reads back, and numbers are those of independent codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, r2_score

from pathpipe.errors import StoreError
from pathpipe.evaluation.calling import median_grade
from pathpipe.evaluation.evaluate import ONE_SCALE, Surroundings, evaluate_predictions
from pathpipe.evaluation.evaluation import Evaluation
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.survival.concordance import uno
from pathpipe.evaluation.survival.dynamic import dynamic_auc, integrated_brier
from pathpipe.evaluation.survival.measures import Horizon
from pathpipe.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=100)
RNG = np.random.default_rng(0)


def _patients(fold: int, count: int = 20) -> list[str]:
    return [f"P{fold}-{at}" for at in range(count)]


def _times(fold: int, shift: float = 0.0) -> Predictions:
    time, event = RNG.exponential(10, 20), RNG.integers(0, 2, 20)
    risk = -time + RNG.normal(scale=5, size=20) + shift
    chances = np.sort(RNG.uniform(size=(20, 2)), axis=1)[:, ::-1]
    columns = {"time": time, "event": event, "risk": risk, "survival_5": chances[:, 0], "survival_12.5": chances[:, 1]}
    return Predictions.of_columns("survival", _patients(fold), columns, (fold, 0, "test"))


def _numbers(fold: int, seed: int = 0) -> Predictions:
    truth = np.random.default_rng(fold).normal(size=20)
    columns = {"target": truth, "prediction": truth + RNG.normal(size=20)}
    return Predictions.of_columns("regression", _patients(fold), columns, (fold, seed, "test"))


@pytest.mark.parametrize("make", [_times, _numbers])
def test_read_back_to_the_same_bits(tmp_path: Path, make: type) -> None:
    before = Predictions.concatenate([make(0), make(1)])
    before.write(tmp_path / "p.csv")
    after = Predictions.read(tmp_path / "p.csv")
    assert (after.kind, after.classes) == (before.kind, ())
    pd.testing.assert_frame_equal(after.table, before.table, check_exact=True)
    assert after.times == ((5.0, 12.5) if make is _times else ())


def test_of_grades_the_reader_says_so(tmp_path: Path) -> None:
    columns = {"target": ["1", "2"], "p_1": [0.6, 0.5], "p_2": [0.4, 0.5], "logit_1": [0.0, 1.0], "logit_2": [1.0, 0.0]}
    Predictions.of_columns("ordinal", ["a", "b"], columns, (0, 0, "test")).write(tmp_path / "p.csv")
    assert Predictions.read(tmp_path / "p.csv", "ordinal").kind == "ordinal"
    assert Predictions.read(tmp_path / "p.csv").kind == "classification"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("event", 2, "row 3: event `2` is none of 0, 1"),
        ("risk", np.inf, "row 3: a number isn't finite"),
        ("survival_5", 1.5, "row 3: a survival is no probability"),
        ("patient_id", "P0-0", "row 3: patient P0-0 stands twice"),
        ("role", "train", "row 3: role `train` is none of val, test"),
    ],
)
def test_refuses_what_cannot_be(tmp_path: Path, column: str, value: Any, message: str) -> None:
    broken = _times(0)
    table = broken.table.astype({column: object})
    table.loc[1, column] = value
    Predictions((), table, "survival").write(tmp_path / "p.csv")
    with pytest.raises(StoreError, match=message):
        Predictions.read(tmp_path / "p.csv")


def test_refuses_contradictions_and_other_times(tmp_path: Path) -> None:
    again = _numbers(0, seed=1)
    again.table.loc[3, "target"] = 7.0
    Predictions.concatenate([_numbers(0), again]).write(tmp_path / "p.csv")
    with pytest.raises(StoreError, match="patient P0-3 has more than one target"):
        Predictions.read(tmp_path / "p.csv")
    other = Predictions((), _times(1).table.rename(columns={"survival_5": "survival_6"}), "survival")
    with pytest.raises(StoreError, match="survival at different times"):
        Predictions.concatenate([_times(0), other])


def test_numbers() -> None:
    both = Predictions.concatenate([_numbers(0), _numbers(0, seed=1), _numbers(1)])
    found = evaluate_predictions(both, SETTINGS)
    mean = both.table.groupby("patient_id")[["target", "prediction"]].mean()
    assert len(mean) == 40 and found.patients == {"patients": 40}
    assert found.metrics["MAE"].value == pytest.approx(mean_absolute_error(mean["target"], mean["prediction"]))
    assert found.metrics["R2"].value == pytest.approx(r2_score(mean["target"], mean["prediction"]))
    assert found.metrics["Pearson"].low < found.metrics["Pearson"].value < found.metrics["Pearson"].high
    first = mean[mean.index.str.startswith("P0-")]
    assert found.folds[0]["MAE"] == pytest.approx(mean_absolute_error(first["target"], first["prediction"]))
    assert Evaluation.from_dict(found.to_dict()) == found


WITHIN = "C-index (Harrell, within folds)"


def _loop_over_pairs(tables: list[pd.DataFrame]) -> float:
    """Concordant and comparable pairs, counted one by one, never across tables."""
    won = pairs = 0.0
    for table in tables:
        rows = table[["time", "event", "risk"]].to_numpy()
        for time, event, risk in rows:
            for other_time, _, other_risk in rows:
                if event and time < other_time:
                    pairs += 1
                    won += 1.0 if risk > other_risk else 0.5 if risk == other_risk else 0.0
    return won / pairs


def test_risks_of_different_folds_are_not_compared() -> None:
    here, there = _times(0), _times(1)
    found = evaluate_predictions(Predictions.concatenate([here, there]), SETTINGS)
    name, interval = next(iter(found.metrics.items()))
    parts = [one.table for one in (here, there)]
    assert name == WITHIN and interval.value == pytest.approx(_loop_over_pairs(parts))
    assert interval.low < interval.value < interval.high
    each = [_loop_over_pairs([part]) for part in parts]
    assert [found.folds[fold][name] for fold in (0, 1)] == pytest.approx(each)
    assert found.fold_means[name].mean == pytest.approx(np.mean(each)) and found.fold_means[name].folds == 2
    assert found.fold_means[name].sd == pytest.approx(np.std(each, ddof=1))
    pooled = found.metrics["C-index (Harrell, pooled)"].value
    assert pooled == pytest.approx(_loop_over_pairs([pd.concat(parts)])) and pooled != interval.value
    assert ONE_SCALE in found.notes and "C-index (Harrell, pooled)" not in found.folds[0]
    there.table["risk"] += 1000
    moved = evaluate_predictions(Predictions.concatenate([here, there]), SETTINGS)
    assert moved.metrics[name] == interval and moved.metrics["C-index (Harrell, pooled)"].value != pooled
    events = sum(int(p["event"].sum()) for p in parts)
    assert found.patients == {"censored": 40 - events, "event": events}


def test_survival_beside_training_patients() -> None:
    both = Predictions.concatenate([_times(0), _times(1)])
    mean = both.averaged("test")
    time, event = mean["time"].to_numpy(), mean["event"].to_numpy() == 1
    horizon = Horizon.of(time, event, [])
    assert horizon.times.tolist() == [float(f"{t:.4g}") for t in np.quantile(time[event], [0.25, 0.5, 0.75])]
    found = evaluate_predictions(both, SETTINGS, Surroundings(horizon)).metrics
    whole, among = np.ones((1, 40)), horizon.censoring
    expected = uno(time, event, mean["risk"].to_numpy(), whole, among, tau=among.reach)[0]
    assert found["C-index (Uno, pooled)"].value == pytest.approx(expected)
    parts = [mean["fold"].to_numpy() == fold for fold in (0, 1)]
    within = found["C-index (Uno, within folds)"].value
    assert (
        min(uno(time[r], event[r], mean["risk"].to_numpy()[r], np.ones((1, 20)), among, among.reach)[0] for r in parts)
        <= within
    )
    chances = mean[["survival_5", "survival_12.5"]].to_numpy()
    brier = integrated_brier(time, event, chances, whole, among, np.array([5.0, 12.5]))[0]
    assert found["integrated Brier score"].value == pytest.approx(brier)
    moment = float(horizon.times[1])
    chance = [np.interp(moment, [0, 5, 12.5], [1, *row]) for row in chances]
    area = dynamic_auc(time, event, -np.array(chance), whole, among, horizon.times[1:2])[0, 0]
    assert found[f"AUC at {moment:g}"].value == pytest.approx(area)


def test_asked_horizons_are_taken() -> None:
    one = _times(0)
    horizon = Horizon.of(one.table["time"].to_numpy(), one.table["event"].to_numpy() == 1, [4.0, 8.0])
    found = evaluate_predictions(one, SETTINGS, Surroundings(horizon))
    assert {"AUC at 4", "AUC at 8"} <= set(found.metrics)
    assert found.risk_groups is not None and found.risk_groups.horizons == [4.0, 8.0]


def test_all_censored_is_undefined_with_its_reason() -> None:
    one = _times(0)
    one.table["event"] = 0
    horizon = Horizon.of(one.table["time"].to_numpy(), one.table["event"].to_numpy() == 1, [])
    for around in (None, Surroundings(horizon)):
        found = evaluate_predictions(one, SETTINGS, around)
        for name, number in found.metrics.items():
            if name == "integrated Brier score":  # who lives is a truth too
                continue
            assert np.isnan(number.value) and number.note == "all patients are censored", name
        groups = found.risk_groups
        assert groups is not None and np.isnan(groups.log_rank_p) and np.isnan(groups.hazard_ratio.value)
        assert found.notes[0] == "no test patient is seen to have the event: numbers that need one are undefined"
        assert json.dumps(found.to_dict(), allow_nan=False)


def test_grades() -> None:
    shares = RNG.dirichlet(np.ones(3), 40)
    truth = RNG.integers(0, 3, 40)
    columns = {"target": [f"G{grade}" for grade in truth]}
    columns |= {f"{part}_G{at}": shares[:, at].tolist() for part in ("p", "logit") for at in range(3)}
    made = Predictions.of_columns("ordinal", [f"P{at}" for at in range(40)], columns, (0, 0, "test"))
    found = evaluate_predictions(made, SETTINGS)
    median = [int(np.flatnonzero(row.cumsum() >= 0.5)[0]) for row in shares]
    assert median_grade(shares).tolist() == median
    expected = cohen_kappa_score(truth, median, weights="quadratic")
    assert found.metrics["quadratic kappa"].value == pytest.approx(expected)
    assert found.metrics["MAE (classes)"].value == pytest.approx(np.abs(truth - median).mean())
    assert np.trace(found.confusion) == (truth == median).sum() and found.kind == "ordinal"


def test_a_half_that_rounding_misses_is_a_half() -> None:
    assert median_grade(np.array([[0.1] * 3 + [0.2, 0.5], [0.5, 0.5, 0, 0, 0]])).tolist() == [3, 0]


def test_nobody_was_tested() -> None:
    one = _numbers(0)
    one.table["role"] = "val"
    with pytest.raises(StoreError, match="no test patient"):
        evaluate_predictions(one, SETTINGS)
