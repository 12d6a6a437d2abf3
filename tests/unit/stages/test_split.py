"""Stage `split`: cohort tables to folds, and what is refused before any slide is worked on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pathpipe.cohort import Cohort
from pathpipe.errors import CohortError, LeakError, StoreError
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.split import STAGE, labelled_patients, preflight, read_splits, split_name, split_notes


def _run(tmp_path: Path, **columns: list[str]) -> Run:
    """Twelve slides of eleven patients: the last two are of one."""
    patients = [f"p{min(number, 10):02}" for number in range(12)]
    table = pd.DataFrame({"path": [f"{n}.svs" for n in range(12)], "patient_id": patients, **columns})
    table.to_csv(tmp_path / "cohort.csv", index=False)
    return Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))


def _settings(**split: object) -> RunSettings:
    return RunSettings.model_validate({"split": {"target": "y", "folds": 2, **split}})


Y = [*"abababababb", "b"]


def test_patients_without_a_label_are_kept_out_and_named(tmp_path: Path) -> None:
    run = _run(tmp_path, y=["", *Y[1:]], age=["50", "", *["60"] * 10])
    settings = _settings()
    receipt = bring_up_to_date(STAGE, run, "cohort", settings)
    assert (receipt.state, dict(receipt.counts)) == ("done", {"patients": 10, "folds": 2, "kept out": 1})
    assert split_notes(run.split(split_name(settings))) == ([], ["p00"])
    several = labelled_patients(run.cohort, "y,age:regression")
    assert several.kept_out == () and several.values["p00"] == ("",)
    assert bring_up_to_date(STAGE, run, "cohort", settings).state == "current"


def test_the_order_of_the_table_is_nothing(tmp_path: Path) -> None:
    run = _run(tmp_path, y=Y, site=[*"nnnsssxxxyyy"])
    settings = _settings(by_site="preserved")
    assert bring_up_to_date(STAGE, run, "cohort", settings).state == "done"
    before = read_splits(run, settings).table
    pd.read_csv(tmp_path / "cohort.csv", dtype=str)[::-1].to_csv(tmp_path / "cohort.csv", index=False)
    again = Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))
    assert bring_up_to_date(STAGE, again, "cohort", settings).state == "current"
    other = Run.create(tmp_path / "other", again.cohort)
    bring_up_to_date(STAGE, other, "cohort", settings)
    pd.testing.assert_frame_equal(read_splits(other, settings).table, before)


def test_a_fixed_test_set_by_column_and_by_list(tmp_path: Path) -> None:
    marked = ["test", "test", "train", "train", "test", "test", *["train"] * 6]
    run = _run(tmp_path, y=Y, set=marked)
    (tmp_path / "list.txt").write_text("p00\n1\n\n4.svs\np05\n")
    for given in ({"test_column": "set"}, {"test_list": str(tmp_path / "list.txt")}):
        settings = _settings(**given)
        bring_up_to_date(
            STAGE,
            run,
            "cohort",
            settings.model_copy(update={"execution": settings.execution.model_copy(update={"stale": "remake"})}),
        )
        splits = read_splits(run, settings)
        assert [splits.patients(fold, "test") for fold in (0, 1)] == [("p00", "p01", "p04", "p05")] * 2
        assert splits.patients(0, "val") == splits.patients(1, "train")


@pytest.mark.parametrize(
    ("columns", "given", "error", "message"),
    [
        ({"set": ["train"] * 11 + ["test"]}, {"test_column": "set"}, LeakError, "1 patients have slides in the fixed"),
        (
            {"set": ["a"] * 6 + ["b"] * 6},
            {"test_column": "set"},
            CohortError,
            "no slide has the value `test` .*it has a, b",
        ),
        ({}, {"test_column": "sett"}, CohortError, "the cohort has no column `sett`"),
        ({}, {"group": "family"}, CohortError, "the cohort has no column `family`"),
        ({}, {"target": "z"}, CohortError, "the cohort has no column `z`"),
        ({}, {"target": "y:regression"}, CohortError, "`a` of patient p00 is no number"),
        ({}, {"folds_from": "nowhere"}, CohortError, "there are no folds"),
        ({}, {"test_list": "nowhere"}, CohortError, "can't be read as a list"),
    ],
)
def test_what_is_refused_beforehand(
    tmp_path: Path, columns: dict, given: dict, error: type[Exception], message: str
) -> None:
    run = _run(tmp_path, y=Y, **columns)
    with pytest.raises(error, match=message):
        preflight(run, _settings(**given))


def test_a_list_with_strangers_or_nobody(tmp_path: Path) -> None:
    run = _run(tmp_path, y=Y)
    for text, message in (("p00\nq1\nq2\n", "names 2 that are not in the cohort: q1, q2"), ("\n", "is empty")):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(CohortError, match=message):
            preflight(run, _settings(test_list=str(tmp_path / "list.txt")))


def test_given_folds_are_known_by_content_not_by_place(tmp_path: Path) -> None:
    run = _run(tmp_path, y=Y)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "splits_0.csv").write_text(
            ",train,val,test\n" + "".join(f"{n},{n},{4 + n},{8 + n}\n" for n in range(4))
        )
    assert bring_up_to_date(STAGE, run, "cohort", _settings(folds_from=str(tmp_path / "one"))).state == "done"
    again = _settings(folds_from=str(tmp_path / "two"))
    assert bring_up_to_date(STAGE, run, "cohort", again).state == "current"
    assert read_splits(run, again).patients(0, "test") == ("p08", "p09", "p10")
    (tmp_path / "two" / "splits_0.csv").write_text(",train,val,test\n0,0,1,2\n1,3,4,5\n")
    assert bring_up_to_date(STAGE, run, "cohort", again).state == "stale"


def test_a_leak_is_a_refusal_and_a_damaged_summary_no_result(tmp_path: Path) -> None:
    run = _run(tmp_path, y=Y)
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,10,1,11\n1,3,4,5\n")
    receipt = bring_up_to_date(STAGE, run, "cohort", _settings(folds_from=str(tmp_path)))
    assert receipt.state == "failed" and receipt.refused
    bring_up_to_date(STAGE, run, "cohort", _settings())
    folder = run.split(split_name(_settings()))
    (folder / "split.json").write_text("{}")
    with pytest.raises(StoreError, match="can't be read as a split"):
        split_notes(folder)
    assert bring_up_to_date(STAGE, run, "cohort", _settings()).state == "done"
