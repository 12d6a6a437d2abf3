"""The noun `Splits`: which patients train, validate and test in each fold; a table anyone can read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from pathpipe.errors import CohortError, LeakError
from pathpipe.publish import publish_text
from pathpipe.registry import suggest

COLUMNS = ("fold", "patient_id", "role")
INNER = "inner"
ROLES = ("train", "val", "test")
_VERBS = {"train": "train on", "val": "validate on", "test": "test on"}
_NOT_INNER = -1
_SHOWN = 5
Row = tuple[int, str, str]


@dataclass(frozen=True, eq=False)
class Splits:
    """Roles of patients, checked when made.

    A patient may be tested in several folds: in all of them where the test set is fixed, in some where folds were
    drawn independently. None of those models has seen the patient, so evaluation averages what they predict and
    counts the patient once (`tested_again`).

    Attributes:
        table: Columns fold (int), patient_id (str) and role (train, val or test), sorted by fold and patient; for
            nested folds also inner (int): the inner fold a patient belongs to, -1 for those the fold tests.

    Raises:
        LeakError: A patient has two roles in one fold, or is tested and in an inner fold.
        CohortError: A role is unknown or has no patient in some fold, or a patient stands twice in one role.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        unknown = sorted(set(self.table["role"]) - set(ROLES))
        if unknown:
            raise CohortError(f"`{unknown[0]}` is no role", where="column `role`", hint=suggest(unknown[0], [*ROLES]))
        for fold, rows in self.table.groupby("fold", sort=True):
            _refuse_leaks(int(str(fold)), {role: set(rows.loc[rows["role"] == role, "patient_id"]) for role in ROLES})
        twice = sorted(set(self.table.loc[self.table.duplicated(["fold", "patient_id"]), "patient_id"]))
        if twice:
            many = "s are" if len(twice) > 1 else " is"
            raise CohortError(f"{len(twice)} patient{many} listed twice in one fold: {listed(twice)}")
        if INNER in self.table:
            _refuse_inner_leaks(self.table)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Splits:
        """From (fold, patient_id, role) in any order."""
        return cls(_sorted(pd.DataFrame(list(rows), columns=list(COLUMNS))))

    @property
    def folds(self) -> tuple[int, ...]:
        """Fold numbers, ascending."""
        return tuple(sorted({int(fold) for fold in self.table["fold"]}))

    @property
    def tested_again(self) -> bool:
        """Whether some patient is tested in more than one fold."""
        return bool(self.table.loc[self.table["role"] == "test", "patient_id"].duplicated().any())

    @property
    def always_seen(self) -> frozenset[str]:
        """Patients that every fold trains or validates on: no model can say anything of them as of someone new."""
        rows = self.table[self.table["role"] != "test"]
        folds = rows.groupby("patient_id")["fold"].nunique()
        return frozenset(map(str, folds.index[folds == len(self.folds)]))

    def never_seen_by(self, patient: str) -> tuple[int, ...]:
        """Folds whose models never saw a patient: those that test it; where none does, those that don't know of it."""
        rows = self.table[self.table["patient_id"] == patient]
        tested = sorted(int(fold) for fold in rows.loc[rows["role"] == "test", "fold"])
        return tuple(tested or sorted(set(self.folds) - {int(fold) for fold in rows["fold"]}))

    def patients(self, fold: int, role: str) -> tuple[str, ...]:
        """Patients of one role in one fold, in the order of the table."""
        rows = (self.table["fold"] == fold) & (self.table["role"] == role)
        return tuple(self.table.loc[rows, "patient_id"])

    def with_inner(self, inner: Iterable[tuple[int, str, int]]) -> Splits:
        """The same folds with the inner fold of their training and validation patients.

        Args:
            inner: (fold, patient_id, inner fold), for every patient that the fold doesn't test.
        """
        numbers = {(fold, patient): number for fold, patient, number in inner}
        places = zip(self.table["fold"], self.table["patient_id"], strict=True)
        column = [numbers.get((int(fold), patient), _NOT_INNER) for fold, patient in places]
        return Splits(self.table.assign(**{INNER: column}))

    def inner(self, fold: int) -> Splits | None:
        """Cross-validation inside one fold, for choosing a model without its test patients; None where not nested.

        Inner fold i tests (that is, scores candidates on) the i-th part of the fold's training and validation
        patients, stops training by the next part and trains on the others. A trainer takes it like any split.
        """
        if INNER not in self.table:
            return None
        rows = self.table[(self.table["fold"] == fold) & (self.table[INNER] >= 0)]
        count = int(rows[INNER].max()) + 1
        named = zip(rows["patient_id"], rows[INNER], strict=True)
        members = [(str(patient), int(part)) for patient, part in named]
        return Splits.of(
            (number, patient, {number: "test", (number + 1) % count: "val"}.get(part, "train"))
            for number in range(count)
            for patient, part in members
        )

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
        table = read_csv(path)
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise CohortError(
                f"has no column `{missing[0]}`", where=str(path), hint=f"a split has columns {', '.join(COLUMNS)}"
            )
        if table.empty:
            raise CohortError("has no rows", where=str(path))
        whole = {name: _whole(table[name], name, path) for name in ("fold", INNER) if name in table}
        return cls(_sorted(table.assign(**whole)))


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV file with every cell as text.

    Raises:
        CohortError: It can't be read.
    """
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise CohortError(f"can't be read as a split: {error}", where=str(path)) from None


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _refuse_leaks(fold: int, members: dict[str, set[str]]) -> None:
    for first, second in combinations(ROLES, 2):
        shared = sorted(members[first] & members[second])
        if shared:
            many = len(shared) != 1
            raise LeakError(
                f"{len(shared)} patient{'s are' if many else ' is'} in both {first} and {second} of fold {fold}: "
                + listed(shared),
                hint="give every patient one role a fold",
            )
    for role in ROLES:
        if not members[role]:
            raise CohortError(f"fold {fold} has no patient to {_VERBS[role]}", hint="use fewer folds")


def _refuse_inner_leaks(table: pd.DataFrame) -> None:
    leaked = table[(table["role"] == "test") & (table[INNER] != _NOT_INNER)]
    if len(leaked):
        raise LeakError(
            f"{len(leaked)} patients are tested and in an inner fold: {listed(sorted(set(leaked['patient_id'])))}",
            hint="patients of role test have inner -1",
        )
    for fold, rows in table[table["role"] != "test"].groupby("fold", sort=True):
        numbers = sorted(set(rows[INNER]))
        if len(numbers) < 3 or numbers != list(range(len(numbers))):
            raise CohortError(
                f"fold {fold} has inner folds {', '.join(map(str, numbers))}", hint="three or more, counted from 0"
            )


def _whole(column: pd.Series[str], name: str, path: Path) -> pd.Series[int]:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = column[numbers % 1 != 0]
    if len(wrong):
        raise CohortError(f"{name} `{wrong.iloc[0]}` is no whole number", where=str(path))
    return numbers.astype(int)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    names = [*COLUMNS, *([INNER] if INNER in table else [])]
    return table[names].sort_values(["fold", "patient_id"], kind="stable", ignore_index=True)
