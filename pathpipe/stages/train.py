"""Stage `train`: one model a fold and seed, with the predictions of the patients it never saw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pathpipe.encoders.load import pick_device
from pathpipe.errors import CohortError, StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import train_name
from pathpipe.stages.fitting import conditions
from pathpipe.stages.outcomes import predictions_of, read_outcomes, write_outcomes
from pathpipe.stages.patients import (
    Prepared,
    covariate_values,
    feature_files,
    feature_sets,
    labels_of,
    prepare_fold,
    refuse_encoders,
    task_of,
    wrappers_of,
)
from pathpipe.stages.split import split_name
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.tissue.method import pinned
from pathpipe.training.checkpoint import Checkpoint, load_checkpoint
from pathpipe.training.distributed import local_device
from pathpipe.training.fit import Conditions, refuse_unfit
from pathpipe.training.logs import refuse_missing
from pathpipe.training.splits import listed
from pathpipe.training.trainer import TrainedFold, predict_logits, train_fold

MODEL, HISTORY = "model.pt", "history.csv"


def what(settings: RunSettings) -> dict[str, Any]:
    """Settings that matter; what a result is called doesn't, nor where the encoder's weights lie."""
    values = sections("slide", "tissue", "tile", "extract", "split", "train")(settings)
    values["train"].pop("name")
    return values


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The features of every slide, the split, and what the cohort says of the patients."""
    cohort, train = run.cohort, settings.train
    made = {slide_id: _fingerprints(paths) for slide_id, paths in sorted(feature_sets(run, settings).items())}
    split = read_provenance(run.split(split_name(settings)))
    if split is None:
        raise StoreError("there is no split", where=str(run.split(split_name(settings))), hint="run `pathpipe split`")
    labels = {patient: list(texts) for patient, texts in labels_of(cohort, settings.split.target).items()}
    known = {"labels": fingerprint(labels), "patients": fingerprint(dict(sorted(cohort.patients.items())))}
    if train.covariates:
        known["covariates"] = fingerprint(covariate_values(cohort, train.covariates))
    return {"features": fingerprint(made), "split": split.fingerprint, **known, "unit": key}


def _fingerprints(paths: Sequence[Path]) -> list[str]:
    return [one.fingerprint for one in map(read_provenance, paths) if one is not None]


def make(job: Job) -> Made:
    """Train one fold with one seed."""
    with conditions(job) as how:
        trained, prepared = _fit(job, how)
    data, task = prepared.data, prepared.task
    job.target.mkdir()
    Checkpoint.of(trained, task, prepared.encoder, _preprocessing(job)).save(job.target / MODEL)
    write_outcomes(job.target, task, predictions_of(trained, task, data.labels))
    trained.history.to_csv(job.target / HISTORY, index=False)
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    if how.keep is not None:
        how.keep.forget()
    made = _made(trained.best_epoch, len(data.roles["train"]), len(data.roles["test"]))
    absent = [f"{patient} ({why})" for patient, why in sorted(data.left_out.items())]
    return replace(made, reason=f"patients of the split that take no part: {listed(absent)}") if absent else made


def take_part(job: Job) -> None:
    """Take part in a training that another process of torchrun leads, and publishes."""
    with conditions(job) as how:
        _fit(job, how)


def _fit(job: Job, how: Conditions) -> tuple[TrainedFold, Prepared]:
    """What every process of a training does."""
    fold, seed = _parse(job.key)
    prepared = prepare_fold(job.run, job.settings, fold)
    data, task = prepared.data, prepared.task
    device = pick_device(local_device(job.settings.execution.device))
    trained = train_fold(data, task, prepared.settings, seed, device, job.notify, how)
    if task.finishes:
        members = data.roles["train"]
        bags = [data.bags[patient] for patient in members]
        logits = predict_logits(trained.model.to(device), bags, device, how.group)
        trained.model.cpu()
        task = task.finish(logits, task.encode([data.labels[patient] for patient in members]))
    return trained, replace(prepared, task=task)


def _preprocessing(job: Job) -> dict[str, Any]:
    """What new slides must go through. Paths say nothing on another machine: files are known by their hashes."""
    kept = {name: what(job.settings)[name] for name in ("slide", "tissue", "tile", "extract")}
    files = feature_files(job.run, job.settings).values()
    first = read_provenance(next(iter(files)))
    digest = first.inputs.get("method") if first else None
    tissue = kept["tissue"]
    options = pinned(tissue["method"], tissue["method_settings"], digest)
    # said only: where the files of other slides lie is for `predict` to ask
    folders = {"coords_dir": "coords", "include": "include", "exclude": "exclude"}
    foreign = {name: "given" for name, known in folders.items() if first and known in first.inputs}
    outlined = all((made := read_provenance(file)) is not None and "mask" in made.inputs for file in files)
    masked = {"mask_dir": "given"} if outlined else {}
    kept |= {"tissue": {**tissue, "method_settings": options, **masked}, "tile": {**kept["tile"], **foreign}}
    encoders = job.settings.train.encoders
    return {**kept, "train": {"encoders": encoders}} if encoders else kept


def check(path: Path) -> Made:
    """Read model and predictions back."""
    checkpoint = load_checkpoint(path / MODEL)
    _, found = read_outcomes(path)
    tested = {patient for one in found.values() for patient in one.table.loc[one.table["role"] == "test", "patient_id"]}
    return _made(checkpoint.best_epoch, None, len(tested))


def preflight(run: Run, settings: RunSettings) -> None:
    """The model exists and takes these options and this target; the cohort has what is asked of it."""
    refuse_missing(settings.execution.log)
    refuse_encoders(settings)
    covariate_values(run.cohort, settings.train.covariates)
    task = task_of(labels_of(run.cohort, settings.split.target), settings)
    recipe = Recipe(settings.train.model, settings.train.model_settings, wrappers_of(settings.train))
    with torch.random.fork_rng(devices=[]):
        model = build_model(recipe, 8, task.outputs)
    refuse_unfit(model, task, settings.train)


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
    version=4,
    packages=("torch", "numpy"),
    what=what,
    inputs=inputs,
    output=lambda run, key, settings: run.trained(train_name(settings), key),
    make=make,
    check=check,
    preflight=preflight,
)
