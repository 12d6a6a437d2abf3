"""Strata: what a split keeps balanced, whatever the kind of target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.labels import holds, is_known, number, refuse_measured

MAX_BINS = 10  # of a measured value
TIME_BINS = 4  # as discrete-time survival models cut time
UNLABELLED = "unlabelled "  # no cell of a cohort ends in a blank, so no class is called that


@dataclass(frozen=True, eq=False)
class Strata:
    """Which shares of the patients each fold should have.

    Attributes:
        patients: In alphabetical order.
        names: What is balanced: classes, grades, bins, event and time, or labels that hold.
        members: (P, S) bool. A patient is in one stratum, except of a multilabel target: in one for each label
            that holds, or in none.
        exclusive: Whether every patient is in exactly one.
        classes: Whether strata are classes a model can't do without in training.
    """

    patients: tuple[str, ...]
    names: tuple[str, ...]
    members: npt.NDArray[np.bool_]
    exclusive: bool = True
    classes: bool = True

    @classmethod
    def of_labels(cls, labels: Mapping[str, str], classes: bool = True) -> Strata:
        """One stratum a label, in alphabetical order."""
        patients = tuple(sorted(labels))
        names = tuple(sorted(set(labels.values())))
        index = {name: number for number, name in enumerate(names)}
        members = np.zeros((len(patients), len(names)), bool)
        members[np.arange(len(patients)), [index[labels[patient]] for patient in patients]] = True
        return cls(patients, names, members, classes=classes)

    @property
    def counts(self) -> dict[str, int]:
        """Patients by stratum."""
        return dict(zip(self.names, self.members.sum(axis=0).tolist(), strict=True))

    def take(self, rows: npt.NDArray[np.bool_]) -> Strata:
        """Some of the patients; strata that none of them is in are left out."""
        patients = tuple(name for name, wanted in zip(self.patients, rows, strict=True) if wanted)
        members = self.members[rows]
        kept = np.flatnonzero(members.any(axis=0))
        names = tuple(self.names[at] for at in kept)
        return Strata(patients, names, members[:, kept], self.exclusive, self.classes)


def strata_of(spec: TargetSpec, values: Mapping[str, Sequence[str]], folds: int) -> Strata:
    """Strata of the patients by one target.

    Classes and grades are their own strata; a regression target is cut at quantiles, at most 10; a survival target is
    cut by event, and by time at quantiles of the patients with and without one, at most 4; a multilabel target has a
    stratum a label. Patients without a value make up a stratum of their own (several targets with missing labels).

    Args:
        values: patient_id -> text of each of the target's columns, "" where unknown.
        folds: Bins are made so large that each fold can have a patient of every one.

    Raises:
        CohortError: A text is no number, or none that says whether an event was seen; or classes are numbers measured.
    """
    known = {patient: texts for patient, texts in values.items() if is_known(spec, texts)}
    unknown = {patient: UNLABELLED for patient in values if patient not in known}
    if spec.kind == "multilabel":
        return _multilabel(spec, values)
    if spec.timed:
        labels = _timed(spec, known, folds)
    elif spec.kind == "regression":
        numbers = {patient: number(texts[0], patient, spec.columns[0]) for patient, texts in known.items()}
        labels = _binned(numbers, max(2, folds), MAX_BINS)
    else:
        labels = {patient: texts[0] for patient, texts in known.items()}
        if spec.kind == "classification":
            refuse_measured(labels.values(), spec.columns[0])
    return Strata.of_labels({**labels, **unknown}, classes=spec.kind in ("classification", "ordinal"))


def time_and_event(spec: TargetSpec, known: Mapping[str, Sequence[str]]) -> tuple[dict[str, float], dict[str, bool]]:
    """Times, and whether the event was seen, of a survival target's patients.

    Raises:
        CohortError: A text is no number, or says neither yes nor no.
    """
    times = {patient: number(texts[0], patient, spec.columns[0]) for patient, texts in known.items()}
    events = {p: holds(texts[1], p, spec.columns[1]) != spec.censoring for p, texts in known.items()}
    return times, events


def _timed(spec: TargetSpec, known: Mapping[str, Sequence[str]], folds: int) -> dict[str, str]:
    times, events = time_and_event(spec, known)
    labels: dict[str, str] = {}
    for seen, word in ((True, "event"), (False, "censored")):
        part = {patient: time for patient, time in times.items() if events[patient] == seen}
        labels |= {patient: f"{word}, time {bin_}" for patient, bin_ in _binned(part, max(2, folds), TIME_BINS).items()}
    return labels


def _binned(numbers: Mapping[str, float], least: int, most: int) -> dict[str, str]:
    """Quantile bins of at least `least` patients, named `1 of 4`; equal values share one."""
    if not numbers:
        return {}
    values = np.array([numbers[patient] for patient in sorted(numbers)])
    bins = min(most, max(1, len(values) // least))
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf"))
    place = np.searchsorted(edges, values, side="left")
    count = int(place.max()) + 1
    return {p: f"{at + 1:02d} of {count}" for p, at in zip(sorted(numbers), place.tolist(), strict=True)}


def _multilabel(spec: TargetSpec, values: Mapping[str, Sequence[str]]) -> Strata:
    patients = tuple(sorted(values))
    rows = [
        [
            text != "" and holds(text, patient, column)
            for text, column in zip(values[patient], spec.columns, strict=True)
        ]
        for patient in patients
    ]
    members = np.array(rows, bool).reshape(len(patients), len(spec.columns))
    return Strata(patients, spec.columns, members, exclusive=False, classes=False)
