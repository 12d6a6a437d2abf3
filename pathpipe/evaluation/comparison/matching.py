"""Models on common ground: the same patients, the same truth, the same folds where there are such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.evaluation.arrays import Ints
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.survival.measures import Horizon
from pathpipe.evaluation.unseen import Unseen, unseen_patients
from pathpipe.settings import EvaluateSettings


@dataclass(frozen=True, eq=False)
class Entrant:
    """A model that takes part in a comparison.

    Attributes:
        name: Unlike any other's.
        trained_on: Fold -> number of training patients whose truth is known.
        horizon: Of its training patients, of a survival target.
    """

    name: str
    predictions: Predictions
    trained_on: Mapping[int, int]
    horizon: Horizon | None = None


@dataclass(frozen=True, eq=False)
class Matched:
    """The common patients of all models, in one order.

    Attributes:
        models: The same patients of each, with folds such that only who shares a fold in all models does here.
        tested: Patients of each model before.
        same_folds: Whether every patient is tested in the same fold, and in one alone, by all models.
        share_tested: Test / training patients of a fold, mean over folds and models.
        notes: What was left out.
    """

    models: tuple[Unseen, ...]
    tested: tuple[int, ...]
    same_folds: bool
    share_tested: float
    notes: tuple[str, ...]


def match(entrants: Sequence[Entrant], settings: EvaluateSettings) -> Matched:
    """Bring models to their common patients.

    Raises:
        StoreError: They are of different targets, have no patient in common, or disagree on a patient's truth.
    """
    first = entrants[0]
    for other in entrants[1:]:
        _refuse_other_target(first, other)
    each = [unseen_patients(one.predictions, settings, first.horizon)[0] for one in entrants]
    common = sorted(set.intersection(*(set(one.patients) for one in each)))
    if not common:
        raise StoreError("have no test patient in common", where=_names(entrants))
    kept = [_only(one, common) for one in each]
    for entrant, one in zip(entrants[1:], kept[1:], strict=True):
        _refuse_other_truth(first.name, kept[0], entrant.name, one)
    notes = [
        f"{len(one.patients) - len(common)} of {len(one.patients)} patients of {entrant.name} are left out: another "
        "model didn't test them"
        for entrant, one in zip(entrants, each, strict=True)
        if len(one.patients) > len(common)
    ]
    folds = np.stack([one.folds for one in kept])
    same = bool((folds == folds[0]).all())
    if not same:
        notes.append("the models' folds differ, so there is no test across folds")
        if first.predictions.kind == "survival":
            notes.append("only patients who share a fold in all models are compared within folds")
    alone = all(speaking == (fold,) for one in entrants for fold, speaking in one.predictions.speaking().items())
    if same and not alone:
        notes.append("patients are tested in several folds, so there is no test across folds")
    kept, more = _same_times(kept, entrants)
    joint = np.unique(folds, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    models = tuple(replace(one, folds=folds[0] if same else joint) for one in kept)
    share = _share_tested(folds, entrants)
    return Matched(models, tuple(len(one.patients) for one in each), same and alone, share, (*notes, *more))


def _refuse_other_target(first: Entrant, other: Entrant) -> None:
    mine, yours = first.predictions, other.predictions
    if mine.kind != yours.kind:
        raise StoreError(
            f"{first.name} predicts {mine.kind}, {other.name} {yours.kind}",
            hint="only models of the same target can be compared",
        )
    if mine.classes != yours.classes:
        raise StoreError(
            f"{first.name} knows the classes {', '.join(mine.classes)}, {other.name} {', '.join(yours.classes)}",
            hint="only models of the same target can be compared",
        )


def _refuse_other_truth(name: str, mine: Unseen, other_name: str, yours: Unseen) -> None:
    for column in ("time", "event") if mine.kind == "survival" else ("targets",):
        differ = mine.columns[column] != yours.columns[column]
        if differ.any():
            at = int(np.argmax(differ))
            said = [one.columns[column][at] for one in (mine, yours)]
            texts = [
                one.classes[int(value)] if one.classes else f"{value:g}"
                for one, value in zip((mine, yours), said, strict=True)
            ]
            raise StoreError(
                f"patient {mine.patients[at]} is `{texts[0]}` for {name} and `{texts[1]}` for {other_name}",
                hint="compare models of the same labels; patients of different cohorts need different names",
            )


def _only(one: Unseen, patients: Sequence[str]) -> Unseen:
    places = {patient: place for place, patient in enumerate(one.patients)}
    return one.take(np.array([places[patient] for patient in patients], np.intp))


def _same_times(kept: list[Unseen], entrants: Sequence[Entrant]) -> tuple[list[Unseen], list[str]]:
    """Without predicted survival, if it isn't at the same times in all models."""
    if len({one.times for one in kept}) == 1:
        return kept, []
    bare = [
        replace(one, times=(), columns={**one.columns, "survival": np.zeros((len(one.patients), 0))}) for one in kept
    ]
    return bare, [f"survival is predicted at different times by {_names(entrants)}, so it isn't compared"]


def _share_tested(folds: Ints, entrants: Sequence[Entrant]) -> float:
    shares = [
        (row == fold).sum() / one.trained_on[int(fold)]
        for row, one in zip(folds, entrants, strict=True)
        for fold in np.unique(row)
        if one.trained_on.get(int(fold))
    ]
    return float(np.mean(shares)) if shares else float("nan")


def _names(entrants: Sequence[Entrant]) -> str:
    return ", ".join(one.name for one in entrants)
