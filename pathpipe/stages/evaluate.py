"""Stage `evaluate`: a trained model measured on its test folds, target by target, beside the colour baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.evaluation.baseline import NAME as BASELINE
from pathpipe.evaluation.baseline import colour_baseline
from pathpipe.evaluation.evaluate import Evaluation, evaluate_predictions
from pathpipe.evaluation.kinds import measure_predictions
from pathpipe.evaluation.predictions import Predictions
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import train_name, units
from pathpipe.stages.outcomes import TASK, read_outcomes, table_files
from pathpipe.stages.patients import feature_files
from pathpipe.stages.split import read_splits
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.tissue.polygons import read_tissue

FILE = "evaluation.json"


@dataclass(frozen=True)
class EvaluatedModels:
    """A model and its baseline.

    Attributes:
        model: Of the first target.
        baseline: None when there are too few colours to fit one, or it isn't for such targets, with the reason.
        others: Further targets -> the model's numbers.
    """

    model: Evaluation
    baseline: Evaluation | None
    baseline_note: str | None = None
    others: Mapping[str, Evaluation] = field(default_factory=dict)


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """Every fold and seed, and the tissue the baseline's colours are of."""
    made = {}
    for unit in units(run, "train", settings):
        provenance = read_provenance(run.trained(train_name(settings), unit))
        if provenance is None:
            raise StoreError(f"{unit} is not trained", where=train_name(settings), hint="run `pathpipe train`")
        made[unit] = provenance.fingerprint
    return made


def make(job: Job) -> Made:
    """Pool the test folds and measure every target."""
    name, settings = train_name(job.settings), job.settings.evaluate
    read = [read_outcomes(job.run.trained(name, unit)) for unit in units(job.run, "train", job.settings)]
    task = read[0][0]
    predictions = {target: Predictions.concatenate([found[target] for _, found in read]) for target in read[0][1]}
    models = {target: measure_predictions(one, settings) for target, one in predictions.items()}
    first, *others = models
    baseline, note = _baseline(job, predictions[first])
    job.target.mkdir()
    for target, file in table_files(task).items():
        predictions[target].write(job.target / file)
    publish_json(job.target / TASK, task.question())
    content = {
        "name": name,
        "target": job.settings.split.target,
        "confidence": settings.confidence,
        "model": models[first].to_dict(),
        "others": {target: models[target].to_dict() for target in others},
        "baseline": baseline.to_dict() if baseline else None,
        "baseline_name": BASELINE,
        "baseline_note": note,
    }
    publish_json(job.target / FILE, content)
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return _made(EvaluatedModels(models[first], baseline, note, {target: models[target] for target in others}))


def _baseline(job: Job, predictions: Predictions) -> tuple[Evaluation | None, str | None]:
    """The colour baseline over the same patients and folds, or why there is none."""
    if predictions.kind != "classification":
        return None, f"no colour baseline: it is for classes, this is {predictions.kind}"
    cohort = job.run.cohort
    colours: dict[str, list[np.ndarray]] = {}
    for slide_id in feature_files(job.run, job.settings):
        tissue = job.run.tissue(slide_id)
        colour = read_tissue(tissue).colour if tissue.exists() else None
        if colour:
            colours.setdefault(cohort.patients[slide_id], []).append(np.array([*colour["mean"], *colour["std"]]))
    table = predictions.table
    labels = dict(zip(table["patient_id"], table["target"], strict=True))
    splits = read_splits(job.run, job.settings).table
    splits = splits[splits["patient_id"].isin(labels)]
    mean = {patient: np.mean(parts, axis=0) for patient, parts in colours.items()}
    missing = sorted(set(labels) - set(mean))
    if missing:
        return None, f"no colour baseline: {missing[0]} has no tissue colours"
    try:
        fitted = colour_baseline(mean, labels, predictions.classes, splits)
    except StoreError as error:
        return None, f"no colour baseline: {error.what}"
    return evaluate_predictions(fitted, job.settings.evaluate), None


def read_evaluation(path: Path) -> EvaluatedModels:
    """An evaluation folder.

    Raises:
        StoreError: It is damaged.
    """
    try:
        content = json.loads((path / FILE).read_text(encoding="utf-8"))
        baseline = content["baseline"]
        return EvaluatedModels(
            Evaluation.from_dict(content["model"]),
            Evaluation.from_dict(baseline) if baseline else None,
            content["baseline_note"],
            {target: Evaluation.from_dict(one) for target, one in content["others"].items()},
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"can't be read as an evaluation: {error!r}", where=str(path)) from None


def check(path: Path) -> Made:
    """Read it back."""
    return _made(read_evaluation(path))


def _made(found: EvaluatedModels) -> Made:
    counts: dict[str, float] = {"patients": sum(found.model.patients.values())}
    for target, model in {"": found.model, **found.others}.items():
        name, number = next(iter(model.metrics.items()))
        if np.isfinite(number.value):
            counts[f"{name} of {target}" if target else name] = round(number.value, 4)
    return Made("done", found.baseline_note, counts)


STAGE = Stage(
    name="evaluate",
    version=2,
    packages=("numpy", "scikit-learn"),
    what=sections("evaluate"),
    inputs=inputs,
    output=lambda run, key, settings: run.evaluation(train_name(settings)),
    make=make,
    check=check,
)
