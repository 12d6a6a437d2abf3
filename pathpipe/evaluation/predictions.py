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
ROLES = ("val", "test")
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
            StoreError: Columns are missing, a number isn't one, or rows contradict each other.
        """
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"can't be read as predictions: {error}", where=str(path)) from None
        classes = tuple(name.removeprefix("p_") for name in table.columns if name.startswith("p_"))
        missing = [name for name in (*KEYS, *(f"logit_{name}" for name in classes)) if name not in table.columns]
        if missing or len(classes) < 2:
            raise StoreError(
                f"is no table of predictions: it lacks {', '.join(missing) or 'p_<class> columns'}", where=str(path)
            )
        for name in ("fold", "seed"):
            table[name] = _parsed(table[name], int, name, path)
        for name in (f"{kind}_{one}" for kind in ("p", "logit") for one in classes):
            table[name] = _parsed(table[name], float, name, path)
        wrong = _wrong(table, classes)
        if wrong:
            raise StoreError(wrong, where=str(path))
        return cls(classes, table)

    def pooled(self, role: str) -> Pool:
        """One row a patient and fold: probabilities averaged over seeds, in order of fold and patient.

        Args:
            role: `val` or `test`.
        """
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


def _parsed(texts: pd.Series[str], number: type[int] | type[float], name: str, path: Path) -> Floats:
    """Numbers, each to the bits it was written from; pandas' own parser may miss the last one."""
    values = []
    for row, text in enumerate(texts, start=2):
        try:
            values.append(number(text))
        except ValueError:
            whole = "whole number" if number is int else "number"
            raise StoreError(f"row {row}: {name} `{text}` is no {whole}", where=str(path)) from None
    return np.array(values, np.int64 if number is int else np.float64)


def _wrong(table: pd.DataFrame, classes: tuple[str, ...]) -> str | None:
    """What makes a table no predictions, or None."""
    numbers = table[[f"{kind}_{name}" for kind in ("p", "logit") for name in classes]].to_numpy(np.float64)
    finite = np.isfinite(numbers).all(axis=1)
    if not finite.all():
        return f"row {int(np.argmin(finite)) + 2}: a probability or logit isn't finite"
    shares = numbers[:, : len(classes)]
    fair = (shares >= 0).all(axis=1) & np.isclose(shares.sum(axis=1), 1, atol=1e-6)
    if not fair.all():
        return f"row {int(np.argmin(fair)) + 2}: the probabilities aren't shares of 1"
    for name, known in (("role", ROLES), ("target", classes)):
        strange = table.loc[~table[name].isin(known), name]
        if len(strange):
            return f"row {int(strange.index[0]) + 2}: {name} `{strange.iloc[0]}` is none of {', '.join(known)}"
    twice = table.duplicated(["patient_id", "fold", "seed", "role"])
    if twice.any():
        return f"row {int(np.argmax(twice)) + 2}: patient {table['patient_id'][int(np.argmax(twice))]} stands twice"
    targets = table.groupby("patient_id")["target"].nunique()
    if (targets > 1).any():
        return f"patient {targets[targets > 1].index[0]} has more than one target"
    return None
