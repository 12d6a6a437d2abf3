"""Export of trained models: files that say what `pathpipe predict` says, their sidecar and their card."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pathpipe.cli.app import main
from pathpipe.errors import SettingsError, StoreError
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.export import export_model
from pathpipe.stages.patients import feature_sets
from pathpipe.stages.predict import load_ensemble
from pathpipe.stages.predicted import predict_run
from pathpipe.training.exporting import load_exported
from pathpipe.training.loading import load_bags
from tests.unit.stages.made_up import bring, made_up_run, settings_of

TIMED = "os_months/os_event"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_up_run(tmp_path_factory.mktemp("one"), patients=30)


def _trained(run: Run, target: str, name: str, evaluated: bool = False, **train: Any) -> Path:
    settings = settings_of(target, name=name, epochs=3, **train)
    for stage in ("split", "train", *(("evaluate",) if evaluated else ())):
        receipts = bring(run, stage, settings)
        assert all(one.state in ("done", "current") for one in receipts), [one.reason for one in receipts]
    return run.train(name)


def _covariates(run: Run, patient: str) -> torch.Tensor:
    """As `covariates` of the sidecar asks for them."""
    age, sex = (run.cohort.labels_by_patient(column).get(patient) for column in ("age", "sex"))
    return torch.tensor([[-7.0 if age is None else float(age), age is None, sex == "f", sex == "m"]])


@pytest.mark.parametrize(
    ("target", "form", "train"),
    [
        ("subtype", "onnx", {"model": "abmil", "covariates": ["age", "sex"]}),
        (f"{TIMED}:survival", "onnx", {"task_settings": {"bins": 3}}),
        (f"{TIMED}:cox", "torchscript", {}),
        ("grade:ordinal", "torchscript", {"model": "gated-abmil"}),
        (f"subtype,score:regression,er/pr:multilabel,{TIMED}:cox", "torchscript", {}),
    ],
)
def test_files_say_what_predict_says(run: Run, target: str, form: Any, train: dict[str, Any], tmp_path: Path) -> None:
    trained = _trained(run, target, f"{form}-{len(target)}-{len(train)}", **train)
    ensemble = load_ensemble(trained)
    files = export_model(trained, [form], tmp_path, ensemble=True)
    assert [path.name for path in files][1:] == ["model.json", "model_card.md"]
    sidecar = json.loads((tmp_path / "model.json").read_text())
    runs = load_exported(files[0])
    said: Any = predict_run(run, settings_of(target), ensemble, "cpu", 99.0, {}).patients.set_index("patient_id")
    bags = load_bags(feature_sets(run, settings_of(target)), run.cohort.patients).bags
    for patient, bag in bags.items():
        parts = [torch.from_numpy(np.asarray(bag.features, np.float32))]
        if ensemble.covariates:
            assert [len(one["numbers"]) for one in sidecar["covariates"]] == [2, 2]
            parts.append(_covariates(run, patient))
        assert list(sidecar["inputs"]) == ["features", "covariates"][: len(parts)]
        found = dict(zip(sidecar["outputs"], runs(*parts), strict=True))
        expected = said.loc[patient, sidecar["columns"]].to_numpy(float)
        np.testing.assert_allclose(found["answers"][0].numpy(), expected, rtol=1e-4, atol=1e-4)
    numbers = said.select_dtypes("number").columns
    left = {name for name in numbers if "sd_" not in name} - {"slides", "tiles", "percentile", "unfamiliar"}
    assert left == set(sidecar["columns"]), "every number of the prediction is in the file"


def test_sidecar_and_card_say_what_is_known(run: Run, tmp_path: Path) -> None:
    trained = _trained(run, "subtype", "known", evaluated=True, model="abmil", lr=0.015)
    files = export_model(trained / "fold-1-seed-0", ["torchscript"], tmp_path / "a")
    sidecar = json.loads((tmp_path / "a" / "model.json").read_text())
    digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert sidecar["files"]["model.torchscript.pt"]["sha256"] == digest
    checkpoint = trained / "fold-1-seed-0" / "model.pt"
    assert sidecar["models"][0]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert sidecar["tile"] == {"tile_px": 256, "mpp": 0.5, "tile_um": None}
    assert sidecar["encoder"]["name"] == "uni" and sidecar["columns"] == ["p_a", "p_b"]
    assert sidecar["outputs"]["logits"]["shape"] == [1, 2] and sidecar["inputs"]["features"]["shape"] == ["tiles", 6]
    assert str(tmp_path) not in (tmp_path / "a" / "model.json").read_text()

    card = (tmp_path / "a" / "model_card.md").read_text()
    metric = json.loads((run.evaluation("known") / "evaluation.json").read_text())["model"]["metrics"]["AUROC"]
    assert f"| subtype | AUROC | {metric['value']:.3f} | {metric['low']:.3f} to {metric['high']:.3f} |" in card
    labels = list(run.cohort.labels_by_patient("subtype").values())
    for line in (
        "# Model card: known",
        "| patients | 30 |",
        f"| subtype | a | {labels.count('a')} |",
        "| not stated | 30 | 30 |",
        "3 folds by patient, seed 0. Sites were not kept apart.",
        "| `train.lr` | 0.015 |",
        "`uni`: licence **CC-BY-NC-ND-4.0**, which has to be accepted on its page",
        f"| `model.torchscript.pt` | {digest} |",
        "- It has seen 30 patients: too few to know how it does in rare cases.",
        "no medical device",
        'model = torch.jit.load("model.torchscript.pt")',
    ):
        assert line in card, line
    assert str(run.folder) not in card and "averages" not in card

    (tmp_path / "a" / "model.onnx").write_bytes(b"of an earlier export")
    export_model(trained / "fold-1-seed-0", ["torchscript"], tmp_path / "a")
    left = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert left == ["model.json", "model.torchscript.pt", "model_card.md"]

    shutil.copy(checkpoint, tmp_path / "moved.pt")
    export_model(tmp_path / "moved.pt", ["torchscript"], tmp_path / "b")
    card = (tmp_path / "b" / "model_card.md").read_text()
    assert "what it was trained on is not known here" in card and "It has not been evaluated" in card


def test_the_example_of_the_card_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = _trained(run, "subtype", "example", model="abmil")
    export_model(trained, ["onnx"], tmp_path, ensemble=True)
    code = (tmp_path / "model_card.md").read_text().split("```python\n")[1].split("```")[0]
    slide = run.cohort.slides[0]
    code = code.replace("RUN/features/ENCODER/SLIDE.h5", str(run.features("uni", slide.slide_id)))
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(code, known)
    said: Any = predict_run(run, settings_of("subtype"), load_ensemble(trained), "cpu", 99.0, {}).patients
    row = said.set_index("patient_id").loc[slide.patient_id]
    np.testing.assert_allclose(known["answers"][0], [row["p_a"], row["p_b"]], rtol=1e-4)
    assert "It averages 3 models." in (tmp_path / "model_card.md").read_text()


def test_the_card_names_labels_and_what_was_measured(tmp_path: Path) -> None:
    run = made_up_run(tmp_path)
    labels = _trained(run, "er/pr:multilabel", "labels", evaluated=True)
    export_model(labels, ["torchscript"], tmp_path / "a", ensemble=True)
    card = (tmp_path / "a" / "model_card.md").read_text()
    assert "| er | AUROC |" in card and "| pr | AUROC |" in card and "| er/pr | AUROC |" not in card
    assert "the average over the folds was not measured" in card and "3 folds by patient, seed 0." in card

    (tmp_path / "test.txt").write_text("\n".join(f"P{at:02d}" for at in range(12)))
    fixed = {"target": "subtype", "folds": 2, "test_list": str(tmp_path / "test.txt")}
    settings = merge(
        RunSettings, [("test", {**settings_of("subtype", epochs=3, name="fixed").model_dump(), "split": fixed})]
    )[0]
    for stage in ("split", "train", "evaluate"):
        assert all(one.ok for one in bring(run, stage, settings))
    export_model(run.train("fixed"), ["torchscript"], tmp_path / "b", ensemble=True)
    card = (tmp_path / "b" / "model_card.md").read_text()
    assert "It averages 2 models. So do the numbers below, of patients that none of them saw." in card
    assert "2 folds by patient, seed 0. All test the same patients. Sites were not kept apart." in card

    given = {"target": "subtype", "folds_from": str(next(iter(run.splits())) / "splits.csv")}
    settings = merge(
        RunSettings, [("test", {**settings_of("subtype", epochs=1, name="given").model_dump(), "split": given})]
    )[0]
    for stage in ("split", "train"):
        assert all(one.ok for one in bring(run, stage, settings))
    export_model(run.train("given") / "fold-0-seed-0", ["torchscript"], tmp_path / "c")
    assert "\n\n3 folds by patient, given and not drawn.\n\n" in (tmp_path / "c" / "model_card.md").read_text()


def test_what_is_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = _trained(run, "subtype", "example", model="abmil")
    with pytest.raises(SettingsError, match=r"holds 3 models .hint: give one fold's folder, or --ensemble"):
        export_model(trained, ["torchscript"], tmp_path / "out")
    with pytest.raises(StoreError, match=r"holds no model.pt"):
        export_model(tmp_path, ["torchscript"], tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        main(["export", str(trained), "-o", str(tmp_path / "out")])
    assert stop.value.code == 2 and "give --onnx, --torchscript, or both" in capsys.readouterr().err
    grouped = _trained(run, "subtype", "grouped", model="dtfd")
    with pytest.raises(SettingsError, match="this model can't be exported"):
        export_model(grouped / "fold-0-seed-0", ["torchscript"], tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is left of what is refused"
