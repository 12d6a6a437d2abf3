"""Stage `evaluate`: a trained model measured on its test folds, target by target, beside the colour baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.evaluation.baseline import NAME as BASELINE
from pathpipe.evaluation.comparison.compare import compare
from pathpipe.evaluation.comparison.comparison import Comparison
from pathpipe.evaluation.comparison.matching import Entrant
from pathpipe.evaluation.evaluate import evaluate_predictions
from pathpipe.evaluation.evaluation import Evaluation
from pathpipe.evaluation.predictions import Predictions
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import train_name, units
from pathpipe.stages.evaluating import Grounds, column_values
from pathpipe.stages.outcomes import TASK, table_files
from pathpipe.stages.stage import Job, Made, Stage, sections

FILE, BASELINE_TABLE = "evaluation.json", "baseline.csv"


@dataclass(frozen=True)
class EvaluatedModels:
    """A model and its baseline.

    Attributes:
        model: Of the first target.
        baseline: None when there are too few colours to fit one, with the reason.
        others: Further targets -> the model's numbers.
        against_baseline: The model compared with the baseline, by the first target; None without one.
        target: The first target, or the first label of several.
    """

    model: Evaluation
    baseline: Evaluation | None
    baseline_note: str | None = None
    others: Mapping[str, Evaluation] = field(default_factory=dict)
    against_baseline: Comparison | None = None
    target: str = ""


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """Every fold and seed (and so the tissue that the baseline's colours are of), and the columns of subgroups."""
    made = {}
    for unit in units(run, "train", settings):
        provenance = read_provenance(run.trained(train_name(settings), unit))
        if provenance is None:
            raise StoreError(f"{unit} is not trained", where=train_name(settings), hint="run `pathpipe train`")
        made[unit] = provenance.fingerprint
    columns = settings.evaluate.subgroups
    return made | ({"subgroups": fingerprint(column_values(run.cohort, columns))} if columns else {})


def preflight(run: Run, settings: RunSettings) -> None:
    """Make sure that the columns of subgroups are there.

    Raises:
        CohortError: One isn't.
    """
    column_values(run.cohort, settings.evaluate.subgroups)


def make(job: Job) -> Made:
    """Pool the test folds and measure every target."""
    name, settings = train_name(job.settings), job.settings.evaluate
    grounds, predictions = Grounds.of(job.run, job.settings)
    models = {
        target: evaluate_predictions(one, settings, grounds.surroundings(target)) for target, one in predictions.items()
    }
    first, *others = models
    baseline, note = _baseline(grounds, first, predictions[first])
    job.target.mkdir()
    for target, file in table_files(grounds.task).items():
        predictions[target].write(job.target / file)
    publish_json(job.target / TASK, grounds.task.question())
    found = EvaluatedModels(
        model=models[first],
        baseline=evaluate_predictions(baseline, settings, grounds.surroundings(first)) if baseline else None,
        baseline_note=note,
        others={target: models[target] for target in others},
        against_baseline=_against(grounds, first, name, predictions[first], baseline) if baseline else None,
        target=first,
    )
    if baseline:
        baseline.write(job.target / BASELINE_TABLE)
    publish_json(job.target / FILE, _content(found, name, job.settings))
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return _made(found)


def _baseline(grounds: Grounds, target: str, predictions: Predictions) -> tuple[Predictions | None, str | None]:
    try:
        fitted = grounds.baseline(target, predictions)
    except StoreError as error:
        fitted = error.what
    return (None, f"no colour baseline: {fitted}") if isinstance(fitted, str) else (fitted, None)


def _against(grounds: Grounds, target: str, name: str, model: Predictions, baseline: Predictions) -> Comparison:
    horizon, trained_on = grounds.horizon(target), grounds.trained_on(target)
    entrants = [Entrant(name, model, trained_on, horizon), Entrant(BASELINE, baseline, trained_on, horizon)]
    return compare(target, entrants, grounds.settings.evaluate)


def _content(found: EvaluatedModels, name: str, settings: RunSettings) -> dict[str, Any]:
    return {
        "name": name,
        "target": settings.split.target,
        "confidence": settings.evaluate.confidence,
        "interval": settings.evaluate.interval,
        "threshold": settings.evaluate.threshold,
        "model_target": found.target,
        "model": found.model.to_dict(),
        "others": {target: one.to_dict() for target, one in found.others.items()},
        "baseline": found.baseline.to_dict() if found.baseline else None,
        "baseline_name": BASELINE,
        "baseline_note": found.baseline_note,
        "against_baseline": found.against_baseline.to_dict() if found.against_baseline else None,
    }


def read_evaluation(path: Path) -> EvaluatedModels:
    """An evaluation folder.

    Raises:
        StoreError: It is damaged.
    """
    try:
        content = json.loads((path / FILE).read_text(encoding="utf-8"))
        baseline, against = content["baseline"], content["against_baseline"]
        return EvaluatedModels(
            Evaluation.from_dict(content["model"]),
            Evaluation.from_dict(baseline) if baseline else None,
            content["baseline_note"],
            {target: Evaluation.from_dict(one) for target, one in dict(content["others"]).items()},
            Comparison.from_dict(against) if against else None,
            str(content["model_target"]),
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
    version=4,
    packages=("numpy", "scipy", "scikit-learn"),
    what=sections("evaluate"),
    inputs=inputs,
    output=lambda run, key, settings: run.evaluation(train_name(settings)),
    make=make,
    check=check,
    preflight=preflight,
)
