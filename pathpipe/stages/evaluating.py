"""What an evaluation takes from a run beside predictions: truths, training patients, groups and colours of patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from pathpipe.cohort import Cohort
from pathpipe.evaluation.baseline import Asked, colour_baseline
from pathpipe.evaluation.evaluate import Surroundings
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.survival.measures import Horizon
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import train_name, units
from pathpipe.stages.outcomes import read_outcomes
from pathpipe.stages.patients import feature_files, feature_sets, labels_of
from pathpipe.stages.split import read_splits
from pathpipe.tasks.task import Task
from pathpipe.tissue.polygons import read_tissue
from pathpipe.training.splits import Splits

SEVERAL = "(several)"  # value of a patient whose slides differ


def column_values(cohort: Cohort, columns: list[str]) -> dict[str, dict[str, str]]:
    """Column -> patient_id -> value, empty where no slide has one.

    Raises:
        CohortError: A column is missing.
    """
    found: dict[str, dict[str, str]] = {}
    for column in columns:
        values: dict[str, set[str]] = {}
        for slide_id, text in cohort.values(column).items():
            values.setdefault(cohort.patients[slide_id], set()).update([text] if text else [])
        found[column] = {
            patient: SEVERAL if len(texts) > 1 else next(iter(texts), "") for patient, texts in values.items()
        }
    return found


@dataclass(frozen=True)
class Grounds:
    """A run's patients as its evaluation needs them."""

    run: Run
    settings: RunSettings
    task: Task

    @classmethod
    def of(cls, run: Run, settings: RunSettings) -> tuple[Grounds, dict[str, Predictions]]:
        """The grounds of a trained model, and target -> its predictions of all folds and seeds.

        Raises:
            StoreError: A fold is damaged.
        """
        name = train_name(settings)
        read = [read_outcomes(run.trained(name, unit)) for unit in units(run, "train", settings)]
        predictions = {target: Predictions.concatenate([found[target] for _, found in read]) for target in read[0][1]}
        return cls(run, settings, read[0][0]), predictions

    @cached_property
    def splits(self) -> Splits:
        """Folds of the training."""
        return read_splits(self.run, self.settings)

    def trained_on(self, target: str) -> dict[int, int]:
        """Fold -> patients that taught the target: those with features and a truth of it."""
        featured = {self.run.cohort.patients[slide_id] for slide_id in feature_sets(self.run, self.settings)}
        known = featured & set(self.truth(target).index)
        return {fold: len(known.intersection(self.splits.patients(fold, "train"))) for fold in self.splits.folds}

    @cached_property
    def _truths(self) -> dict[str, pd.DataFrame]:
        labels = labels_of(self.run.cohort, self.settings.split.target)
        tables = self.task.tables(torch.zeros(len(labels), self.task.outputs), list(labels.values()))
        names = ("target", "time", "event")
        return {
            table.target: pd.DataFrame(
                {name: list(values) for name, values in table.columns.items() if name in names}, index=list(labels)
            )[np.array(table.known, bool)]
            for table in tables
        }

    def truth(self, target: str) -> pd.DataFrame:
        """Index patient_id; columns target, or time and event; patients whose truth is known."""
        return self._truths[target]

    def horizon(self, target: str) -> Horizon | None:
        """Of everyone some fold trains on, for a survival target; None of others."""
        truth = self.truth(target)
        if "time" not in truth:
            return None
        rows = self.splits.table["role"] == "train"
        known = truth.loc[sorted(set(self.splits.table.loc[rows, "patient_id"]) & set(truth.index))]
        event = known["event"].to_numpy(np.int64) == 1
        return Horizon.of(known["time"].to_numpy(np.float64), event, self.settings.evaluate.horizons)

    def surroundings(self, target: str) -> Surroundings:
        """What the numbers of a target take beside predictions."""
        columns = column_values(self.run.cohort, self.settings.evaluate.subgroups)
        return Surroundings(self.horizon(target), columns)

    def baseline(self, target: str, predictions: Predictions) -> Predictions | str:
        """The colour baseline over the same patients and folds, or why there is none.

        Raises:
            StoreError: The folds can't teach it.
        """
        colours = self._colours()
        missing = sorted(set(predictions.table["patient_id"]) - set(colours))
        if missing:
            return f"{missing[0]} has no tissue colours"
        truth = self.truth(target)
        asked = Asked(predictions.kind, truth, predictions.classes, predictions.times)
        # who isn't predicted, e.g. for want of features, isn't tested on colours either
        named = set(predictions.table["patient_id"])
        table = self.splits.table
        return colour_baseline(colours, asked, table[(table["role"] == "train") | table["patient_id"].isin(named)])

    def _colours(self) -> Mapping[str, np.ndarray]:
        colours: dict[str, list[np.ndarray]] = {}
        for slide_id in feature_files(self.run, self.settings):
            tissue = self.run.tissue(slide_id)
            colour = read_tissue(tissue).colour if tissue.exists() else None
            if colour:
                patient = self.run.cohort.patients[slide_id]
                colours.setdefault(patient, []).append(np.array([*colour["mean"], *colour["std"]]))
        return {patient: np.mean(parts, axis=0) for patient, parts in colours.items()}
