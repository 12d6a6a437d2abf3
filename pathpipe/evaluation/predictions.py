"""The noun `Predictions`: one row a patient, fold, seed and role, as a CSV table anyone can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathpipe.errors import StoreError
from pathpipe.evaluation.columns import SURVIVAL, Kind, classes_of, kind_of, numbers_of, parsed, truth_of

Floats = npt.NDArray[np.float64]


def repr_float(value: Any) -> str:
    """The shortest text that reads back to the same bits."""
    return repr(float(value))


@dataclass(frozen=True, eq=False)
class Predictions:
    """What models say of patients about one target.

    Attributes:
        classes: Class names, in the order of logits and probabilities; none of a number or a time.
        table: Columns patient_id, fold, seed, role (`val` or `test`), then by kind: target, `p_<class>` and
            `logit_<class>` of classes and grades; target and prediction of a number; time, event (0 or 1), risk
            (higher is earlier) and `survival_<t>`, the probability of no event up to t, of a time.
        kind: What the target is.
    """

    classes: tuple[str, ...]
    table: pd.DataFrame
    kind: Kind = "classification"

    @classmethod
    def of(
        cls,
        classes: Sequence[str],
        patients: Sequence[str],
        targets: Sequence[str],
        logits: Floats,
        probabilities: Floats,
        place: tuple[int, int, str],
    ) -> Predictions:
        """Predicted classes of one fold, seed and role.

        Args:
            logits: (P, C).
            probabilities: (P, C).
            place: (fold, seed, role).
        """
        columns: dict[str, Sequence[Any]] = {"target": list(targets)}
        for name, values in (("p", probabilities), ("logit", logits)):
            columns |= {f"{name}_{one}": values[:, index].tolist() for index, one in enumerate(classes)}
        return cls.of_columns("classification", patients, columns, place)

    @classmethod
    def of_columns(
        cls, kind: str, patients: Sequence[str], columns: Mapping[str, Any], place: tuple[int, int, str]
    ) -> Predictions:
        """Predictions of any kind, of one fold, seed and role.

        Args:
            columns: What follows the keys: name -> sequence or array, a value a patient.
            place: (fold, seed, role).
        """
        fold, seed, role = place
        table = pd.DataFrame({"patient_id": list(patients), "fold": fold, "seed": seed, "role": role, **columns})
        return cls(classes_of(table), table, cast("Kind", kind))

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """All rows of several tables of the same target."""
        if len({part.classes for part in parts}) != 1:
            raise StoreError(f"predictions of different classes: {sorted({part.classes for part in parts})}")
        if len({part.kind for part in parts}) != 1 or len({part.times for part in parts}) != 1:
            raise StoreError("predictions of different kinds, or of survival at different times")
        filled = [part.table for part in parts if len(part.table)] or [parts[0].table]
        return cls(parts[0].classes, pd.concat(filled, ignore_index=True), parts[0].kind)

    @property
    def times(self) -> tuple[float, ...]:
        """Times at which survival is predicted, in the order of their columns."""
        names = [str(name) for name in self.table.columns]
        return tuple(float(name.removeprefix(SURVIVAL)) for name in names if name.startswith(SURVIVAL))

    def write(self, path: Path) -> None:
        """Write as CSV; floats read back to the same bits."""
        self.table.to_csv(path, index=False, float_format=repr_float)

    @classmethod
    def read(cls, path: Path, kind: Kind | None = None) -> Predictions:
        """Read a CSV table.

        Args:
            kind: As the task beside it says; else told by the columns, which classes and grades have in common.

        Raises:
            StoreError: Columns are missing, a number isn't one, or rows contradict each other.
        """
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"can't be read as predictions: {error}", where=str(path)) from None
        kind = kind or kind_of(table)
        return cls(classes_of(table), parsed(table, kind, path), kind)

    def averaged(self, role: str) -> pd.DataFrame:
        """One row a patient and fold: predictions averaged over seeds, in order of fold and patient.

        A patient tested in several folds (a fixed test set, folds drawn independently) counts once, in the first of
        them, with the average of what all those models predict.

        Args:
            role: `val` or `test`.
        """
        truth = list(truth_of(self.kind))
        columns = [name for name in numbers_of(self.kind, self.table) if name not in truth]
        rows = self.table[self.table["role"] == role]
        if role == "test":
            rows = rows.assign(fold=rows.groupby("patient_id")["fold"].transform("min"))
        return rows.groupby(["fold", "patient_id", *truth], sort=True)[columns].mean().reset_index()

    def speaking(self) -> dict[int, tuple[int, ...]]:
        """Fold -> the folds whose models speak of the patients that are counted in it; itself, if each is tested once.

        Their validation patients are those by which something may be decided for them: see `deciding`.
        """
        test = self.table[self.table["role"] == "test"]
        first = test.groupby("patient_id")["fold"].transform("min")
        return {
            int(str(fold)): tuple(sorted({int(one) for one in rows["fold"]}))
            for fold, rows in test.groupby(first, sort=True)
        }

    @property
    def mixed(self) -> bool:
        """Whether patients that are counted in one fold are tested by different models."""
        test = self.table[self.table["role"] == "test"]
        sets = {frozenset(map(int, folds)) for _, folds in test.groupby("patient_id")["fold"]}
        return len({min(folds) for folds in sets}) < len(sets)

    def deciding(self, patients: Sequence[str], folds: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.bool_]]:
        """Fold -> (V,) which rows of validation may decide something for the test patients counted in that fold.

        Those of the models that speak of them, less those patients themselves: where folds are drawn independently, one
        model may validate on whom another tests.

        Args:
            patients: (V,) of the rows of validation.
            folds: (V,) likewise.
        """
        tested = {int(str(fold)): set(rows["patient_id"]) for fold, rows in self.averaged("test").groupby("fold")}
        return {
            fold: np.isin(folds, speaking) & np.array([one not in tested[fold] for one in patients], bool)
            for fold, speaking in self.speaking().items()
        }

    def pooled(self, role: str) -> Pool:
        """Classes or grades of patients, averaged.

        Args:
            role: `val` or `test`.
        """
        mean = self.averaged(role)
        index = {name: number for number, name in enumerate(self.classes)}
        return Pool(
            classes=self.classes,
            patients=tuple(mean["patient_id"]),
            folds=mean["fold"].to_numpy(np.int64),
            targets=np.array([index[target] for target in mean["target"]], np.int64),
            probabilities=mean[[f"p_{name}" for name in self.classes]].to_numpy(np.float64),
        )


@dataclass(frozen=True, eq=False)
class Pool:
    """Predictions ready to be measured.

    Attributes:
        targets: (P,) index of the true class.
        probabilities: (P, C).
    """

    classes: tuple[str, ...]
    patients: tuple[str, ...]
    folds: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    probabilities: Floats

    def take(self, rows: npt.NDArray[np.bool_]) -> Pool:
        """Some of the rows."""
        patients = tuple(name for name, wanted in zip(self.patients, rows, strict=True) if wanted)
        return Pool(self.classes, patients, self.folds[rows], self.targets[rows], self.probabilities[rows])
