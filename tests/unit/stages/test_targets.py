"""Every kind of target from split to evaluation, on features that follow a hidden number of each patient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pathpipe.cohort import Cohort
from pathpipe.errors import CohortError, PathpipeError, SettingsError, StoreError
from pathpipe.evaluation.survival.concordance import harrell
from pathpipe.mil.bag import Bag, Bags
from pathpipe.run import Run
from pathpipe.stages.evaluate import read_evaluation
from pathpipe.stages.outcomes import read_outcomes, read_task
from pathpipe.stages.patients import covariate_values, prepare_fold
from pathpipe.stages.predict import covariates_or_refuse, load_ensemble
from pathpipe.stages.predicted import predict_run
from pathpipe.stages.train import preflight
from pathpipe.store.features import read_features
from pathpipe.training.checkpoint import load_checkpoint
from tests.unit.stages.made_up import bring, made_up_run, put_features, settings_of

TIMED = "os_months/os_event"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_up_run(tmp_path_factory.mktemp("one"))


def _through(run: Run, target: str, **train: Any) -> tuple[Path, Path, dict[str, float]]:
    """Split, train and evaluate: (folder of the folds, folder of the evaluation, what is shown)."""
    settings = settings_of(target, **train)
    for stage in ("split", "train", "evaluate"):
        receipts = bring(run, stage, settings)
        assert all(one.state == "done" for one in receipts), [(one.reason, one.hint) for one in receipts]
    name = next(
        path.name for path in (run.folder / "evaluate").iterdir() if path.name.startswith(settings.train.name or "?")
    )
    return run.train(name), run.evaluation(name), dict(receipts[0].counts)


def test_survival(run: Run) -> None:
    trained, evaluated, counts = _through(run, f"{TIMED}:survival", name="discrete", task_settings={"bins": 3})
    tables = [pd.read_csv(trained / f"fold-{fold}-seed-0" / "predictions.csv") for fold in range(3)]
    names = ["patient_id", "fold", "seed", "role", "time", "event", "risk"]
    assert all(list(table.columns)[:7] == names and len(table.columns) == 10 for table in tables)
    assert len({tuple(table.columns) for table in tables}) == 1, "survival is told at the same times in all folds"
    table = tables[0]
    chances = table.filter(like="survival_").to_numpy()
    assert ((chances >= 0) & (chances <= 1)).all() and (np.diff(chances, axis=1) <= 0).all()
    cohort = pd.read_csv(run.cohort_csv).set_index("patient_id")
    assert (table["time"] == cohort.loc[table["patient_id"], "os_months"].to_numpy()).all()

    tasks = [json.loads((trained / f"fold-{fold}-seed-0" / "task.json").read_text()) for fold in range(3)]
    assert all(len(task["edges"]) == 2 for task in tasks) and len({tuple(task["edges"]) for task in tasks}) > 1
    found = read_evaluation(evaluated).model
    assert found.patients == {"censored": int((cohort["os_event"] == 0).sum()), "event": int(cohort["os_event"].sum())}
    each = [
        harrell(
            part["time"].to_numpy(float),
            part["event"].to_numpy() == 1,
            part["risk"].to_numpy(),
            np.ones((1, len(part))),
        )[0]
        for part in (one[one["role"] == "test"] for one in tables)
    ]
    name, interval = next(iter(found.metrics.items()))
    assert name.startswith("C-index")
    assert read_evaluation(evaluated).model.fold_means[name].mean == pytest.approx(np.mean(each))
    assert 0.65 < interval.value <= 1 and interval.low < interval.value < interval.high
    assert counts[name] == round(interval.value, 4)
    assert [found.folds[fold][name] for fold in range(3)] == pytest.approx(each)


def test_regression(run: Run) -> None:
    trained, evaluated, _ = _through(run, "score:regression", name="number", epochs=30)
    table = pd.read_csv(evaluated / "predictions.csv")
    assert list(table.columns) == ["patient_id", "fold", "seed", "role", "target", "prediction"]
    test = table[table["role"] == "test"]
    assert len(test) == 36
    found = read_evaluation(evaluated).model.metrics
    error = (test["prediction"] - test["target"]).abs().mean()
    assert found["MAE"].value == pytest.approx(error) and found["R2"].value > 0.7
    labels = pd.read_csv(run.cohort_csv).set_index("patient_id")["score"]
    splits = pd.read_csv(run.folder / "splits" / "score-regression-3" / "splits.csv")
    for fold in range(3):
        task: Any = read_task(trained / f"fold-{fold}-seed-0")
        train = labels[splits.query("fold == @fold and role == 'train'")["patient_id"]]
        assert task.mean == pytest.approx(train.mean()) and task.std == pytest.approx(train.std())


def test_cox(run: Run) -> None:
    trained, evaluated, _ = _through(run, f"{TIMED}:cox", name="hazards", task_settings={"ties": "breslow"})
    task: Any = read_task(trained / "fold-1-seed-0")
    assert task.ties == "breslow" and len(task.hazard) == len(task.times) == 3
    assert list(task.hazard) == sorted(task.hazard)
    found = next(iter(read_evaluation(evaluated).model.metrics.values()))
    assert found.value > 0.65
    with pytest.raises(SettingsError, match=r"measures no `cindx` .hint: .*cindex"):
        preflight(run, settings_of(f"{TIMED}:cox", monitor="cindx"))
    with pytest.raises(SettingsError, match="a batch of one teaches nothing"):
        preflight(run, settings_of(f"{TIMED}:cox", batch_size=1))


def test_grades(run: Run) -> None:
    _, evaluated, _ = _through(run, "grade:ordinal", name="grades", epochs=30)
    found = read_evaluation(evaluated).model
    assert (found.kind, found.classes) == ("ordinal", ("G1", "G2", "G3"))
    assert sum(map(sum, found.confusion)) == 36 and found.metrics["quadratic kappa"].value > 0.5
    with pytest.raises(SettingsError, match="`clam-sb` learns from classes and takes no ordinal target"):
        preflight(run, settings_of("grade:ordinal", model="clam-sb", model_settings={}))


def test_several_targets_with_missing_labels_and_covariates(run: Run) -> None:
    target = f"subtype,score:regression,er/pr:multilabel,{TIMED}:cox"
    trained, evaluated, counts = _through(run, target, name="several", covariates=["age", "sex"])
    files = sorted(path.name for path in evaluated.glob("predictions*.csv"))
    names = ["er", "os_months-os_event-cox", "pr", "score-regression", "subtype"]
    assert files == [f"predictions-{name}.csv" for name in names]
    er = pd.read_csv(evaluated / "predictions-er.csv")
    assert list(er.columns)[4:] == ["target", "p_0", "p_1", "logit_0", "logit_1"]
    cohort = pd.read_csv(run.cohort_csv, dtype=str, keep_default_na=False).set_index("patient_id")
    known = set(cohort.index[cohort["er"] != ""])
    assert set(er["patient_id"]) == known and len(known) < 36
    assert (er["target"].astype(str) == cohort.loc[er["patient_id"], "er"].to_numpy()).all()
    assert set(read_evaluation(evaluated).others) == {"score:regression", "er", "pr", f"{TIMED}:cox"}
    assert {name for name in counts if "of pr" in name} == {"AUROC of pr"}
    assert read_evaluation(evaluated).target == "subtype"

    # what a fold says of its own patients is what its checkpoint says of them as new patients
    ensemble = load_ensemble(trained / "fold-0-seed-0")
    assert ensemble.covariates == ["age", "sex"]
    said: Any = predict_run(run, settings_of(target), ensemble, "cpu", 99.0, {}).patients.set_index("patient_id")
    of_fold = pd.read_csv(trained / "fold-0-seed-0" / "predictions-score-regression.csv")
    again = said.loc[of_fold["patient_id"], "score:regression prediction"]
    np.testing.assert_allclose(again, of_fold["prediction"], rtol=1e-6)
    assert {"subtype predicted", "subtype p_a", "er p_1", f"{TIMED}:cox risk"} <= set(said.columns)
    assert len(load_ensemble(trained).checkpoints) == 3, "folds that learnt different things belong together"


def test_covariates_are_learnt_in_training_and_asked_for_afterwards(run: Run) -> None:
    settings = settings_of("subtype", covariates=["age", "sex"])
    bring(run, "split", settings)
    prepared = prepare_fold(run, settings, 1)
    age, sex = prepared.settings.wrappers["covariates"]["columns"]
    texts = pd.read_csv(run.cohort_csv).set_index("patient_id")["age"]
    train = texts[list(prepared.data.roles["train"])].dropna()
    assert age["mean"] == pytest.approx(train.mean()) and age["std"] == pytest.approx(train.std())
    assert sex == {"column": "sex", "kind": "category", "mean": 0, "std": 1, "categories": ["f", "m"]}
    bag = prepared.data.bags["P00"]  # of unknown age
    assert bag.covariates is not None and bag.covariates.tolist() == [0, 1, 1, 0]
    other = Cohort(tuple(replace(slide, labels={"sex": "f"}) for slide in run.cohort.slides))
    with pytest.raises(CohortError, match="takes the covariates age, sex: the cohort has no column `age`"):
        covariates_or_refuse(other, ["age", "sex"])
    with pytest.raises(CohortError, match="no column `agee`"):
        preflight(run, settings_of("subtype", covariates=["agee"]))


def test_pooled_slides_predict_the_mean_of_their_logits(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, patients=24, slides=2)
    trained, _, _ = _through(run, "subtype", name="pool", slides_of_patient="pool", model="abmil", epochs=4)
    fold = trained / "fold-0-seed-0"
    checkpoint = load_checkpoint(fold / "model.pt")
    assert list(checkpoint.wrappers) == ["pool-slides"]
    _, found = read_outcomes(fold)
    for row in found["subtype"].table.head(4).to_dict("records"):
        slides = [slide.slide_id for slide in run.cohort.slides if slide.patient_id == row["patient_id"]]
        features = [read_features(run.features("uni", slide)).features for slide in slides]
        with torch.no_grad():
            each = [checkpoint.build()(Bags.pack([Bag(values)])).logits[0].numpy() for values in features]
        np.testing.assert_allclose(np.mean(each, axis=0), [row["logit_a"], row["logit_b"]], rtol=1e-5, atol=1e-6)
    said: Any = predict_run(run, settings_of("subtype"), load_ensemble(fold), "cpu", 99.0, {}).patients.set_index(
        "patient_id"
    )
    assert said.loc[row["patient_id"], "p_a"] == pytest.approx(row["p_a"], rel=1e-6)


def test_several_encoders_side_by_side(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, patients=18, encoders=("uni", "conch_v1"))
    both = {"encoders": ["uni", "conch_v1"], "name": "both"}
    trained, _, _ = _through(run, "subtype", **both)
    checkpoint = load_checkpoint(trained / "fold-2-seed-0" / "model.pt")
    assert checkpoint.dim_in == 12 and checkpoint.encoder["name"] == "uni+conch_v1"
    assert checkpoint.preprocessing["train"] == {"encoders": ["uni", "conch_v1"]}
    loaded = load_ensemble(trained).settings({}, None)
    assert (
        loaded.train.encoders == ["uni", "conch_v1"]
        and len(predict_run(run, loaded, load_ensemble(trained), "cpu", 99.0, {}).patients) == 18
    )
    with pytest.raises(SettingsError, match="the run's encoder `uni` is not among conch_v1"):
        preflight(run, settings_of("subtype", encoders=["conch_v1"]))
    put_features(run, "P03-0", 0.0, "conch_v1", 1, tiles=5)
    with pytest.raises(StoreError, match="have 8 and 5 tiles"):
        prepare_fold(run, settings_of("subtype", **both), 0)


def test_a_model_remembers_that_its_tiles_were_chosen_by_regions(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, patients=18)
    put_features(run, run.cohort.slides[0].slide_id, 0.0, include="a digest")
    trained, _, _ = _through(run, "subtype", name="inside", epochs=1)
    every = load_checkpoint(trained / "fold-0-seed-0" / "model.pt").preprocessing
    kept = every["tile"]
    assert kept["include"] == "given" and "exclude" not in kept and "coords_dir" not in kept
    assert "mask_dir" not in every["tissue"]
    with pytest.raises(SettingsError, match="--include: the model's slides had tiles in regions only"):
        load_ensemble(trained).settings({}, None)


@pytest.mark.parametrize("every", [True, False])
def test_a_model_remembers_that_all_tissue_was_outlined(tmp_path: Path, every: bool) -> None:
    run = made_up_run(tmp_path, patients=18)
    for slide in run.cohort.slides[0 if every else 1 :]:
        put_features(run, slide.slide_id, 0.0, mask="a digest")
    model = load_ensemble(_through(run, "subtype", name="outlined", epochs=1)[0])
    if not every:  # the tissue of some was detected as usual, as that of new slides is
        assert model.settings({}, None).tissue.mask_dir is None
        return
    with pytest.raises(SettingsError, match="--mask-dir: the tissue of all the model's slides was outlined for them"):
        model.settings({}, None)


def test_a_patient_without_features_takes_no_part_and_is_named(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, patients=18)
    settings = settings_of("subtype", epochs=1, name="one")
    bring(run, "split", settings)
    run.features("uni", "P03-0").unlink()
    receipts = bring(run, "train", settings)
    assert [(one.state, one.reason) for one in receipts] == [
        ("done", "patients of the split that take no part: P03 (no tiles)")
    ] * 3
    tables = [pd.read_csv(run.trained("one", f"fold-{fold}-seed-0") / "predictions.csv") for fold in range(3)]
    assert set(pd.concat(tables).query("role == 'test'")["patient_id"]) == {f"P{n:02d}" for n in range(18)} - {"P03"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("score", r"36 different numbers of 36 patients are no classes .*`score:regression`"),
        ("subtype:regression", "column `subtype`: `.` of patient P.. is no number"),
        ("subtype/os_event:survival", "column `subtype`: `.` of patient P.. is no number"),
        ("os_months/sex:cox", "column `sex`: `f` of patient P00 says neither yes nor no"),
    ],
)
def test_what_the_cohort_cannot_answer_is_refused_before_any_work(run: Run, target: str, message: str) -> None:
    with pytest.raises(PathpipeError, match=message):
        preflight(run, settings_of(target))


def test_equal_runs_give_equal_bytes(run: Run, tmp_path: Path) -> None:
    again = made_up_run(tmp_path)
    settings = settings_of(f"{TIMED}:cox", name="same", epochs=2)
    for one in (run, again):
        bring(one, "split", settings)
        bring(one, "train", settings)
    for name in ("model.pt", "predictions.csv", "task.json"):
        first, second = (one.trained("same", "fold-0-seed-0") / name for one in (run, again))
        assert first.read_bytes() == second.read_bytes()
    assert torch.load(first.with_name("model.pt"), weights_only=True)["task"]["hazard"]
    assert covariate_values(run.cohort, ["sex"])["sex"]["P01"] == "m"
