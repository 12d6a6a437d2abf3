"""Explaining a slide of a run: which models may, on the patient's whole bag, and whether they say what they said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from pathpipe.cohort import SlideRow
from pathpipe.errors import StoreError
from pathpipe.evaluation.predictions import Predictions
from pathpipe.explain.probing import Member
from pathpipe.mil.bag import Bag
from pathpipe.mil.covariates import Covariate
from pathpipe.publish import look_anew
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import encoders_of, fold_key, train_name
from pathpipe.stages.outcomes import read_outcomes
from pathpipe.stages.patients import COVARIATES, covariate_values, with_covariates
from pathpipe.stages.split import read_splits
from pathpipe.stages.train import MODEL
from pathpipe.tasks.task import Task
from pathpipe.training.checkpoint import Checkpoint, load_checkpoint
from pathpipe.training.loading import LoadedBags, load_bags

ONLY_UNSEEN = "a slide is explained by models that never saw its patient"
TOLERANCE = 1e-5  # of a logit, or of a larger number in proportion


def models_of(run: Run, key: str, settings: RunSettings) -> list[Path]:
    """The trained folds in which the slide's patient is tested; of a patient that none tests, those without it.

    Raises:
        StoreError: All of them trained or validated on the patient.
    """
    folds, name = read_splits(run, settings).never_seen_by(run.cohort[key].patient_id), train_name(settings)
    if not folds:
        raise StoreError("every model was trained or validated on the slide's patient", where=key, hint=ONLY_UNSEEN)
    return [run.trained(name, fold_key(fold, seed)) for fold in folds for seed in settings.train.seeds]


def slides_with(run: Run, key: str, settings: RunSettings) -> dict[str, tuple[Path, ...]]:
    """slide_id -> a feature file of each encoder, for the slides of the slide's patient that have all: the bag's."""
    row = run.cohort[key]
    others: list[SlideRow] = [slide for slide in run.cohort.slides if slide.patient_id == row.patient_id]
    names = encoders_of(settings)
    for name in names:
        look_anew(run.features_of(name))
    sets = {slide.slide_id: tuple(run.features(name, slide.slide_id) for name in names) for slide in others}
    return {slide_id: paths for slide_id, paths in sets.items() if all(path.exists() for path in paths)}


def load_members(run: Run, key: str, settings: RunSettings) -> list[Member]:
    """The models that explain a slide, each with the bag of the slide's patient.

    Raises:
        StoreError: A model was trained on other features, or says of the patient what it didn't say when trained.
    """
    patient = run.cohort[key].patient_id
    loaded = load_bags(slides_with(run, key, settings), run.cohort.patients)
    members = []
    for path in models_of(run, key, settings):
        checkpoint = load_checkpoint(path / MODEL)
        checkpoint.refuse_other_encoder(loaded.encoder, where=str(path))
        members.append(Member.of(checkpoint, _bag(run, checkpoint, loaded, patient), path.name))
    return members


def _bag(run: Run, checkpoint: Checkpoint, loaded: LoadedBags, patient: str) -> Bag:
    """The patient's bag, with the covariates as this model's training learnt to read them."""
    given = checkpoint.wrappers.get(COVARIATES)
    if given is None:
        return loaded.bags[patient]
    covariates = [Covariate.model_validate(one) for one in given["columns"]]
    values = covariate_values(run.cohort, [one.column for one in covariates])
    return with_covariates({patient: loaded.bags[patient]}, covariates, values)[patient]


def refuse_other_predictions(
    run: Run, key: str, settings: RunSettings, members: Sequence[Member], logits: Sequence[np.ndarray]
) -> int:
    """Make sure that what is explained is what was predicted, and evaluated.

    Args:
        logits: (outputs,) of each member.

    Returns:
        How many of the models have a prediction of the patient on disk: there is none of patients without a label, nor
        of those whom a fold neither validates nor tests.

    Raises:
        StoreError: One says something else now.
    """
    patient, compared = run.cohort[key].patient_id, 0
    for path, member, own in zip(models_of(run, key, settings), members, logits, strict=True):
        _, found = read_outcomes(path)
        now = _said(member.task, own)
        seen = False
        for target, predictions in found.items():
            before = _before(predictions, patient)
            seen |= before is not None
            _refuse(now[target], before or {}, f"{member.name}, patient {patient}")
        compared += seen
    return compared


def _said(task: Task, logits: np.ndarray) -> dict[str, dict[str, float]]:
    """Target -> column -> number, as predictions keep them."""
    tables = task.tables(torch.from_numpy(logits)[None])
    return {one.target: {name: float(values[0]) for name, values in one.columns.items()} for one in tables}


def _before(predictions: Predictions, patient: str) -> dict[str, float] | None:
    """The patient's numbers, or None where there is no row."""
    rows = predictions.table[predictions.table["patient_id"] == patient]
    if not len(rows):
        return None
    row = rows.iloc[0]
    return {str(name): float(row[name]) for name in rows.columns if isinstance(row[name], float | np.floating)}


def _refuse(now: Mapping[str, float], before: Mapping[str, float], where: str) -> None:
    for name, value in now.items():
        if name in before and not abs(value - before[name]) <= TOLERANCE * max(1.0, abs(before[name])):
            raise StoreError(
                f"the model says {name} = {value:.7g} of the stored features, and said {before[name]:.7g} when trained",
                where=where,
                hint="features or weights have changed since: train and evaluate again",
            )
