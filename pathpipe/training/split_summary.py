"""What a split looks like: one row a fold and role, for people to see before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.labels import holds, is_known, number
from pathpipe.training.bonds import Values
from pathpipe.training.splits import ROLES, Splits
from pathpipe.training.strata import time_and_event

_MOST_CLASSES = 8
Describe = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True, eq=False)
class Summary:
    """A table.

    Attributes:
        columns: Names.
        rows: A cell is a number or a text.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int | str, ...], ...]


def summarise(
    splits: Splits,
    spec: TargetSpec,
    values: Mapping[str, Sequence[str]],
    slides: Mapping[str, int],
    sites: Values,
) -> Summary:
    """Patients, slides, sites, and the target's shares, by fold and role.

    Args:
        values: patient_id -> text of each of the target's columns, "" where unknown.
        slides: patient_id -> number of slides.
        sites: patient_id -> sites; empty where none are known.
    """
    extra, describe = _columns(spec, values)
    with_sites = any(any(found) for found in sites.values())
    rows: list[tuple[int | str, ...]] = []
    for fold in splits.folds:
        for role in ROLES:
            patients = splits.patients(fold, role)
            places = {site for patient in patients for site in sites.get(patient, ()) if site}
            count = sum(slides.get(patient, 0) for patient in patients)
            rows.append((fold, role, len(patients), count, *([len(places)] if with_sites else []), *describe(patients)))
    return Summary(("fold", "role", "patients", "slides", *(["sites"] if with_sites else []), *extra), tuple(rows))


def _columns(spec: TargetSpec, values: Mapping[str, Sequence[str]]) -> tuple[list[str], Describe]:
    known = {patient: texts for patient, texts in values.items() if is_known(spec, texts)}
    if spec.timed:
        return _timed(spec, known)
    if spec.kind == "regression":
        numbers = {p: number(texts[0], p, spec.columns[0]) for p, texts in known.items()}
        return [f"median {spec.columns[0]}", "quartiles"], lambda patients: _spread(
            [numbers[p] for p in patients if p in numbers]
        )
    if spec.kind == "multilabel":
        return [*spec.columns], lambda patients: [
            _share([holds(known[p][at], p, name) for p in patients if p in known and known[p][at]])
            for at, name in enumerate(spec.columns)
        ]
    classes = sorted({texts[0] for texts in known.values()})
    if len(classes) > _MOST_CLASSES:
        return ["classes"], lambda patients: [str(len({known[p][0] for p in patients if p in known}))]
    return classes, lambda patients: [_share([known[p][0] == name for p in patients if p in known]) for name in classes]


def _timed(spec: TargetSpec, known: Mapping[str, Sequence[str]]) -> tuple[list[str], Describe]:
    times, events = time_and_event(spec, known)

    def describe(patients: Sequence[str]) -> list[str]:
        inside = [patient for patient in patients if patient in times]
        median = f"{np.median([times[patient] for patient in inside]):.4g}" if inside else "-"
        return [_share([events[patient] for patient in inside]), median]

    return ["events", f"median {spec.columns[0]}"], describe


def _share(found: Sequence[bool]) -> str:
    return f"{sum(found)} ({100 * sum(found) / len(found):.0f}%)" if found else "-"


def _spread(numbers: Sequence[float]) -> list[str]:
    if not numbers:
        return ["-", "-"]
    low, middle, high = np.quantile(numbers, [0.25, 0.5, 0.75])
    return [f"{middle:.4g}", f"{low:.4g} to {high:.4g}"]
