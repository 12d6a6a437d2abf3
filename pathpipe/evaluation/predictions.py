"""The noun `Predictions`: one row a patient, fold, seed and role, as a CSV table anyone can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathpipe.errors import StoreError

KEYS = ("patient_id", "fold", "seed", "role", "target")
Floats = npt.NDArray[np.float64]


def repr_float(value: Any) -> str:
    """The shortest text that reads back to the same bits."""
    return repr(float(value))


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted classes.

    Attributes:
        classes: Class names, in the order of logits and probabilities.
        table: Columns patient_id, fold, seed, role (`val` or `test`), target, then `p_<class>` and `logit_<class>`.
    """

    classes: tuple[str, ...]
    table: pd.DataFrame

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
        """Predictions of one fold, seed and role.

        Args:
            logits: (P, C).
            probabilities: (P, C).
            place: (fold, seed, role).
        """
        fold, seed, role = place
        table = pd.DataFrame({"patient_id": list(patients), "fold": fold, "seed": seed, "role": role})
        table["target"] = list(targets)
        for index, name in enumerate(classes):
            table[f"p_{name}"] = probabilities[:, index]
        for index, name in enumerate(classes):
            table[f"logit_{name}"] = logits[:, index]
        return cls(tuple(classes), table)

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """All rows of several tables of the same classes."""
        if len({part.classes for part in parts}) != 1:
            raise StoreError(f"predictions of different classes: {sorted({part.classes for part in parts})}")
        return cls(parts[0].classes, pd.concat([part.table for part in parts], ignore_index=True))

    def write(self, path: Path) -> None:
        """Write as CSV; floats read back to the same bits."""
        self.table.to_csv(path, index=False, float_format=repr_float)

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read a CSV table.

        Raises:
            StoreError: Columns are missing, or a probability isn't a number.
        """
        try:
            table = pd.read_csv(
                path,
                dtype={"patient_id": str, "role": str, "target": str},
                keep_default_na=False,
                float_precision="round_trip",
            )
        except (OSError, ValueError) as error:
            raise StoreError(f"can't be read as predictions: {error}", where=str(path)) from None
        classes = tuple(name.removeprefix("p_") for name in table.columns if name.startswith("p_"))
        missing = [name for name in (*KEYS, *(f"logit_{name}" for name in classes)) if name not in table.columns]
        if missing or len(classes) < 2:
            raise StoreError(
                f"is no table of predictions: it lacks {', '.join(missing) or 'p_<class> columns'}", where=str(path)
            )
        try:
            numbers = table[[f"p_{name}" for name in classes]].astype(np.float64).to_numpy()
        except ValueError as error:
            raise StoreError(f"a probability isn't a number: {error}", where=str(path)) from None
        if not np.isfinite(numbers).all():
            raise StoreError("a probability isn't finite", where=str(path))
        return cls(classes, table)

    def pooled(self, role: str) -> Pool:
        """One row a patient and fold: probabilities averaged over seeds, in order of fold and patient."""
        columns = [f"p_{name}" for name in self.classes]
        rows = self.table[self.table["role"] == role]
        mean = rows.groupby(["fold", "patient_id", "target"], sort=True)[columns].mean().reset_index()
        index = {name: number for number, name in enumerate(self.classes)}
        return Pool(
            classes=self.classes,
            patients=tuple(mean["patient_id"]),
            folds=mean["fold"].to_numpy(np.int64),
            targets=np.array([index[target] for target in mean["target"]], np.int64),
            probabilities=mean[columns].to_numpy(np.float64),
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
