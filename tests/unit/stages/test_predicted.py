"""Tables of new slides: familiarity, failures as rows, files in every form."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pathpipe.cohort import Cohort
from pathpipe.errors import MissingError, SettingsError
from pathpipe.run import Run
from pathpipe.stages.predict import Ensemble, load_ensemble
from pathpipe.stages.predicted import Predicted, predict_run, refuse_forms, write_predicted
from pathpipe.training.checkpoint import load_checkpoint
from tests.unit.stages.made_up import bring, made_up_run, put_features, settings_of

SETTINGS = settings_of("subtype", name="m", epochs=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = made_up_run(tmp_path_factory.mktemp("one"), patients=24, slides=2)
    for stage in ("split", "train"):
        assert all(one.state == "done" for one in bring(run, stage, SETTINGS))
    return run


@pytest.fixture(scope="module")
def ensemble(run: Run) -> Ensemble:
    return load_ensemble(run.train("m"))


@pytest.fixture(scope="module")
def predicted(run: Run, ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    """P02's second slide is far off; P04's second failed, and both of P05; P03 has one slide, which failed."""
    kept = [slide for slide in run.cohort.slides if slide.patient_id in ("P01", "P02", "P03", "P04", "P05")]
    new = Run.create(tmp_path_factory.mktemp("two") / "out", Cohort(tuple(kept)))
    for slide in kept:
        if slide.slide_id not in ("P03-0", "P04-1", "P05-0", "P05-1"):
            put_features(new, slide.slide_id, 30.0 if slide.slide_id == "P02-1" else 0.1)
    failed = {name: f"failed: {name} is broken" for name in ("P03-0", "P04-1", "P05-0", "P05-1")}
    return predict_run(new, SETTINGS, ensemble, "cpu", 99.0, failed)


def test_what_lay_there_in_another_form_goes(predicted: Predicted, ensemble: Ensemble, tmp_path: Path) -> None:
    write_predicted(tmp_path, predicted, ensemble, ["json"])
    (tmp_path / "notes.txt").write_text("a person's own")
    write_predicted(tmp_path, predicted, ensemble, ["csv"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "predictions.csv", "slides.csv"]


def test_checkpoints_know_how_far_their_slides_lie(run: Run) -> None:
    splits = pd.read_csv(next((run.folder / "splits").glob("*/splits.csv")))
    slides = pd.Series([slide.patient_id for slide in run.cohort.slides]).value_counts()
    for fold in range(3):
        known = load_checkpoint(run.train("m") / f"fold-{fold}-seed-0" / "model.pt").distances
        for role in ("train", "val"):
            members = splits[(splits["fold"] == fold) & (splits["role"] == role)]["patient_id"]
            assert known[role]["slides"] == slides[members].sum()
            assert (known[role]["quantiles"].diff() >= 0).all() and known[role]["quantiles"][0] > 0


def test_a_slide_far_from_the_training_is_named(predicted: Predicted) -> None:
    slides: Any = predicted.slides.set_index("slide_id")
    far = slides.loc["P02-1"]
    assert far["unfamiliar"] and far["percentile"] == 100 and far["distance"] > 5
    assert far["remark"].startswith("unlike the training: its mean feature lies farther out than all of the training's")
    assert predicted.unfamiliar == [f"P02-1: {far['remark']}"]
    near = slides.loc["P02-0"]
    assert not near["unfamiliar"] and near["percentile"] < 99 and "of them lie nearer" in near["remark"]
    assert slides.loc["P02-0", "tiles"] == 8
    patients: Any = predicted.patients.set_index("patient_id")
    assert patients.loc["P02", "unfamiliar"] == 1 and patients.loc["P02", "percentile"] == 100
    assert patients.loc["P01", "unfamiliar"] == 0


def test_the_limit_is_what_is_asked_for(run: Run, ensemble: Ensemble) -> None:
    some = predict_run(run, SETTINGS, ensemble, "cpu", 50.0, {}).slides
    assert (some["unfamiliar"] == (some["percentile"] >= 50)).all() and 0.2 < some["unfamiliar"].mean() < 0.8
    assert predict_run(run, SETTINGS, ensemble, "cpu", 0.0, {}).slides["unfamiliar"].all()


def test_failures_are_rows_with_reasons(predicted: Predicted) -> None:
    patients: Any = predicted.patients.set_index("patient_id")
    assert list(patients.index) == ["P01", "P02", "P04", "P03", "P05"]
    assert patients.loc["P01", "reason"] == ""
    assert patients.loc["P01", "p_a"] + patients.loc["P01", "p_b"] == pytest.approx(1)
    assert patients.loc["P04", "reason"] == "P04-1: failed: P04-1 is broken" and patients.loc["P04", "slides"] == 1
    assert patients.loc["P03", "reason"] == "failed: P03-0 is broken" and np.isnan(patients.loc["P03", "p_a"])
    assert patients.loc["P05", "reason"].count("is broken") == 2 and patients.loc["P05", "tiles"] == 0
    slides: Any = predicted.slides.set_index("slide_id")
    assert slides.loc["P05-1", "reason"] == "failed: P05-1 is broken" and slides.loc["P05-1", "tiles"] == 0
    assert slides.loc["P01-0", "reason"] == ""


def test_nothing_but_failures(run: Run, ensemble: Ensemble, tmp_path: Path) -> None:
    one = replace(run.cohort.slides[0], slide_id="X")
    new = Run.create(tmp_path / "out", Cohort((one,)))
    found = predict_run(new, SETTINGS, ensemble, "cpu", 99.0, {"X": "empty: no tissue found"})
    assert found.patients.to_dict("records") == [
        {"patient_id": one.patient_id, "percentile": None, "unfamiliar": None, "reason": "empty: no tissue found"}
        | {"slides": 0, "tiles": 0}
    ]
    assert found.unfamiliar == []
    write_predicted(tmp_path, found, ensemble, ["json"])
    assert json.loads((tmp_path / "predictions.json").read_text())["patients"][0]["percentile"] is None


def test_files(predicted: Predicted, ensemble: Ensemble, tmp_path: Path) -> None:
    files = write_predicted(tmp_path, predicted, ensemble, ["csv", "json"])
    assert [path.name for path in files] == ["predictions.csv", "slides.csv", "predictions.json"]
    table = pd.read_csv(tmp_path / "predictions.csv")
    np.testing.assert_allclose(table["p_a"], predicted.patients["p_a"], rtol=1e-15)
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content["task"]["classes"] == ["a", "b"] and len(content["models"]) == 3
    row = next(one for one in content["patients"] if one["patient_id"] == "P03")
    assert row["p_a"] is None and row["slides"] == 0
    assert {type(one["tiles"]) for one in content["slides"]} == {int}
    assert [one["unfamiliar"] for one in content["slides"] if one["slide_id"] == "P02-1"] == [True]


def test_parquet(predicted: Predicted, ensemble: Ensemble, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    files = write_predicted(tmp_path, predicted, ensemble, ["parquet"])
    assert [path.name for path in files][2:] == ["predictions.parquet", "slides.parquet"]
    read = pd.read_parquet(tmp_path / "predictions.parquet")
    assert list(read.columns) == list(predicted.patients.columns)
    np.testing.assert_array_equal(read["p_a"], predicted.patients["p_a"])


def test_forms_are_checked_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_forms(["csv", "json"])
    with pytest.raises(SettingsError, match="there is no form `xlsx`"):
        refuse_forms(["csv", "xlsx"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingError, match=r"pathpipe\[parquet\]"):
        refuse_forms(["parquet"])
