"""A survival and a regression target by the commands people type, to numbers, new slides and what they lack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.integration.conftest import Call

QUICK = ("--folds", "2", "--epochs", "3", "--bootstrap", "100", "-s", "hidden=16")
SURVIVAL = "abmil-months-dead-survival-efficientnet-lite0"


@pytest.fixture
def run(extracted: Path, tmp_path: Path) -> Path:
    """The extracted cohort with a time, an event and an age of each patient."""
    run = tmp_path / "run"
    shutil.copytree(extracted, run)
    table = pd.read_csv(run / "cohort.csv")
    number = table["patient_id"].str.removeprefix("P").astype(int)
    table["months"], table["dead"] = 3 + 2.5 * number, (number % 3 > 0).astype(int)
    table["age"] = [str(50 + value) if value != 4 else "" for value in number]
    table.to_csv(run / "cohort.csv", index=False)
    return run


def test_survival_with_a_covariate(pathpipe: Call, run: Path, tmp_path: Path) -> None:
    options = ("--target", "months/dead:survival", "--task-settings", "bins=2", "--covariates", "age")
    done = pathpipe("evaluate", run, *options, *QUICK, "--slides-of-patient", "pool")
    assert "C-index" in done.stderr + done.stdout
    found = json.loads((run / "evaluate" / SURVIVAL / "evaluation.json").read_text())["model"]
    assert (found["kind"], found["patients"]) == ("survival", {"censored": 4, "event": 6})
    assert {"C-index (Uno, within folds)", "mean dynamic AUC", "integrated Brier score"} <= set(found["metrics"])
    assert [group["patients"] for group in found["risk_groups"]["groups"]][2] == 10
    table = pd.read_csv(run / "evaluate" / SURVIVAL / "predictions.csv")
    assert len(table[table["role"] == "test"]) == 10 and np.isfinite(table["risk"]).all()

    pathpipe("heatmap", run, "--slide", "S09", "--score", "occlusion")  # one of the patient's two
    said = json.loads((run / "heatmaps" / SURVIVAL / "S09" / "summary.json").read_text())
    mean = table[(table["patient_id"] == "P9") & (table["role"] == "test")]["risk"].mean()
    assert said["values"] == pytest.approx({"risk": mean}, abs=1e-5) and said["models_compared"] == 1
    assert said["score"] == "loss without the tile, risk" and said["tiles"] < said["tiles_of_patient"]

    refused = pathpipe(
        "predict", run / "train" / SURVIVAL, table_without_age(run, tmp_path), "-o", tmp_path / "a", check=2
    )
    assert "the model takes the covariates age" in refused.stderr
    assert not (tmp_path / "a").exists()
    own = table[table["fold"] == 1].drop_duplicates("patient_id").set_index("patient_id")["risk"]
    alone, few = tmp_path / "c", ["P2", "P4", "P9"]  # P4 of unknown age, P9 with two slides
    cohort = pd.read_csv(run / "cohort.csv", dtype=str, keep_default_na=False)
    cohort[cohort["patient_id"].isin(few)].to_csv(tmp_path / "few.csv", index=False)
    pathpipe("predict", run / "train" / SURVIVAL / "fold-1-seed-0", tmp_path / "few.csv", "-o", alone)
    said = pd.read_csv(alone / "predictions.csv").set_index("patient_id")
    assert list(said.index) == few and (said["sd_risk"] == 0).all(), "one model"
    np.testing.assert_allclose(said["risk"], own[few], rtol=1e-4)


def table_without_age(run: Path, folder: Path) -> Path:
    """The same slides, of whose patients less is known."""
    path = folder / "without.csv"
    pd.read_csv(run / "cohort.csv").drop(columns="age").to_csv(path, index=False)
    return path


def test_regression(pathpipe: Call, run: Path) -> None:
    refused = pathpipe("split", run, "--target", "label:regression", check=None)
    assert refused.returncode and "is no number" in refused.stderr and "column `label`" in refused.stderr
    pathpipe("split", run, "--target", "months:regression", *QUICK[:2])
    pathpipe("evaluate", run, *QUICK[2:])
    found = json.loads(
        (run / "evaluate" / "abmil-months-regression-efficientnet-lite0" / "evaluation.json").read_text()
    )
    assert found["model"]["kind"] == found["baseline"]["kind"] == "regression"
    assert set(found["model"]["metrics"]) >= {"MAE", "RMSE", "R2", "Pearson", "Spearman", "calibration slope"}
    assert len(found["model"]["curves"]["scatter"]["x"]) == 10


def test_grades(pathpipe: Call, run: Path) -> None:
    table = pd.read_csv(run / "cohort.csv")
    table["grade"] = [f"G{1 + int(months > 12) + int(months > 20)}" for months in table["months"]]
    table.to_csv(run / "cohort.csv", index=False)
    done = pathpipe("evaluate", run, "--target", "grade:ordinal", *QUICK)
    assert "quadratic kappa" in done.stdout
    found = json.loads((run / "evaluate" / "abmil-grade-ordinal-efficientnet-lite0" / "evaluation.json").read_text())
    assert found["model"]["kind"] == found["baseline"]["kind"] == "ordinal"
    assert found["model"]["classes"] == ["G1", "G2", "G3"] and sum(map(sum, found["model"]["confusion"])) == 10
