"""`pathpipe split` and `pathpipe audit` as people call them, and a leak that stops training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.conftest import Call


@pytest.fixture
def copied(extracted: Path, tmp_path: Path) -> Path:
    """A run of ten patients with features, of one's own."""
    return Path(shutil.copytree(extracted, tmp_path / "run"))


def _table(run: Path) -> pd.DataFrame:
    (path,) = run.glob("splits/*/splits.csv")
    return pd.read_csv(path, dtype=str)


def test_split_prints_what_is_in_each_fold(pathpipe: Call, copied: Path) -> None:
    done = pathpipe("split", copied, "--folds", "3", "--inner-folds", "3")
    lines = done.stdout.splitlines()
    assert lines[0] == "fold\trole\tpatients\tslides\timplant\tplain"
    assert len(lines) == 10
    rows = [line.split("\t") for line in lines[1:]]
    assert sum(int(row[2]) for row in rows if row[1] == "test") == 10
    assert sum(int(row[3]) for row in rows if row[1] == "test") == 11
    assert set(_table(copied)["inner"]) == {"-1", "0", "1", "2"}


def test_a_list_of_test_slides(pathpipe: Call, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("S00\nS01.svs\nP2\n")
    pathpipe("split", copied, "--folds", "1", "--test-list", tmp_path / "test.txt", "-q")
    table = _table(copied)
    assert set(table.loc[table["role"] == "test", "patient_id"]) == {"P0", "P1", "P2"}
    done = pathpipe("split", copied, "--from", tmp_path, check=2)
    assert "folds_from says who is in which role: leave out test_list" in done.stderr


def test_a_leak_in_given_folds_is_refused(pathpipe: Call, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,S00,S05,S10\n1,S01,S06,S08\n2,S09,,\n")
    done = pathpipe("split", copied, "--from", tmp_path, check=4)
    assert "1 patient is in both train and test of fold 0: P9" in done.stderr


def test_a_slide_under_two_names_stops_training_until_it_is_allowed(pathpipe: Call, copied: Path) -> None:
    cohort = pd.read_csv(copied / "cohort.csv", dtype=str, keep_default_na=False)
    twin = cohort[cohort["slide_id"] == "S00"].assign(slide_id="S00b", patient_id="P0b")
    other = copied / "S00b.svs"
    shutil.copyfile(Path(twin["path"].iloc[0]), other)
    pd.concat([cohort, twin.assign(path=str(other))]).to_csv(copied / "cohort.csv", index=False)
    done = pathpipe("train", copied, "--folds", "3", "--epochs", "1", check=4)
    assert "1 pairs of slides in different roles hold the same slide under two names" in done.stderr
    assert "--allow-leaks same-file" in done.stderr and not (copied / "train").exists()
    (found,) = copied.glob("audit/*/audit.json")
    leak = json.loads(found.read_text())["findings"][0]
    assert (leak["kind"], leak["severity"], leak["members"]) == ("same-file", "leak", ["S00 = S00b"])
    done = pathpipe("audit", copied, "--folds", "3", "--allow-leaks", "same-file")
    assert "12 slides of 11 patients, 3 folds, efficientnet-lite0: 1 leak" in done.stdout
    assert "column `site` says nothing of these patients" in done.stdout
    assert "audit: 1 current" in done.stderr
