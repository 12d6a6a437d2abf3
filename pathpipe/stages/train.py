"""Stage `train`: one model a fold and seed, with the predictions of the patients it never saw."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from pathpipe.encoders.load import pick_device
from pathpipe.errors import CohortError, StoreError
from pathpipe.evaluation.predictions import Predictions
from pathpipe.fingerprint import fingerprint
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import train_name
from pathpipe.stages.split import read_splits, split_name
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tissue.method import pinned
from pathpipe.training.checkpoint import Checkpoint, load_checkpoint
from pathpipe.training.fold import FoldData
from pathpipe.training.loading import LoadedBags, load_bags
from pathpipe.training.trainer import TrainedFold, train_fold

MODEL, PREDICTIONS, HISTORY = "model.pt", "predictions.csv", "history.csv"


def feature_files(run: Run, settings: RunSettings) -> dict[str, Path]:
    """slide_id -> feature file, for the slides that have one.

    Raises:
        CohortError: No slide has.
    """
    encoder = settings.extract.encoder
    files = {slide.slide_id: run.features(encoder, slide.slide_id) for slide in run.cohort.slides}
    found = {slide_id: path for slide_id, path in files.items() if path.exists()}
    if not found:
        raise CohortError(f"no slide has features of `{encoder}`", hint="`pathpipe extract` says why")
    return found


def what(settings: RunSettings) -> dict[str, Any]:
    """Settings that matter; what a result is called doesn't, nor where the encoder's weights lie."""
    values = sections("slide", "tissue", "tile", "extract", "split", "train")(settings)
    values["train"].pop("name")
    return values


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The features of every slide and the split."""
    made = {slide_id: read_provenance(path) for slide_id, path in feature_files(run, settings).items()}
    split = read_provenance(run.split(split_name(settings)))
    if split is None:
        raise StoreError("there is no split", where=str(run.split(split_name(settings))), hint="run `pathpipe split`")
    known = {slide_id: one.fingerprint for slide_id, one in sorted(made.items()) if one is not None}
    return {"features": fingerprint(known), "split": split.fingerprint, "unit": key}


def make(job: Job) -> Made:
    """Train one fold with one seed."""
    fold, seed = _parse(job.key)
    settings = job.settings
    labels = job.run.cohort.labels_by_patient(settings.split.target)
    loaded = _bags(job)
    task = ClassificationTask.from_column(settings.split.target, list(labels.values()))
    data = FoldData.of(read_splits(job.run, settings), fold, loaded.bags, labels)
    device = pick_device(settings.execution.device)
    trained = train_fold(data, task, settings.train, seed, device, job.notify)
    job.target.mkdir()
    Checkpoint.of(trained, task, loaded.encoder, _preprocessing(job)).save(job.target / MODEL)
    _predictions(trained, task, labels).write(job.target / PREDICTIONS)
    trained.history.to_csv(job.target / HISTORY, index=False)
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return _made(trained.best_epoch, len(data.roles["train"]), len(data.roles["test"]))


def _preprocessing(job: Job) -> dict[str, Any]:
    """What new slides must go through. Paths say nothing on another machine: files are known by their hashes."""
    kept = {name: what(job.settings)[name] for name in ("slide", "tissue", "tile", "extract")}
    first = read_provenance(next(iter(feature_files(job.run, job.settings).values())))
    digest = first.inputs.get("method") if first else None
    tissue = kept["tissue"]
    options = pinned(tissue["method"], tissue["method_settings"], digest)
    # said only: where the files of other slides lie is for `predict` to ask
    foreign = {"coords_dir": "given"} if first and "coords" in first.inputs else {}
    return {**kept, "tissue": {**tissue, "method_settings": options}, "tile": {**kept["tile"], **foreign}}


def _bags(job: Job) -> LoadedBags:
    patients = job.run.cohort.patients
    return load_bags(feature_files(job.run, job.settings), patients)


def _predictions(trained: TrainedFold, task: ClassificationTask, labels: dict[str, str]) -> Predictions:
    parts = []
    for role in ("val", "test"):
        patients, logits = list(trained.patients[role]), trained.logits[role]
        parts.append(
            Predictions.of(
                task.classes,
                patients,
                [labels[patient] for patient in patients],
                logits.double().numpy(),
                task.scores(logits).double().numpy(),
                (trained.fold, trained.seed, role),
            )
        )
    return Predictions.concatenate(parts)


def check(path: Path) -> Made:
    """Read model and predictions back."""
    checkpoint = load_checkpoint(path / MODEL)
    predictions = Predictions.read(path / PREDICTIONS)
    tested = int((predictions.table["role"] == "test").sum())
    return _made(checkpoint.best_epoch, None, tested)


def preflight(run: Run, settings: RunSettings) -> None:
    """The model exists and takes these options; the target is a column of the cohort."""
    with torch.random.fork_rng(devices=[]):
        build_model(Recipe(settings.train.model, settings.train.model_settings, settings.train.wrappers), 8, 2)
    run.cohort.labels_by_patient(settings.split.target)


def _parse(key: str) -> tuple[int, int]:
    match = re.fullmatch(r"fold-(\d+)-seed-(\d+)", key)
    if match is None:
        raise CohortError(f"`{key}` is not fold-N-seed-M")
    return int(match[1]), int(match[2])


def _made(best_epoch: int, trained_on: int | None, tested: int) -> Made:
    counts = {"best epoch": best_epoch, "test patients": tested}
    return Made(counts=counts if trained_on is None else {"training patients": trained_on, **counts})


STAGE = Stage(
    name="train",
    version=1,
    packages=("torch", "numpy"),
    what=what,
    inputs=inputs,
    output=lambda run, key, settings: run.trained(train_name(settings), key),
    make=make,
    check=check,
    preflight=preflight,
)
