"""Patients of a run as training takes them: features, labels, covariates and the task, as the settings ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pathpipe.cohort import Cohort
from pathpipe.errors import CohortError, SettingsError
from pathpipe.mil.bag import Bag
from pathpipe.mil.covariates import Covariate, encode_covariates
from pathpipe.publish import look_anew
from pathpipe.run import Run
from pathpipe.settings import RunSettings, TrainSettings
from pathpipe.settings.target import parse_target
from pathpipe.stages.chain import encoders_of
from pathpipe.stages.split import read_splits
from pathpipe.tasks.build import task_from_target
from pathpipe.tasks.labels import Label, known_labels
from pathpipe.tasks.task import Task
from pathpipe.training.fold import FoldData
from pathpipe.training.loading import load_bags
from pathpipe.training.splits import Splits

POOL, COVARIATES = "pool-slides", "covariates"
Values = Mapping[str, Mapping[str, str]]  # column -> patient_id -> text


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that the training of one fold takes.

    Attributes:
        task: Fitted to the fold's training patients.
        settings: With the wrappers that settings of slides and patients stand for.
        encoder: Identity of the one encoder, or of several side by side.
    """

    data: FoldData
    task: Task
    settings: TrainSettings
    encoder: Mapping[str, Any]


def feature_files(run: Run, settings: RunSettings) -> dict[str, Path]:
    """slide_id -> feature file of the run's encoder, for the slides that have one.

    Raises:
        CohortError: No slide has.
    """
    return {slide_id: paths[0] for slide_id, paths in _feature_sets(run, [settings.extract.encoder]).items()}


def feature_sets(run: Run, settings: RunSettings) -> dict[str, tuple[Path, ...]]:
    """slide_id -> a feature file of each encoder, for the slides that have all.

    Raises:
        CohortError: No slide has.
    """
    return _feature_sets(run, encoders_of(settings))


def _feature_sets(run: Run, encoders: list[str]) -> dict[str, tuple[Path, ...]]:
    slides = [slide.slide_id for slide in run.cohort.slides]
    for name in encoders:
        look_anew(run.features_of(name))
    sets = {slide_id: tuple(run.features(name, slide_id) for name in encoders) for slide_id in slides}
    found = {slide_id: paths for slide_id, paths in sets.items() if all(path.exists() for path in paths)}
    if not found:
        names = " and ".join(f"`{name}`" for name in encoders)
        raise CohortError(f"no slide has features of {names}", hint="`pathpipe extract` says why")
    return found


def labels_of(cohort: Cohort, target: str) -> dict[str, tuple[str, ...]]:
    """patient_id -> texts in the columns of all targets; patients without a value of any are left out.

    Raises:
        CohortError: A column is missing or empty, or a patient's slides disagree.
    """
    specs = parse_target(target)
    return known_labels(specs, {name: cohort.labels_by_patient(name) for spec in specs for name in spec.columns})


def covariate_values(cohort: Cohort, columns: list[str]) -> dict[str, dict[str, str]]:
    """Column -> patient_id -> text.

    Raises:
        CohortError: A column is missing or empty, or a patient's slides disagree.
    """
    return {column: cohort.labels_by_patient(column) for column in columns}


def task_of(labels: Mapping[str, Label], settings: RunSettings) -> Task:
    """The task, before it has learnt anything.

    Raises:
        SettingsError: An option doesn't fit the target.
        CohortError: A text can't be a value of the target.
    """
    return task_from_target(settings.split.target, labels, settings.train.task_settings)


def refuse_encoders(settings: RunSettings) -> None:
    """Make sure that the run's own encoder is among those asked for.

    Raises:
        SettingsError: It isn't.
    """
    encoders = settings.train.encoders
    if encoders and settings.extract.encoder not in encoders:
        raise SettingsError(
            f"the run's encoder `{settings.extract.encoder}` is not among {', '.join(encoders)}",
            where="train.encoders",
            hint=f"name it there, or use `--encoder {encoders[0]}`",
        )


def prepare_fold(run: Run, settings: RunSettings, fold: int, splits: Splits | None = None) -> Prepared:
    """Bags, labels and fitted task of one fold.

    Args:
        splits: Other folds than the run's own, e.g. those inside one of them.

    Raises:
        CohortError: The fold can't teach the task.
        StoreError: Features are damaged, or of different encoders or tiles.
    """
    labels = labels_of(run.cohort, settings.split.target)
    task = task_of(labels, settings)
    loaded = load_bags(feature_sets(run, settings), run.cohort.patients)
    splits = splits or read_splits(run, settings)
    data = FoldData.of(splits, fold, loaded.bags, labels, _class_columns(settings.split.target))
    try:
        task = task.fit([data.labels[patient] for patient in data.roles["train"]])
    except CohortError as error:
        where = ", ".join(part for part in (f"fold {fold}", error.where) if part)
        raise CohortError(error.what, where=where, hint=error.hint) from None
    values = covariate_values(run.cohort, settings.train.covariates)
    known = {column: {p: text for p, text in texts.items() if p in data.bags} for column, texts in values.items()}
    covariates = [Covariate.fit(column, known[column], data.roles["train"]) for column in settings.train.covariates]
    data = replace(data, bags=with_covariates(data.bags, covariates, values))
    return Prepared(data, task, _with_wrappers(settings.train, covariates), loaded.encoder)


def with_covariates(bags: Mapping[str, Bag], covariates: Sequence[Covariate], values: Values) -> dict[str, Bag]:
    """patient_id -> bag, with the patient's covariates where there are any to take.

    Raises:
        CohortError: A text is no number, as it was in training.
    """
    if not covariates:
        return dict(bags)
    return {
        patient: replace(bag, covariates=encode_covariates(covariates, values, patient))
        for patient, bag in bags.items()
    }


def wrappers_of(settings: TrainSettings) -> dict[str, dict[str, Any]]:
    """The wrappers asked for, and pooling around them."""
    wrappers = dict(settings.wrappers)
    if settings.slides_of_patient == "pool":
        wrappers.setdefault(POOL, {})
    return wrappers


def _with_wrappers(settings: TrainSettings, covariates: list[Covariate]) -> TrainSettings:
    wrappers = wrappers_of(settings)
    if covariates:
        wrappers[COVARIATES] = {"columns": [one.model_dump(mode="json") for one in covariates]}
    return settings.model_copy(update={"wrappers": wrappers})


def _class_columns(target: str) -> list[int]:
    """Which texts of a label are classes."""
    kinds = [spec.kind for spec in parse_target(target) for _ in spec.columns]
    return [at for at, kind in enumerate(kinds) if kind in ("classification", "ordinal")]
