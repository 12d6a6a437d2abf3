"""Stage `evaluate`: a trained model measured on its test folds, beside the colour baseline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.evaluation.baseline import NAME as BASELINE
from pathpipe.evaluation.baseline import colour_baseline
from pathpipe.evaluation.evaluate import Evaluation, evaluate_predictions
from pathpipe.evaluation.predictions import Predictions
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import train_name, units
from pathpipe.stages.split import read_splits
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.stages.train import PREDICTIONS, feature_files
from pathpipe.tissue.polygons import read_tissue

FILE = "evaluation.json"


@dataclass(frozen=True)
class EvaluatedModels:
    """A model and its baseline.

    Attributes:
        baseline: None when there are too few colours to fit one, with the reason.
    """

    model: Evaluation
    baseline: Evaluation | None
    baseline_note: str | None = None


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
    """Pool the test folds and measure."""
    name = train_name(job.settings)
    folds = [
        Predictions.read(job.run.trained(name, unit) / PREDICTIONS) for unit in units(job.run, "train", job.settings)
    ]
    predictions = Predictions.concatenate(folds)
    model = evaluate_predictions(predictions, job.settings.evaluate)
    baseline, note = _baseline(job, predictions)
    job.target.mkdir()
    predictions.write(job.target / PREDICTIONS)
    content = {
        "name": name,
        "target": job.settings.split.target,
        "confidence": job.settings.evaluate.confidence,
        "model": model.to_dict(),
        "baseline": baseline.to_dict() if baseline else None,
        "baseline_name": BASELINE,
        "baseline_note": note,
    }
    publish_json(job.target / FILE, content)
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return _made(EvaluatedModels(model, baseline, note))


def _baseline(job: Job, predictions: Predictions) -> tuple[Evaluation | None, str | None]:
    """The colour baseline over the same patients and folds, or why there is none."""
    cohort = job.run.cohort
    colours: dict[str, list[np.ndarray]] = {}
    for slide_id in feature_files(job.run, job.settings):
        colour = read_tissue(job.run.tissue(slide_id)).colour
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
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"can't be read as an evaluation: {error!r}", where=str(path)) from None


def check(path: Path) -> Made:
    """Read it back."""
    return _made(read_evaluation(path))


def _made(found: EvaluatedModels) -> Made:
    auroc = found.model.metrics["AUROC"]
    counts: dict[str, float] = {"patients": sum(found.model.patients.values())}
    if np.isfinite(auroc.value):
        counts["AUROC"] = round(auroc.value, 4)
    return Made("done", found.baseline_note, counts)


STAGE = Stage(
    name="evaluate",
    version=1,
    packages=("numpy", "scikit-learn"),
    what=sections("evaluate"),
    inputs=inputs,
    output=lambda run, key, settings: run.evaluation(train_name(settings)),
    make=make,
    check=check,
)
