"""The colour baseline against the same thing written out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from statsmodels.duration.hazard_regression import PHReg

from pathpipe.errors import StoreError
from pathpipe.evaluation.baseline import Asked, colour_baseline


def _cohort(patients: int = 30, classes: int = 2) -> tuple[dict[str, list[float]], dict[str, str], pd.DataFrame]:
    rng = np.random.default_rng(0)
    names = [f"P{number:02d}" for number in range(patients)]
    labels = {name: "xyz"[number % classes] for number, name in enumerate(names)}
    colour = {
        name: (rng.normal([200, 150, 180, 20, 30, 25], [20, 20, 20, 5, 5, 5]) + 15 * (labels[name] == "y")).tolist()
        for name in names
    }
    rows = []
    for fold in range(3):
        for number, name in enumerate(names):
            role = (
                "test"
                if number // classes % 3 == fold
                else "val"
                if number // classes % 3 == (fold + 1) % 3
                else "train"
            )
            rows.append((fold, name, role))
    return colour, labels, pd.DataFrame(rows, columns=["fold", "patient_id", "role"])


def _asked(labels: dict[str, str], *classes: str) -> Asked:
    return Asked("classification", pd.DataFrame({"target": labels}), classes)


def test_equals_a_loop_by_hand() -> None:
    colour, labels, splits = _cohort()
    found = colour_baseline(colour, _asked(labels, "x", "y"), splits).table
    assert set(found["role"]) == {"val", "test"} and set(found["seed"]) == {0}
    for fold in range(3):
        rows = splits[splits["fold"] == fold]
        train = [p for p, role in zip(rows["patient_id"], rows["role"], strict=True) if role == "train"]
        x = np.array([colour[p] for p in train])
        mean, std = x.mean(axis=0), x.std(axis=0)
        model = LogisticRegression(C=1.0, max_iter=10_000).fit((x - mean) / std, [labels[p] == "y" for p in train])
        for role in ("val", "test"):
            here = found[(found["fold"] == fold) & (found["role"] == role)]
            expected = rows[rows["role"] == role]["patient_id"].tolist()
            assert here["patient_id"].tolist() == expected
            by_hand = model.predict_proba((np.array([colour[p] for p in expected]) - mean) / std)
            np.testing.assert_allclose(here[["p_x", "p_y"]], by_hand, atol=1e-10)
            np.testing.assert_allclose(np.exp(here[["logit_x", "logit_y"]]), by_hand, atol=1e-10)
            assert here["target"].tolist() == [labels[p] for p in expected]


def test_test_patients_change_nothing_for_others() -> None:
    colour, labels, splits = _cohort()
    before = colour_baseline(colour, _asked(labels, "x", "y"), splits).table
    tested = set(splits[(splits["fold"] == 0) & (splits["role"] == "test")]["patient_id"])
    colour = {p: [x * (40 if p in tested else 1) for x in value] for p, value in colour.items()}
    after = colour_baseline(colour, _asked(labels, "x", "y"), splits).table
    others = (before["fold"] == 0) & (before["role"] == "val")
    np.testing.assert_array_equal(before.loc[others, "p_y"], after.loc[others, "p_y"])


def test_patients_without_colour_or_label_are_left_out() -> None:
    colour, labels, splits = _cohort()
    del colour["P00"], labels["P01"]
    found = colour_baseline(colour, _asked(labels, "x", "y"), splits).table
    assert not {"P00", "P01"} & set(found["patient_id"])
    assert {"P02", "P03"} <= set(found["patient_id"])


def test_a_class_that_a_fold_never_trains_on_gets_probability_zero() -> None:
    colour, labels, splits = _cohort(classes=3)
    splits = splits[(splits["fold"] == 0) & ~(splits["patient_id"].map(labels).eq("z") & splits["role"].eq("train"))]
    found = colour_baseline(colour, _asked(labels, "x", "y", "z"), splits).table
    assert (found["p_z"] == 0).all()
    np.testing.assert_allclose(found[["p_x", "p_y"]].sum(axis=1), 1)
    assert np.isfinite(found["logit_z"]).all()


def test_refuses_a_fold_that_trains_on_one_class() -> None:
    colour, labels, splits = _cohort()
    splits = splits[~(splits["patient_id"].map(labels).eq("y") & splits["role"].eq("train"))]
    with pytest.raises(StoreError, match="fold 0 trains on fewer than two classes"):
        colour_baseline(colour, _asked(labels, "x", "y"), splits)


def test_of_numbers_it_is_ridge_regression() -> None:
    colour, labels, splits = _cohort()
    age = {name: 40 + number + 0.1 * colour[name][0] for number, name in enumerate(labels)}
    found = colour_baseline(colour, Asked("regression", pd.DataFrame({"target": age})), splits)
    assert found.kind == "regression"
    rows = splits[splits["fold"] == 1]
    train, test = (rows.loc[rows["role"] == role, "patient_id"].tolist() for role in ("train", "test"))
    x, y = np.array([colour[p] for p in train]), np.array([age[p] for p in train])
    mean, std = x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / std
    beta = np.linalg.solve(z.T @ z + np.eye(6), z.T @ (y - y.mean()))
    here = found.table[(found.table["fold"] == 1) & (found.table["role"] == "test")]
    assert here["patient_id"].tolist() == test and here["target"].tolist() == [age[p] for p in test]
    by_hand = y.mean() + (np.array([colour[p] for p in test]) - mean) / std @ beta
    np.testing.assert_allclose(here["prediction"], by_hand)


def _times(colour: dict[str, list[float]]) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    time = {name: float(rng.exponential(10 * np.exp(-0.05 * (values[0] - 200)))) for name, values in colour.items()}
    return pd.DataFrame({"time": time, "event": {name: int(rng.random() < 0.8) for name in colour}})


def test_of_times_it_is_a_cox_model() -> None:
    colour, _, splits = _cohort(patients=90)
    truth = _times(colour)
    found = colour_baseline(colour, Asked("survival", truth, times=(4.0, 9.0)), splits)
    assert found.times == (4.0, 9.0) and found.kind == "survival"
    rows = splits[splits["fold"] == 0]
    train = rows.loc[rows["role"] == "train", "patient_id"].tolist()
    x = np.array([colour[p] for p in train])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    model = PHReg(truth.loc[train, "time"], z, truth.loc[train, "event"], ties="efron").fit(disp=0)
    here = found.table[(found.table["fold"] == 0) & (found.table["role"] == "test")]
    risk = (np.array([colour[p] for p in here["patient_id"]]) - x.mean(axis=0)) / x.std(axis=0) @ model.params
    np.testing.assert_allclose(here["risk"], risk, atol=1e-5)
    time, event = truth.loc[train, "time"].to_numpy(), truth.loc[train, "event"].to_numpy()
    hazard = sum(
        1 / np.exp(z[time >= t] @ model.params).sum() for t, seen in zip(time, event, strict=True) if seen and t <= 9
    )
    np.testing.assert_allclose(here["survival_9"], np.exp(-hazard * np.exp(risk)), atol=1e-5)


def test_refuses_times_that_teach_nothing() -> None:
    colour, _, splits = _cohort()
    truth = _times(colour).assign(event=0)
    with pytest.raises(StoreError, match="fold 0 fits no Cox model of colour: all patients are censored"):
        colour_baseline(colour, Asked("survival", truth), splits)
