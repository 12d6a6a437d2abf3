"""`pathpipe evaluate` as people call it: numbers on stdout, subgroups, and several models compared."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.conftest import Call

ABMIL, MEAN = "abmil-label-efficientnet-lite0", "mean-label-efficientnet-lite0"


@pytest.fixture(scope="module")
def two(pathpipe: Call, reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reported run with a second model."""
    run = tmp_path_factory.mktemp("two") / "run"
    shutil.copytree(reported, run)
    pathpipe("train", run, "--model", "mean", "--epochs", "2", "-s", "hidden=16")
    return run


def test_numbers_thresholds_and_subgroups(pathpipe: Call, two: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(two, run)
    table = pd.read_csv(run / "cohort.csv")
    table["site"] = ["north" if patient in ("P0", "P1", "P2") else "south" for patient in table["patient_id"]]
    table.to_csv(run / "cohort.csv", index=False)
    asked = ("--subgroups", "site", "--threshold", "sensitivity=0.9", "--interval", "percentile", "--stale", "remake")
    done = pathpipe("evaluate", run / "train" / ABMIL, *asked)
    printed = list(csv.DictReader(done.stdout.splitlines(), delimiter="\t"))
    found = json.loads((run / "evaluate" / ABMIL / "evaluation.json").read_text())
    assert [row["metric"] for row in printed] == list(found["model"]["metrics"])
    assert float(printed[0]["value"]) == pytest.approx(found["model"]["metrics"]["AUROC"]["value"], abs=1e-3)
    assert float(printed[0]["colour only"]) == pytest.approx(found["baseline"]["metrics"]["AUROC"]["value"], abs=1e-3)
    assert (found["threshold"], found["interval"]) == ("sensitivity=0.9", "percentile")
    groups = [(group["value"], group["patients"]) for group in found["model"]["subgroups"]]
    assert groups == [("north", 3), ("south", 7)]
    refused = pathpipe("evaluate", run / "train" / ABMIL, "--subgroups", "sitee", "--stale", "remake", check=2)
    assert "no column `sitee`" in refused.stderr


def test_two_models_and_the_baseline_are_compared(pathpipe: Call, two: Path, tmp_path: Path) -> None:
    models = (two / "train" / ABMIL, two / "train" / MEAN)
    done = pathpipe("evaluate", *models)
    folder = two / "compare" / f"{ABMIL}-vs-{MEAN}"
    assert f"comparison: {folder}" in done.stderr and "10 patients that all models tested" in done.stderr
    printed = list(csv.DictReader(done.stdout.splitlines(), delimiter="\t"))
    found = json.loads((folder / "comparison.json").read_text())["comparisons"]["label"]
    assert [model["name"] for model in found["models"]] == [ABMIL, MEAN, "colour only (6 numbers)"]
    assert len(printed) == len(found["differences"]) == 3 * 5
    assert printed[0]["real?"] == found["differences"][0]["verdict"]
    of_model = json.loads((two / "evaluate" / ABMIL / "evaluation.json").read_text())["model"]["metrics"]["AUROC"]
    assert found["models"][0]["metrics"]["AUROC"] == of_model

    again = tmp_path / "again"
    pathpipe("evaluate", *models, "--no-baseline", "-o", again, "--quiet")
    assert len(json.loads((again / "comparison.json").read_text())["comparisons"]["label"]["models"]) == 2
    assert str(two) not in (again / "comparison.json").read_text()
    refused = pathpipe("evaluate", *models, "-o", two, check=2)
    assert "is there already and is no comparison" in refused.stderr


def test_models_of_two_runs_are_compared_on_the_patients_of_both(pathpipe: Call, two: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(two, other)
    table = pd.read_csv(other / "cohort.csv")
    table[table["patient_id"] != "P3"].to_csv(other / "cohort.csv", index=False)
    pathpipe("evaluate", other, "--stale", "remake", "--model", "mean", "--epochs", "2", "--name", "fewer")
    done = pathpipe("evaluate", two / "train" / ABMIL, other / "train" / "fewer", "--no-baseline")
    found = json.loads((two / "compare" / f"{ABMIL}-vs-fewer" / "comparison.json").read_text())["comparisons"]["label"]
    assert sum(found["patients"].values()) == 9 and [model["patients"] for model in found["models"]] == [10, 9]
    assert f"1 of 10 patients of {ABMIL} are left out" in done.stderr
