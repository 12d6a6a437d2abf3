"""Folds from files of CLAM, MCAT and our own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pathpipe.errors import CohortError, LeakError
from pathpipe.settings import SplitSettings
from pathpipe.settings.target import parse_target
from pathpipe.training.folds import adopt_folds
from pathpipe.training.foreign_splits import find_patients, foreign_digest, read_foreign
from pathpipe.training.strata import Strata, strata_of

PATIENTS = {"s1.svs": "A", "s2": "A", "s3": "B", "s4": "C", "s5": "D"}  # slide_id -> patient_id
WIDE = ",train,val,test\n0,s1,s4,s5\n1,s2,,\n2,s3,,\n"
TALL = (
    ",train,val,test\ns1,True,False,False\ns2,TRUE,False,False\ns3,True,False,False\n"
    "s4,False,True,False\ns5,False,False,True\n"
)
ROWS = {(0, "A", "train"), (0, "B", "train"), (0, "C", "val"), (0, "D", "test")}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("splits_0.csv", WIDE),
        ("splits_0_bool.csv", TALL),
        ("splits.csv", "fold,patient_id,role\n0,A,train\n0,B,train\n0,C,val\n0,D,test\n"),
    ],
)
def test_three_layouts_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "splits_0_descriptor.csv").write_text(",train,val,test\na,3,1,1\n")
    for source in (tmp_path, tmp_path / name):
        found = read_foreign(source, PATIENTS)
        assert set(found.rows) == ROWS
        assert found.notes == ()


def test_inner_folds_are_not_taken_over_and_it_says_so(tmp_path: Path) -> None:
    nested = "fold,patient_id,role,inner\n0,A,train,0\n0,B,train,1\n0,C,val,2\n0,D,test,-1\n"
    (tmp_path / "splits.csv").write_text(nested)
    found = read_foreign(tmp_path, PATIENTS)
    assert set(found.rows) == ROWS
    assert found.notes == ("the inner folds that are given are left out: `--inner-folds` deals out new ones",)


def test_a_fold_in_both_forms_is_read_once_and_folds_by_number(tmp_path: Path) -> None:
    (tmp_path / "splits_0_bool.csv").write_text(TALL.replace("s5,False,False,True", "s5,True,False,False"))
    (tmp_path / "splits_0.csv").write_text(WIDE)
    (tmp_path / "splits_10.csv").write_text(",train,val,test\n0,s5,s4,s3\n")
    rows = read_foreign(tmp_path, PATIENTS).rows
    assert {row for row in rows if row[0] == 0} == ROWS
    assert {row for row in rows if row[0] == 10} == {(10, "D", "train"), (10, "C", "val"), (10, "B", "test")}
    before = foreign_digest(tmp_path)
    (tmp_path / "splits_0_bool.csv").unlink()
    assert foreign_digest(tmp_path) == before
    (tmp_path / "splits_10.csv").write_text(",train,val,test\n0,s5,s3,s4\n")
    assert foreign_digest(tmp_path) != before


def test_slides_of_one_patient_in_two_roles_are_a_leak(tmp_path: Path) -> None:
    (tmp_path / "splits_0.csv").write_text(WIDE.replace("s5", "s2.svs"))
    found = read_foreign(tmp_path, PATIENTS)
    labels = Strata.of_labels({"A": "x", "B": "y", "C": "x", "D": "y"})
    with pytest.raises(LeakError, match="1 patient is in both train and test of fold 0: A"):
        adopt_folds(found.rows, labels, SplitSettings())


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,s1,B,C\n1,other,,\n")
    assert read_foreign(tmp_path, PATIENTS).notes == (
        "1 ids in the given folds are not in the cohort: other",
        "1 patients of the cohort are in none of the given folds: D",
    )


def test_ids_mean_patients_or_slides_with_or_without_suffix() -> None:
    names = ["A", "s1", "s1.svs", "s2.ndpi", "s3.5", "D"]
    found = find_patients(names, PATIENTS)
    assert list(found.values()) == ["A", "A", "A", "A", None, "D"]
    with pytest.raises(CohortError, match="`B` is a patient, and a slide of another patient"):
        find_patients(["B"], {**PATIENTS, "B": "A"})
    two = {"a.svs": "A", "a.tif": "B"}
    assert find_patients(["a.svs", "a.tif"], two) == {"a.svs": "A", "a.tif": "B"}
    with pytest.raises(CohortError, match="`a` means slides of two patients: A, B"):
        find_patients(["a"], two)


def test_numeric_ids_that_pandas_wrote_as_floats(tmp_path: Path) -> None:
    """CLAM's columns have different lengths: pandas reads ids of the shorter ones as floats, and writes them so."""
    columns = [pd.Series([101, 102, 3]), pd.Series([7]), pd.Series([9, 10])]
    pd.concat(columns, axis=1, keys=["train", "val", "test"]).to_csv(tmp_path / "splits_0.csv")
    assert ",7.0,9.0" in (tmp_path / "splits_0.csv").read_text()
    found = read_foreign(tmp_path, {str(number): f"P{number}" for number in (101, 102, 3, 7, 9, 10)})
    assert found.notes == ()
    assert {(patient, role) for _, patient, role in found.rows} == {
        *((f"P{number}", "train") for number in (101, 102, 3)),
        ("P7", "val"),
        *((f"P{number}", "test") for number in (9, 10)),
    }
    assert find_patients(["7.0"], {"7.0": "A", "7": "B"}) == {"7.0": "A"}


