"""The colour baseline against the same thing written out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from pathpipe.errors import StoreError
from pathpipe.evaluation.baseline import colour_baseline


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


def test_equals_a_loop_by_hand() -> None:
    colour, labels, splits = _cohort()
    found = colour_baseline(colour, labels, ("x", "y"), splits).table
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
    before = colour_baseline(colour, labels, ("x", "y"), splits).table
    tested = set(splits[(splits["fold"] == 0) & (splits["role"] == "test")]["patient_id"])
    colour = {p: [x * (40 if p in tested else 1) for x in value] for p, value in colour.items()}
    after = colour_baseline(colour, labels, ("x", "y"), splits).table
    others = (before["fold"] == 0) & (before["role"] == "val")
    np.testing.assert_array_equal(before.loc[others, "p_y"], after.loc[others, "p_y"])


def test_patients_without_colour_or_label_are_left_out() -> None:
    colour, labels, splits = _cohort()
    del colour["P00"], labels["P01"]
    found = colour_baseline(colour, labels, ("x", "y"), splits).table
    assert not {"P00", "P01"} & set(found["patient_id"])
    assert {"P02", "P03"} <= set(found["patient_id"])


def test_a_class_that_a_fold_never_trains_on_gets_probability_zero() -> None:
    colour, labels, splits = _cohort(classes=3)
    splits = splits[(splits["fold"] == 0) & ~(splits["patient_id"].map(labels).eq("z") & splits["role"].eq("train"))]
    found = colour_baseline(colour, labels, ("x", "y", "z"), splits).table
    assert (found["p_z"] == 0).all()
    np.testing.assert_allclose(found[["p_x", "p_y"]].sum(axis=1), 1)
    assert np.isfinite(found["logit_z"]).all()


def test_refuses_a_fold_that_trains_on_one_class() -> None:
    colour, labels, splits = _cohort()
    splits = splits[~(splits["patient_id"].map(labels).eq("y") & splits["role"].eq("train"))]
    with pytest.raises(StoreError, match="fold 0 trains on fewer than two classes"):
        colour_baseline(colour, labels, ("x", "y"), splits)
