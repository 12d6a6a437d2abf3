"""Splits: what is refused, and what files look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathpipe.errors import CohortError, ExitCode, LeakError
from pathpipe.evaluation.predictions import Predictions
from pathpipe.settings import SplitSettings
from pathpipe.training.folds import make_splits
from pathpipe.training.splits import Splits

LABELS = {f"p{number:02}": "ab"[number % 2] for number in range(20)}
GOOD = "fold,patient_id,role\n0,a,train\n0,b,val\n0,c,test\n"


def test_sizes_of_folds() -> None:
    splits = make_splits(LABELS, SplitSettings(folds=5))
    assert splits.folds == (0, 1, 2, 3, 4)
    for fold in splits.folds:
        roles = {role: splits.patients(fold, role) for role in ("train", "val", "test")}
        assert {role: len(patients) for role, patients in roles.items()} == {"train": 12, "val": 4, "test": 4}
        for patients in roles.values():
            assert {LABELS[patient] for patient in patients} == {"a", "b"}


def test_the_seed_decides() -> None:
    first, again, other = (make_splits(LABELS, SplitSettings(seed=seed)) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first.table, again.table)
    for role in ("val", "test"):
        assert [first.patients(f, role) for f in first.folds] != [other.patients(f, role) for f in first.folds]


def test_validation_patients_differ_between_folds() -> None:
    splits = make_splits(LABELS, SplitSettings())
    assert len({splits.patients(fold, "val") for fold in splits.folds}) == 5


def test_file_round_trip(tmp_path: Path) -> None:
    labels = {"NA": "a", "007": "a", "ü,": "a", "1": "b", "2": "b", "3": "b"}
    splits = make_splits(labels, SplitSettings(folds=2))
    splits.write(tmp_path / "splits.csv")
    pd.testing.assert_frame_equal(Splits.read(tmp_path / "splits.csv").table, splits.table)
    text = (tmp_path / "splits.csv").read_text(encoding="utf-8")
    assert text.startswith("fold,patient_id,role\n0,007,")


def test_reads_a_users_own_file(tmp_path: Path) -> None:
    table = pd.DataFrame({"role": ["test", "val", "train"], "patient_id": ["1", "2", "3"], "why": "", "fold": 7})
    table.to_csv(tmp_path / "own.csv", index=False, encoding="utf-8-sig")
    splits = Splits.read(tmp_path / "own.csv")
    assert splits.folds == (7,)
    assert [splits.patients(7, role) for role in ("train", "val", "test")] == [("3",), ("2",), ("1",)]


def test_a_class_with_fewer_patients_than_folds() -> None:
    labels = {**LABELS, "q1": "c", "q2": "c", "q3": "c"}
    message = r"5 folds need 5 patients of every class, there are a: 10, b: 10, c: 3 .hint: use at most 3 folds"
    with pytest.raises(CohortError, match=message):
        make_splits(labels, SplitSettings(folds=5))
    assert make_splits(labels, SplitSettings(folds=3)).folds == (0, 1, 2)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "two or more classes are needed, patients by class are none"),
        ({"p": "a", "q": "a"}, "two or more classes are needed, patients by class are a: 2"),
        ({"p": "a", "q": "a", "r": "b", "s": "b"}, "too few patients to train, validate and test: a: 2, b: 2"),
    ],
)
def test_refuses_too_small_cohorts(labels: dict, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        make_splits(labels, SplitSettings(folds=2))


def test_refuses_leaks(tmp_path: Path) -> None:
    path = tmp_path / "leak.csv"
    extra = "".join(f"0,{name},train\n0,{name},test\n" for name in ("P7", "P2", "P1", "P3", "P4", "P5"))
    path.write_text(GOOD + extra)
    with pytest.raises(LeakError) as caught:
        Splits.read(path)
    assert caught.value.exit_code is ExitCode.REFUSED == 4
    assert caught.value.what == "6 patients are in both train and test of fold 0: P1, P2, P3, P4, P5 and 1 more"
    path.write_text(GOOD + "0,c,val\n")
    with pytest.raises(LeakError, match="1 patient is in both val and test of fold 0: c"):
        Splits.read(path)


def test_one_patient_may_change_roles_between_folds() -> None:
    rows = [
        (0, "a", "train"),
        (0, "b", "val"),
        (0, "c", "test"),
        (1, "c", "train"),
        (1, "b", "val"),
        (1, "a", "test"),
    ]
    assert Splits(pd.DataFrame(rows, columns=["fold", "patient_id", "role"])).folds == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fold,patient,role\n0,a,train\n", "no column `patient_id`"),
        ("fold,patient_id,role\n", "has no rows"),
        (GOOD + "x,d,train\n", "fold `x` is no whole number"),
        (GOOD + "0.5,d,train\n", "fold `0.5` is no whole number"),
        (GOOD + "0,d,tset\n", "`tset` is no role.*did you mean `test`"),
        (GOOD + "1,a,train\n1,b,test\n", "fold 1 has no patient to validate on"),
        (GOOD + "0,a,train\n", "1 patient is listed twice in one fold: a"),
        ("", "can't be read as a split"),
    ],
)
def test_refuses_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(CohortError, match=message):
        Splits.read(path)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="can't be read as a split"):
        Splits.read(tmp_path / "none.csv")


NESTED = "fold,patient_id,role,inner\n0,a,train,0\n0,b,val,1\n0,c,train,2\n0,d,test,-1\n"


def test_nested_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(NESTED)
    splits = Splits.read(path)
    splits.write(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == NESTED
    inner = splits.inner(0)
    assert inner is not None
    roles = [[inner.patients(number, role) for role in ("train", "val", "test")] for number in inner.folds]
    assert roles == [[("c",), ("b",), ("a",)], [("a",), ("c",), ("b",)], [("b",), ("a",), ("c",)]]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (NESTED.replace("test,-1", "test,1"), LeakError, "1 patients are tested and in an inner fold: d"),
        (NESTED.replace("train,2", "train,1"), CohortError, "fold 0 has inner folds 0, 1 .hint: three or more"),
        (NESTED.replace("train,2", "train,3"), CohortError, "fold 0 has inner folds 0, 1, 3"),
        (NESTED.replace("train,2", "train,x"), CohortError, "inner `x` is no whole number"),
    ],
)
def test_refuses_broken_inner_folds(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        Splits.read(path)


def test_a_patient_tested_in_several_folds_counts_once_in_evaluation() -> None:
    rows = [(0, "a", "train"), (0, "b", "val"), (0, "c", "test"), (1, "b", "train"), (1, "a", "val"), (1, "c", "test")]
    splits = Splits.of(rows)
    assert splits.tested_again and not Splits.of(rows[:3]).tested_again
    parts = []
    for fold, score in ((0, 0.2), (1, 0.6)):
        for role in ("val", "test"):
            patients = splits.patients(fold, role)
            scores = np.array([[1 - score, score]])
            parts.append(Predictions.of(["x", "y"], patients, ["y"], np.log(scores), scores, (fold, 0, role)))
    predictions = Predictions.concatenate(parts)
    tested, validated = predictions.pooled("test"), predictions.pooled("val")
    assert tested.patients == ("c",) and tested.folds.tolist() == [0]
    np.testing.assert_allclose(tested.probabilities, [[0.6, 0.4]])
    assert validated.folds.tolist() == [0, 1]
