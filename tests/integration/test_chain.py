"""From slides to report and prediction with the commands people type, each alone and all together."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from pathpipe.cli.app import main
from pathpipe.provenance import read_provenance
from tests.integration.conftest import SMALL, Call, write_slide

NAME = "abmil-label-efficientnet-lite0"


def test_every_stage_leaves_what_the_documentation_says(reported: Path) -> None:
    names = "cohort.csv settings.yaml layout.json tissue tiles contact_sheet.jpg features splits audit train evaluate"
    assert {path.name for path in reported.iterdir()} == {
        *names.split(),
        "heatmaps",
        "explanations",
        "report.html",
        "receipts",
        "leases",
    }
    assert {path.suffix for path in (reported / "tiles").iterdir()} == {".h5", ".jpg"}
    assert sorted(path.name for path in (reported / "train" / NAME).iterdir()) == [f"fold-{k}-seed-0" for k in range(3)]
    fold = reported / "train" / NAME / "fold-0-seed-0"
    assert sorted(path.name for path in fold.iterdir()) == [
        "history.csv",
        "model.pt",
        "predictions.csv",
        "provenance.json",
        "task.json",
    ]
    assert not [path for path in (reported / "leases").rglob("*") if path.is_file()]
    for artefact in (
        reported / "report.html",
        fold,
        reported / "tissue" / "S00.geojson",
        reported / "tiles" / "S00.h5",
    ):
        made = read_provenance(artefact)
        assert made is not None and made.made_by["pathpipe"]


def test_patients_are_tested_once_by_models_that_never_saw_them(reported: Path) -> None:
    splits = pd.read_csv(reported / "splits" / "label-3" / "splits.csv")
    tested = splits[splits["role"] == "test"]
    assert sorted(tested["patient_id"]) == [f"P{i}" for i in range(10)]
    predictions: Any = pd.read_csv(reported / "evaluate" / NAME / "predictions.csv")
    for row in predictions[predictions["role"] == "test"].itertuples():
        assert ((tested["fold"] == row.fold) & (tested["patient_id"] == row.patient_id)).any()
    evaluation = json.loads((reported / "evaluate" / NAME / "evaluation.json").read_text())
    assert sum(evaluation["model"]["patients"].values()) == 10
    assert evaluation["baseline"]["patients"] == evaluation["model"]["patients"]


def test_heatmaps_are_of_the_predictions_that_were_evaluated(reported: Path) -> None:
    predictions: Any = pd.read_csv(reported / "evaluate" / NAME / "predictions.csv").set_index(["role", "patient_id"])
    for number in range(9):  # one slide a patient: the slide's logits are the patient's
        summary = json.loads((reported / "heatmaps" / NAME / f"S{number:02d}" / "summary.json").read_text())
        row = predictions.loc[("test", f"P{number}")]
        assert summary["logits"][0] == pytest.approx([row["logit_implant"], row["logit_plain"]], abs=1e-5)
        scores = pd.read_csv(reported / "heatmaps" / NAME / f"S{number:02d}" / "scores.csv")
        assert scores["score"].sum() == pytest.approx(1, abs=1e-5)


def test_running_again_does_nothing(pathpipe: Call, reported: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in reported.rglob("*") if path.is_file() and path.suffix != ".yaml"
    }
    again = pathpipe("report", reported)
    assert "done" not in again.stderr, again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_yaml_file_makes_the_same_run(pathpipe: Call, reported: Path, cohort_csv: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    settings = (reported / "settings.yaml").read_text()
    config.write_text(f"cohort: {cohort_csv}\n{settings}")
    pathpipe("run", config, "-o", tmp_path / "run")
    for part in (
        "features/efficientnet-lite0/S03.h5",
        f"train/{NAME}/fold-1-seed-0/model.pt",
        "splits/label-3/splits.csv",
    ):
        assert (tmp_path / "run" / part).read_bytes() == (reported / part).read_bytes(), part


def test_predict_slides_as_the_model_was_trained(pathpipe: Call, reported: Path, tmp_path: Path) -> None:
    write_slide(tmp_path / "new" / "N1.svs", seed=50, foreign=True)
    write_slide(tmp_path / "new" / "N2.svs", seed=51, blank=True)
    (tmp_path / "new" / "N3.svs").write_text("no slide")
    done = pathpipe("predict", reported / "train" / NAME, tmp_path / "new", "-o", tmp_path / "out", check=1)
    assert done.stdout.split() == [str(tmp_path / "out" / name) for name in ("predictions.csv", "slides.csv")]
    table: Any = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("patient_id")
    assert table.loc["N1", ["p_implant", "p_plain"]].sum() == pytest.approx(1)
    assert float(str(table.loc["N1", "sd_plain"])) > 0, "three models"
    assert "no tissue found" in str(table.loc["N2", "reason"])
    assert "no reader opens it" in str(table.loc["N3", "reason"])
    slides: Any = pd.read_csv(tmp_path / "out" / "slides.csv").set_index("slide_id")
    assert slides.loc["N1", "percentile"] == table.loc["N1", "percentile"] and slides.loc["N1", "distance"] > 0
    assert "no tissue found" in slides.loc["N2", "reason"] and slides.loc["N3", "tiles"] == 0
    made = read_provenance(tmp_path / "out" / "tiles" / "N1.h5")
    trained = read_provenance(reported / "tiles" / "S00.h5")
    assert made is not None and trained is not None and made.settings == trained.settings

    # one fold alone, on slides it was tested on, says what its evaluation says
    fold = reported / "train" / NAME / "fold-0-seed-0"
    known = pd.read_csv(fold / "predictions.csv").query("role == 'test' and patient_id != 'P9'").iloc[0]
    slide = reported.parent / f"S0{known['patient_id'][1]}.svs"
    source = pd.read_csv(reported / "cohort.csv").set_index("patient_id").loc[known["patient_id"], "path"]
    shutil.copy(source, slide)
    pathpipe("predict", fold / "model.pt", slide, "-o", tmp_path / "one")
    one = pd.read_csv(tmp_path / "one" / "predictions.csv").iloc[0]
    assert one["p_implant"] == pytest.approx(known["p_implant"], abs=1e-6)


def test_predict_in_parts(pathpipe: Call, reported: Path, tmp_path: Path) -> None:
    """Each part makes the features of its own slides; `--on slurm` then asks for the tables once."""
    trained, out = reported / "train" / NAME, tmp_path / "out"
    for name, seed in (("new_a", 100), ("new_b", 101), ("new_c", 102)):
        write_slide(tmp_path / "new" / f"{name}.svs", seed=seed)
    pathpipe("predict", trained, tmp_path / "new", "-o", out, "--shard", "1/3")
    assert len(list(out.glob("features/*/*.h5"))) == 1 and not (out / "predictions.csv").exists()
    asked = ("--on", "slurm", "--dry-run", "--at-once", "3", "--form", "json", "--read-threads", "1")
    shown = pathpipe("predict", trained, tmp_path / "new", "-o", out, *asked).stdout
    assert "#SBATCH --array=0,2\n" in shown, "the part that is done is not asked for"
    (last,) = [line for line in shown.splitlines() if line.startswith("exec") and " predict " in line]
    words = shlex.split(last.partition(" -m pathpipe ")[2])
    assert words[words.index("--read-threads") + 1] == "1" and "--on" not in words and "--shard" not in words
    done = pathpipe(*words)
    assert done.stdout.split() == [str(out / name) for name in ("predictions.csv", "slides.csv", "predictions.json")]


def test_an_exported_model_says_of_stored_features_what_predict_says(
    pathpipe: Call, reported: Path, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    trained = reported / "train" / NAME
    for folder in ("one", "again"):
        pathpipe("export", trained, "-o", tmp_path / folder, "--onnx", "--torchscript", "--ensemble")
    for name in ("model.onnx", "model.torchscript.pt", "model.json", "model_card.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    assert "| label | implant | 5 |" in (tmp_path / "one" / "model_card.md").read_text()

    (tmp_path / "new").mkdir()
    source: Any = pd.read_csv(reported / "cohort.csv").set_index("slide_id").loc["S03", "path"]
    shutil.copy(source, tmp_path / "new" / "S03.svs")
    pathpipe("predict", trained, tmp_path / "new", "-o", tmp_path / "out")
    said = pd.read_csv(tmp_path / "out" / "predictions.csv").iloc[0]
    with h5py.File(tmp_path / "out" / "features" / "efficientnet-lite0" / "S03.h5") as file:
        features = file["features"][:].astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "one" / "model.onnx")
    logits, answers, attention = session.run(None, {"features": features})
    columns = json.loads((tmp_path / "one" / "model.json").read_text())["columns"]
    assert answers[0] == pytest.approx([said[name] for name in columns], abs=1e-5)
    assert logits.shape == (3, 2) and attention.sum() == pytest.approx(1, abs=1e-5)


def test_other_models_on_the_same_features(pathpipe: Call, reported: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(reported, run)
    pathpipe("evaluate", run, "--model", "mean", "--epochs", "3", "-s", "hidden=32")
    pathpipe("heatmap", run / "train" / "mean-label-efficientnet-lite0", "--slide", "S01")
    summary = json.loads((run / "heatmaps" / "mean-label-efficientnet-lite0" / "S01" / "summary.json").read_text())
    assert summary["score"].startswith("probability of")
    assert (run / "train" / NAME).exists() and (run / "evaluate" / NAME).exists()


def test_features_outlive_their_slides(pathpipe: Call, reported: Path, tmp_path: Path) -> None:
    """Slides archived away: models can still be trained on what is stored."""
    run = tmp_path / "run"
    shutil.copytree(reported, run)
    table = pd.read_csv(run / "cohort.csv")
    table["path"] = [f"/archived/{path}" for path in table["path"]]
    table.to_csv(run / "cohort.csv", index=False)
    pathpipe("train", run, "--model", "max", "--epochs", "2")
    assert (run / "train" / "max-label-efficientnet-lite0" / "fold-2-seed-0" / "model.pt").exists()


def test_features_of_another_encoder_are_refused(pathpipe: Call, reported: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(reported, run)
    with h5py.File(run / "features" / "efficientnet-lite0" / "S04.h5", "r+") as file:
        encoder = json.loads(file.attrs["encoder"])
        file.attrs["encoder"] = json.dumps({**encoder, "weights_sha256": "0" * 64})
    refused = pathpipe("train", run, "--model", "max", "--epochs", "2", check=1)
    assert "the features come from two encoders" in refused.stderr


def test_a_slide_alone_and_inspect(pathpipe: Call, cohort_csv: Path, tmp_path: Path) -> None:
    slide = cohort_csv.parent / "slides" / "S00.svs"
    pathpipe("tile", slide, "-o", tmp_path / "run", *SMALL)
    shown = pathpipe("store", "inspect", tmp_path / "run" / "tiles" / "S00.h5")
    fields = dict(line.split("\t") for line in shown.stdout.splitlines())
    assert fields["layout"] == "pathpipe tiles" and fields["tile px"] == "112"
    as_json = pathpipe("store", "inspect", tmp_path / "run" / "tiles" / "S00.h5", "--form", "json")
    assert json.loads(as_json.stdout)[0] == {"field": "layout", "value": "pathpipe tiles"}
    with h5py.File(tmp_path / "run" / "tiles" / "S00.h5") as file:
        assert np.array_equal(np.lexsort(file["coords"][:].T), np.arange(len(file["coords"])))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tile",), 2, "nothing to work on"),
        (("tile", "none.csv", "-o", "{run}"), 2, "no such cohort"),
        (("tile", "{slides}"), 2, "where should the results go?"),
        (("tile", "{slides}", "-o", "{run}", "--mpp", "0"), 2, "greater than or equal to 0.05"),
        (("tile", "{slides}", "-o", "{run}", "--mp", "1"), 2, "No such option"),
        (("extract", "{slides}", "-o", "{run}", "--encoder", "unni"), 2, "did you mean `uni`"),
        (("extract", "{slides}", "-o", "{run}", "--encoder", "cytofm"), 3, "have to be fetched by hand"),
        (("train", "{slides}", "-o", "{run}"), 2, "the cohort has no column `label`"),
        (("train", "{csv}", "-o", "{run}", "--model", "abmill"), 2, "did you mean `abmil`"),
        (("train", "{csv}", "-o", "{run}", "-s", "gatd=1"), 2, "there is no such setting"),
        (("train", "{csv}", "-o", "{run}", "-s", "gated"), 2, "is not KEY=VALUE"),
        (("split", "{csv}", "-o", "{run}", "--folds", "9"), 1, "folds"),
        (("run", "none.yaml"), 2, "no such settings file"),
        (("predict", "{slides}", "{slides}", "-o", "{run}"), 2, "holds no model.pt"),
        (("store", "inspect", "none.h5"), 2, "there is no such file"),
    ],
)
def test_requests_that_are_wrong(
    cohort_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    places = {"{slides}": cohort_csv.parent / "slides", "{csv}": cohort_csv, "{run}": tmp_path / "run"}
    named = [str(places.get(one, one)) for one in arguments]
    with pytest.raises(SystemExit) as stop:
        main(named)
    shown = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == code, shown
    assert words in shown
    assert "Traceback" not in shown


def test_print_config_says_where_values_come_from(pathpipe: Call, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("tile: {mpp: 1.0, tile_px: 128}\n")
    shown = pathpipe("tile", "--config", config, "--mpp", "0.75", "--print-config").stdout
    lines = {line.split(":")[0].strip(): line for line in shown.splitlines()}
    assert "0.75" in lines["mpp"] and "# --mpp" in lines["mpp"]
    assert str(config) in lines["tile_px"] and "# default" in lines["min_tissue"]
