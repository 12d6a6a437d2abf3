"""The noun `Unseen`: patients a model never saw, with the truth and what it says of them, ready to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.evaluation import measures, metrics
from pathpipe.evaluation.arrays import Floats, Ints, ranks
from pathpipe.evaluation.calling import called_classes, median_grade
from pathpipe.evaluation.columns import Kind
from pathpipe.evaluation.measures import Measure
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.survival.measures import Horizon, Timed, survival
from pathpipe.settings import EvaluateSettings

FOLD_MEAN = "AUROC (mean of folds)"
# what only the patients of several folds together have
OF_SEVERAL_FOLDS = (FOLD_MEAN, "C-index (Harrell, pooled)", "C-index (Uno, pooled)")
# the numbers to compare models and subgroups by, the one that decides first
HEADLINES: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("AUROC", "AUPRC", "balanced accuracy", "Brier score", "log loss"),
    "ordinal": ("quadratic kappa", "MAE (classes)", "balanced accuracy"),
    "regression": ("MAE", "RMSE", "Spearman"),
    "survival": ("C-index (Harrell, within folds)", "C-index (Uno, within folds)", "integrated Brier score"),
}
_ORDERING = ("AUROC", "AUPRC", "Spearman", "C-index")  # metrics that know no more of scores than their order


@dataclass(frozen=True, eq=False)
class Unseen:
    """Test patients of one model and one target.

    Attributes:
        patients: (P,) each once.
        folds: (P,) the fold whose model, or first of whose models, speaks.
        columns: Arrays of P rows. Classes and grades: `targets`, `probabilities` (P, C) and `predicted`; numbers:
            `targets` and `predicted`; times: `time`, `event`, `risk` and `survival` (P, S).
        times: Of the columns of `survival`.
        horizon: Of training patients; None where they aren't known.
    """

    kind: Kind
    classes: tuple[str, ...]
    patients: tuple[str, ...]
    folds: Ints
    columns: Mapping[str, npt.NDArray[np.generic]]
    times: tuple[float, ...] = ()
    horizon: Horizon | None = None

    @property
    def strata(self) -> Ints:
        """(P,) groups to draw patients within: true classes, or whether the event was seen; one group of numbers."""
        if self.kind == "regression":
            return np.zeros(len(self.patients), np.int64)
        return np.asarray(self.columns["event" if self.kind == "survival" else "targets"], np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """Patients of each stratum, by its name."""
        names = {"regression": ("patients",), "survival": ("censored", "event")}.get(self.kind, self.classes)
        counts = np.bincount(self.strata, minlength=len(names))
        return {name: int(count) for name, count in zip(names, counts, strict=True)}

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Self:
        """Some of the patients."""
        places = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns = {name: values[places] for name, values in self.columns.items()}
        patients = tuple(self.patients[place] for place in places)
        return replace(self, patients=patients, folds=self.folds[places], columns=columns)

    def measures(self) -> dict[str, Measure]:
        """Every number of these patients, as a function of their weights."""
        if self.kind == "survival":
            return survival(self.timed(), self.horizon)
        if self.kind == "regression":
            return measures.measured(self.of("targets"), self.of("predicted"))
        targets, predicted = self.whole("targets"), self.whole("predicted")
        if self.kind == "ordinal":
            return measures.ordinal(targets, self.of("probabilities"), predicted)
        named = measures.classification(targets, self.of("probabilities"), predicted)
        first, others = named.pop("AUROC"), named
        return {"AUROC": first, FOLD_MEAN: Measure(self._area_by_fold, first.undefined), **others}

    def timed(self) -> Timed:
        """Times, for the statistics of survival."""
        times = np.array(self.times, np.float64)
        event = self.whole("event") == 1
        return Timed(self.of("time"), event, self.of("risk"), self.folds, times, self.of("survival"))

    def of(self, name: str) -> Floats:
        """A column of numbers."""
        return np.asarray(self.columns[name], np.float64)

    def whole(self, name: str) -> Ints:
        """A column of whole numbers."""
        return np.asarray(self.columns[name], np.int64)

    def ranked(self) -> Self:
        """With every score in the place of its rank, from above 0 to 1: what orders patients, on a scale of its own.

        Risks are ranked within their folds.
        """
        name = {"survival": "risk", "regression": "predicted"}.get(self.kind, "probabilities")
        scores, groups = self.of(name), self.folds if self.kind == "survival" else np.zeros(len(self.folds), np.int64)
        by_rank = np.empty_like(scores)
        for group in np.unique(groups):
            rows = groups == group
            by_rank[rows] = np.apply_along_axis(_rank_shares, 0, scores[rows])
        return replace(self, columns={**self.columns, name: by_rank})

    def above(self, other: Unseen) -> Unseen:
        """This model's patients, then the other model's."""
        columns = {name: np.concatenate([values, other.columns[name]]) for name, values in self.columns.items()}
        folds = np.concatenate([self.folds, other.folds])
        return replace(self, patients=(*self.patients, *other.patients), folds=folds, columns=columns)

    def _area_by_fold(self, weights: Floats) -> Floats:
        targets, probabilities = self.whole("targets"), self.of("probabilities")
        parts = [self.folds == fold for fold in np.unique(self.folds)]
        each = np.array([metrics.auroc(targets[r], probabilities[r], weights[:, r]) for r in parts])
        known = np.isfinite(each)
        many = known.sum(axis=0)
        return np.divide(np.where(known, each, 0).sum(axis=0), many, out=np.full(len(many), np.nan), where=many > 0)


def knows_order_alone(metric: str) -> bool:
    """Whether a metric stays as it is when scores are replaced by their ranks."""
    return metric.startswith(_ORDERING)


def _rank_shares(scores: Floats) -> Floats:
    return ranks(scores, np.ones((1, len(scores))))[0] / len(scores)


@dataclass(frozen=True, eq=False)
class Chosen:
    """What was decided on validation patients.

    Attributes:
        thresholds: Fold -> probability above which class 1 is predicted; of two classes.
        notes: Where validation couldn't decide.
    """

    thresholds: Mapping[int, float]
    notes: tuple[str, ...] = ()


def unseen_patients(
    predictions: Predictions, settings: EvaluateSettings, horizon: Horizon | None = None
) -> tuple[Unseen, Chosen]:
    """The test patients, each once, and what validation decided for them.

    Raises:
        StoreError: No patient was tested.
    """
    test = predictions.averaged("test")
    if test.empty:
        raise StoreError("there is no test patient to measure", hint="the column `role` says who was tested")
    chosen = Chosen({})
    columns: dict[str, npt.NDArray[np.generic]]
    if predictions.kind == "survival":
        chances = [name for name in map(str, test.columns) if name.startswith("survival_")]
        columns = {name: test[name].to_numpy(np.float64) for name in ("time", "risk")}
        columns |= {"event": test["event"].to_numpy(np.int64), "survival": test[chances].to_numpy(np.float64)}
    elif predictions.kind == "regression":
        columns = {
            "targets": test["target"].to_numpy(np.float64),
            "predicted": test["prediction"].to_numpy(np.float64),
        }
    else:
        pool = predictions.pooled("test")
        if predictions.kind == "ordinal":
            predicted = median_grade(pool.probabilities)
        else:
            predicted, thresholds, notes = called_classes(predictions, settings.threshold)
            chosen = Chosen(thresholds, notes)
        columns = {"targets": pool.targets, "probabilities": pool.probabilities, "predicted": predicted}
    patients, folds = tuple(map(str, test["patient_id"])), test["fold"].to_numpy(np.int64)
    times = predictions.times
    return Unseen(predictions.kind, predictions.classes, patients, folds, columns, times, horizon), chosen
