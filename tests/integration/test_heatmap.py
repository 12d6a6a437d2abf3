"""Heatmaps as people ask for them: whole patients, every export, and a refusal when what is explained has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

from pathpipe.cli.app import main
from pathpipe.slides.open import open_slide
from pathpipe.tissue.geojson import read_features
from tests.integration.conftest import Call

NAME = "abmil-label-efficientnet-lite0"


@pytest.fixture(scope="module")
def run(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that tests may change."""
    return Path(shutil.copytree(reported, tmp_path_factory.mktemp("heatmaps") / "run"))


def _summary(run: Path, slide: str) -> dict[str, Any]:
    return dict(json.loads((run / "heatmaps" / NAME / slide / "summary.json").read_text()))


def _scores(run: Path, slide: str) -> pd.DataFrame:
    return pd.read_csv(run / "heatmaps" / NAME / slide / "scores.csv")


def test_slides_of_a_patient_share_the_patients_prediction_and_attention(reported: Path) -> None:
    first, second = _summary(reported, "S09"), _summary(reported, "S10")
    predictions: Any = pd.read_csv(reported / "evaluate" / NAME / "predictions.csv").set_index(["role", "patient_id"])
    row = predictions.loc[("test", "P9")]
    for one in (first, second):
        assert one["logits"][0] == pytest.approx([row["logit_implant"], row["logit_plain"]], abs=1e-5)
        assert one["models_compared"] == one["models"] == 1
    shares = [_scores(reported, slide)["score"].sum() for slide in ("S09", "S10")]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and min(shares) > 0
    assert first["tiles"] + second["tiles"] == first["tiles_of_patient"] == second["tiles_of_patient"]
    assert first["explained"][0]["curves"] == second["explained"][0]["curves"]  # of the patient's whole bag


def test_a_cohort_is_summed_up_with_intervals(reported: Path) -> None:
    content = json.loads((reported / "explanations" / NAME / "explanations.json").read_text())
    rows = {row["name"]: row for row in content["rows"]}
    row = rows["deletion, gain over random order"]
    gains: dict[str, list[float]] = {}
    for slide in range(11):
        curves = _summary(reported, f"S{slide:02d}")["explained"][0]["curves"]
        gains.setdefault(f"P{min(slide, 9)}", []).append(curves["deletion"]["gain"])
    assert row["patients"] == 10
    assert row["mean"] == pytest.approx(np.mean([np.mean(values) for values in gains.values()]))
    assert row["low"] <= row["mean"] <= row["high"]


def test_every_class_and_every_export(pathpipe: Call, run: Path) -> None:
    asked = ("--score", "occlusion", "--target-class", "every", "--geojson", "tiles", "--ome-tiff")
    pathpipe("heatmap", run, "--slide", "S01", *asked, "--stale", "remake")
    folder, summary = run / "heatmaps" / NAME / "S01", _summary(run, "S01")
    assert [one["aim"] for one in summary["explained"]] == [
        summary["predicted"],
        *({"implant", "plain"} - {summary["predicted"]}),
    ]
    other = summary["explained"][1]["aim"]
    table = _scores(run, "S01")
    assert list(table.columns) == ["x0", "y0", "score", f"score_{other}"]
    np.testing.assert_allclose(table["score"], -table[f"score_{other}"], atol=1e-5)  # log-odds of two classes
    for one in summary["explained"]:
        assert set(one["files"]) == {"picture", "tiles", "ome_tiff", "geojson", "checks"}
    content = json.loads((folder / "heatmap.geojson").read_text())
    features = read_features(content)
    assert len(features) == len(table) == summary["tiles"]
    corners = np.array([one.polygons[0][0][0] for one in features])
    np.testing.assert_array_equal(corners, table[["x0", "y0"]])
    measured = [one["properties"]["measurements"]["score"] for one in content["features"]]
    np.testing.assert_allclose(measured, table["score"], rtol=1e-4)
    with open_slide(folder / "heatmap.ome.tif", "auto") as slide:
        assert slide.mpp is not None
        width_um = slide.size0[0] * slide.mpp.x
    with tifffile.TiffFile(folder / "heatmap.ome.tif") as file:
        numbers = file.series[1].asarray()
    assert width_um == pytest.approx(330, rel=0.02)  # the slide's own width
    shown = numbers[np.isfinite(numbers)]  # places that two tiles touch have their mean
    assert table["score"].min() - 1e-4 <= shown.min() and shown.max() <= table["score"].max() + 1e-4


def _refused(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    shown = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == code, shown
    return shown


def test_the_class_asked_for_must_exist(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _refused(["heatmap", str(run), "--target-class", "implnat", "--slide", "S01"], 2, capsys)
    assert "`implnat` is none of the classes" in shown and "did you mean `implant`" in shown


def test_the_slide_asked_for_must_exist(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the cohort has no slide `S99`" in _refused(["heatmap", str(run), "--slide", "S99"], 2, capsys)


def test_refuses_to_explain_what_was_not_predicted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(run / "features" / "efficientnet-lite0" / "S02.h5", "r+") as file:
        file["features"][...] = file["features"][...] * 1.5
    shown = _refused(
        ["heatmap", str(run), "--slide", "S02", "--score", "gradient", "--stale", "remake", "--workers", "1"], 1, capsys
    )
    assert "the model says" in shown and "when trained" in shown
    assert "features or weights have changed" in shown