def test_a_role_of_which_nobody_is_in_the_cohort_says_so(tmp_path: Path) -> None:
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,s1,other,another\n1,s3,,\n2,s4,,\n")
    found = read_foreign(tmp_path, PATIENTS)
    labels = Strata.of_labels({"A": "x", "B": "y", "C": "y"})
    with pytest.raises(CohortError, match=r"fold 0 has no patient with a label left in test .*: other, another;"):
        adopt_folds(found.rows, labels, SplitSettings(), found.notes)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no folds .hint: files are called splits_0.csv"),
        (
            {"splits_0.csv": "a,b\n1,2\n"},
            "has columns a, b .hint: expected fold, patient_id, role, or train, val and test",
        ),
        ({"splits_0.csv": ",train,val\n0,x,y\n"}, "none of its 2 ids is a slide or patient of the cohort: x, y"),
    ],
)
def test_refuses_what_is_no_split(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CohortError, match=message):
        read_foreign(tmp_path, PATIENTS)
    with pytest.raises(CohortError, match="there are no folds"):
        read_foreign(tmp_path / "none", PATIENTS)


def test_mcat_folds_of_a_real_cohort(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "survival" / "tcga_blca_all_clean.csv.zip", low_memory=False, dtype=str)
    patients = dict(zip(table["slide_id"], table["case_id"], strict=True))
    source = shared_data / "survival" / "splits" / "tcga_blca"
    found = read_foreign(source, patients)
    assert found.notes == ()
    columns = [table[name].astype(str).tolist() for name in ("case_id", "survival_months", "censorship")]
    values = {case: (months, censored) for case, months, censored in zip(*columns, strict=True)}
    strata = strata_of(parse_target("survival_months/!censorship:survival")[0], values, 5)
    splits = adopt_folds(found.rows, strata, SplitSettings()).splits
    assert not splits.tested_again
    for fold in range(5):
        given = pd.read_csv(source / f"splits_{fold}.csv", dtype=str)
        assert set(splits.patients(fold, "test")) == set(given["val"].dropna())
        left = {*splits.patients(fold, "train"), *splits.patients(fold, "val")}
        assert left == set(given["train"].dropna())
        assert len(splits.patients(fold, "val")) == round(0.2 * len(left))
