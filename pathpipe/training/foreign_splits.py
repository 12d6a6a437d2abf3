"""Splits made elsewhere: files and folders in the layouts of CLAM, MCAT and pathpipe, ids turned into patients."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pathpipe.errors import CohortError
from pathpipe.fingerprint import fingerprint, sampled_digest
from pathpipe.places import SLIDE_SUFFIXES
from pathpipe.training.splits import COLUMNS, INNER, ROLES, Row, Splits, listed, read_csv

_FILE = re.compile(r"splits?_(\d+)(_bool)?\.csv")
_OWN = "splits.csv"
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Foreign:
    """What was read.

    Attributes:
        rows: (fold, patient_id, role); a patient may stand twice.
        notes: What was left out, a sentence each.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def read_foreign(source: Path, patients: Mapping[str, str]) -> Foreign:
    """Folds from a file, or a folder of one file a fold.

    | layout | files | columns |
    |---|---|---|
    | CLAM | splits_0.csv, ... | train, val, test: slide ids, one column shorter than another |
    | CLAM | splits_0_bool.csv, ... | slide id without a name, then train, val, test: True or False |
    | MCAT | splits_0.csv, ... | train, val: case ids |
    | pathpipe | splits.csv | fold, patient_id, role |

    Args:
        patients: slide_id -> patient_id of the cohort.

    Raises:
        CohortError: Nothing of these layouts is there, or none of its ids is of the cohort.
        LeakError: In pathpipe's layout, a patient has two roles in one fold.
    """
    # each of them may hold slides of one patient in two roles: `Splits` refuses that when the rows become one
    named: list[tuple[int, str, str]] = []
    notes = []
    for number, path in _files(source):
        table = read_csv(path)
        named += _named(table, number, path)
        if set(COLUMNS) | {INNER} <= set(table.columns):
            notes.append("the inner folds that are given are left out: `--inner-folds` deals out new ones")
    meaning = find_patients((name for _, name, _ in named), patients)
    unknown = [name for name, patient in meaning.items() if patient is None]
    if len(unknown) == len(meaning):
        raise CohortError(
            f"none of its {len(unknown)} ids is a slide or patient of the cohort: {listed(unknown)}", where=str(source)
        )
    rows = [(fold, patient, role) for fold, name, role in named if (patient := meaning[name]) is not None]
    if unknown:
        notes.append(f"{len(unknown)} ids in the given folds are not in the cohort: {listed(unknown)}")
    absent = sorted(set(patients.values()) - {patient for _, patient, _ in rows})
    if absent:
        notes.append(f"{len(absent)} patients of the cohort are in none of the given folds: {listed(absent)}")
    return Foreign(tuple(rows), tuple(notes))


def find_patients(names: Iterable[str], patients: Mapping[str, str]) -> dict[str, str | None]:
    """The patient that each id means: a patient, or a slide, with or without the suffix of its file; else None.

    Args:
        patients: slide_id -> patient_id of the cohort.

    Raises:
        CohortError: An id is a patient's, and that of another patient's slide, or means slides of two patients.
    """
    slides: dict[str, set[str]] = {}
    for slide, patient in patients.items():
        slides.setdefault(_stem(slide), set()).add(patient)
    slides |= {slide: {patient} for slide, patient in patients.items()}
    known = set(patients.values())
    meaning: dict[str, str | None] = {}
    for name in dict.fromkeys(names):
        found = _meant(name, slides, known) or _meant(_whole(name), slides, known)
        if len(found) > 1:
            what = "is a patient, and a slide of another patient" if name in known else "means slides of two patients"
            raise CohortError(f"`{name}` {what}: {listed(sorted(found))}", hint="rename one of the two")
        meaning[name] = next(iter(found), None)
    return meaning


def _meant(name: str, slides: Mapping[str, set[str]], known: set[str]) -> set[str]:
    return (slides.get(name) or slides.get(_stem(name), set())) | ({name} & known)


def _whole(name: str) -> str:
    """A numeric id as it was before pandas wrote it from a column with empty cells: 107.0 is 107."""
    return name.removesuffix(".0") if name.removesuffix(".0").isdigit() else name


def foreign_digest(source: Path) -> str:
    """Fingerprint of the content of all files that are read.

    Raises:
        CohortError: There are none.
    """
    return fingerprint([f"{number} {sampled_digest(path)}" for number, path in _files(source)])


def _files(source: Path) -> list[tuple[int, Path]]:
    """Fold number and file; of a fold that is there in both of CLAM's forms, the one with columns of ids."""
    if not source.exists():
        raise CohortError("there are no folds", where=str(source))
    if not source.is_dir():
        match = _FILE.fullmatch(source.name)
        return [(int(match[1]) if match else 0, source)]
    if (source / _OWN).is_file():
        return [(0, source / _OWN)]
    found: dict[int, Path] = {}
    for path in sorted(source.glob("*.csv"), key=lambda path: "_bool" not in path.name):
        match = _FILE.fullmatch(path.name)
        if match:
            found[int(match[1])] = path
    if not found:
        raise CohortError(
            "holds no folds", where=str(source), hint="files are called splits_0.csv, splits_1.csv, ... or splits.csv"
        )
    return sorted(found.items())


def _named(table: pd.DataFrame, number: int, path: Path) -> list[tuple[int, str, str]]:
    """(fold, id as written, role)."""
    if set(COLUMNS) <= set(table.columns):
        own = Splits.read(path).table
        return [(int(fold), str(p), str(r)) for fold, p, r in zip(*(own[name] for name in COLUMNS), strict=True)]
    roles = [role for role in ROLES if role in table.columns]
    if "train" not in roles or len(roles) < 2:
        raise CohortError(
            f"has columns {', '.join(map(str, table.columns))}",
            where=str(path),
            hint=f"expected {', '.join(COLUMNS)}, or train, val and test",
        )
    cells = {role: [str(text).strip() for text in table[role]] for role in roles}
    words = {text.lower() for texts in cells.values() for text in texts}
    if words <= set(_BOOLEANS) and len(table.columns) > len(roles):
        first = next(str(name) for name in table.columns if name not in roles)
        names = [str(text).strip() for text in table[first]]
        return [
            (number, name, role)
            for role in roles
            for name, text in zip(names, cells[role], strict=True)
            if _BOOLEANS[text.lower()]
        ]
    return [(number, text, role) for role in roles for text in cells[role] if text]


def _stem(name: str) -> str:
    """An id without the suffix of a slide file."""
    path = Path(name)
    return path.stem if path.suffix.lower() in SLIDE_SUFFIXES else name
