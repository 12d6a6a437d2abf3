"""Splits: which patients train, validate and test in each fold; by patient, stratified, saved as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from pathpipe.errors import CohortError, LeakError
from pathpipe.publish import publish_text
from pathpipe.registry import suggest
from pathpipe.settings import SplitSettings

COLUMNS = ("fold", "patient_id", "role")
ROLES = ("train", "val", "test")
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Splits:
    """Roles of patients, checked when made.

    Attributes:
        table: Columns fold (int), patient_id (str) and role (train, val or test); sorted by fold and patient.

    Raises:
        LeakError: A patient has two roles in one fold.
        CohortError: A role is unknown or has no patient in some fold, a patient stands twice in one role, or is
            tested in two folds, which would count them twice.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        unknown = sorted(set(self.table["role"]) - set(ROLES))
        if unknown:
            raise CohortError(f"`{unknown[0]}` is no role", where="column `role`", hint=suggest(unknown[0], [*ROLES]))
        for fold in self.folds:
            self._refuse_leaks(fold)
        tested = self.table[self.table["role"] == "test"]
        _refuse_twice(tested, ["patient_id"], "tested in more than one fold")
        _refuse_twice(self.table, ["fold", "patient_id"], "listed twice in one fold")

    def _refuse_leaks(self, fold: int) -> None:
        members = {role: set(self.patients(fold, role)) for role in ROLES}
        for first, second in combinations(ROLES, 2):
            shared = sorted(members[first] & members[second])
            if shared:
                many = len(shared) != 1
                raise LeakError(
                    f"{len(shared)} patient{'s are' if many else ' is'} in both {first} and {second} of fold {fold}: "
                    + _listed(shared),
                    hint="give every patient one role a fold",
                )
        for role in ROLES:
            if not members[role]:
                raise CohortError(f"fold {fold} has no patient to {_VERBS[role]}", hint="use fewer folds")

    @property
    def folds(self) -> tuple[int, ...]:
        """Fold numbers, ascending."""
        return tuple(sorted({int(fold) for fold in self.table["fold"]}))

    def patients(self, fold: int, role: str) -> tuple[str, ...]:
        """Patients of one role in one fold, in the order of the table."""
        rows = (self.table["fold"] == fold) & (self.table["role"] == role)
        return tuple(self.table.loc[rows, "patient_id"])

    def write(self, path: Path) -> None:
        """Write as CSV."""
        publish_text(path, self.table.to_csv(index=False, lineterminator="\n"))

    @classmethod
    def read(cls, path: Path) -> Splits:
        """Read a CSV, one of ours or a user's own.

        Raises:
            CohortError: It can't be read, or lacks a column.
            LeakError: A patient has two roles in one fold.
        """
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (OSError, ValueError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
            raise CohortError(f"can't be read as a split: {error}", where=str(path)) from None
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise CohortError(
                f"has no column `{missing[0]}`", where=str(path), hint=f"a split has columns {', '.join(COLUMNS)}"
            )
        folds = pd.to_numeric(table["fold"], errors="coerce")
        if table.empty or not (folds % 1 == 0).all():
            what = (
                "has no rows" if table.empty else f"fold `{table['fold'][folds % 1 != 0].iloc[0]}` is no whole number"
            )
            raise CohortError(what, where=str(path))
        return cls(_sorted(table.assign(fold=folds.astype(int))))


def make_splits(labels: Mapping[str, str], settings: SplitSettings) -> Splits:
    """Cross-validation folds: every patient is tested exactly once.

    In each fold a class has its share of test patients, within one patient, and `val_fraction` of the others
    validate, within one patient and, as long as two are left, at least one. The order of `labels` doesn't matter.

    Args:
        labels: patient_id -> class.

    Raises:
        CohortError: One class only, or a class with fewer patients than folds.
    """
    classes = {name: sorted(p for p, label in labels.items() if label == name) for name in sorted(set(labels.values()))}
    _refuse_small(classes, settings)
    test_fold: dict[str, int] = {}
    for members in classes.values():
        # Dealing goes on where the last class stopped, so that folds have equal sizes over all classes too.
        start = len(test_fold)
        shuffled = np.random.default_rng([settings.seed, start]).permutation(members)
        test_fold.update({str(patient): (start + place) % settings.folds for place, patient in enumerate(shuffled)})
    rows = []
    for fold in range(settings.folds):
        val: set[str] = set()
        for number, members in enumerate(classes.values()):
            others = [patient for patient in members if test_fold[patient] != fold]
            # Another stream than the dealing's, whose seeds have two words.
            rng = np.random.default_rng([settings.seed, fold, number])
            val.update(str(p) for p in rng.permutation(others)[: _val_count(len(others), settings.val_fraction)])
        rows += [(fold, patient, _role(patient, test_fold[patient] == fold, val)) for patient in test_fold]
    return Splits(_sorted(pd.DataFrame(rows, columns=list(COLUMNS))))


_VERBS = {"train": "train on", "val": "validate on", "test": "test on"}


def _val_count(patients: int, fraction: float) -> int:
    return min(max(1, round(fraction * patients)), patients - 1)


def _role(patient: str, tested: bool, val: set[str]) -> str:
    if tested:
        return "test"
    return "val" if patient in val else "train"


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    return table[list(COLUMNS)].sort_values(["fold", "patient_id"], kind="stable", ignore_index=True)


def _refuse_small(classes: Mapping[str, list[str]], settings: SplitSettings) -> None:
    where = f"column `{settings.target}`"
    counts = ", ".join(f"{name}: {len(members)}" for name, members in classes.items())
    if len(classes) < 2:
        raise CohortError(f"two or more classes are needed, patients by class are {counts or 'none'}", where=where)
    if max(map(len, classes.values())) < 3:
        raise CohortError(f"too few patients to train, validate and test: {counts}", where=where)
    if min(map(len, classes.values())) < settings.folds:
        raise CohortError(
            f"{settings.folds} folds need {settings.folds} patients of every class, there are {counts}",
            where=where,
            hint=f"use at most {max(2, min(map(len, classes.values())))} folds, or leave out or merge the rare class",
        )


def _refuse_twice(table: pd.DataFrame, keys: list[str], what: str) -> None:
    twice = sorted(set(table.loc[table.duplicated(keys), "patient_id"]))
    if twice:
        raise CohortError(f"{len(twice)} patient{'s are' if len(twice) > 1 else ' is'} {what}: {_listed(twice)}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
