"""Folds: the roles of patients, made from strata, bonds and settings; the same whatever the order of the table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathpipe.errors import CohortError
from pathpipe.settings import SplitSettings
from pathpipe.training.assignment import Assigned, assign_units, deal, stratify_iteratively
from pathpipe.training.bonds import Bonds, Units
from pathpipe.training.splits import ROLES, Row, Splits
from pathpipe.training.strata import UNLABELLED, Strata

Ints = npt.NDArray[np.int64]
# Streams of random numbers, apart from each other and from the dealing's, whose seeds have two words.
_TEST, _VAL, _INNER = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Planned:
    """Folds and how they came out.

    Attributes:
        splits: The folds.
        evenness: Where groups or sites stay whole, how even that leaves the test folds; else None.
        notes: What a reader of results should know, a sentence each.
    """

    splits: Splits
    evenness: Assigned | None
    notes: tuple[str, ...]


def make_splits(labels: Mapping[str, str], settings: SplitSettings) -> Splits:
    """Cross-validation folds of classes: every patient is tested exactly once.

    In each fold a class has its share of test patients, within one patient, and `val_fraction` of the others
    validate, within one patient and, as long as two are left, at least one. The order of `labels` doesn't matter.

    Args:
        labels: patient_id -> class.

    Raises:
        CohortError: One class only, or a class with fewer patients than folds.
    """
    return plan_folds(Strata.of_labels(labels), settings, Bonds()).splits


def plan_folds(strata: Strata, settings: SplitSettings, bonds: Bonds) -> Planned:
    """Roles of all patients in all folds.

    - As a rule every patient is tested in one fold, and `val_fraction` of the others validate.
    - With a fixed test set each fold tests all of it. One fold is a plain hold-out; of several, fold i validates on the
      i-th part of the other patients. What their models predict of a test patient is averaged in evaluation.
    - Sites preserved: a site has one role in each fold. Leave one out: a fold a site, which it tests.
    - Groups always stay together.

    Raises:
        CohortError: Too few patients, classes, groups or sites, or a class that a fold can't train on.
        LeakError: A fixed test set cuts through a group or site.
    """
    maker = _Maker(strata, settings, bonds)
    if bonds.test is not None:
        rows, evenness = maker.hold_out(bonds.test), None
    elif settings.by_site == "leave-one-out":
        rows, evenness = maker.leave_one_out(), None
    else:
        rows, evenness = maker.cross_validate()
    splits = Splits.of(rows)
    notes = _check_classes(splits, strata) if strata.classes else []
    return Planned(maker.nested(splits), evenness, (*notes, *_uneven(evenness)))


def adopt_folds(given: Iterable[Row], strata: Strata, settings: SplitSettings, notes: Iterable[str] = ()) -> Planned:
    """Folds made elsewhere, completed: no patient without a label, and a validation set in every fold.

    A fold that lists training and validation patients only (MCAT's layout) has its validation patients tested, which is
    what is reported on them there. Where that, or an empty column, leaves none to validate on, `val_fraction` of the
    training patients are drawn.

    Raises:
        CohortError: A role has no patient left in a fold, or a fold lacks a class to train on.
        LeakError: A patient has two roles in one fold.
    """
    labelled, maker, notes = set(strata.patients), _Maker(strata, settings, Bonds()), list(notes)
    rows = sorted({row for row in given if row[1] in labelled})
    kept: list[Row] = []
    for fold in sorted({row[0] for row in rows}):
        members = {role: {p for at, p, of in rows if at == fold and of == role} for role in ROLES}
        if not members["test"]:
            members["test"], members["val"] = members["val"], set()
            notes.append(f"fold {fold} has no test patients: those it validates on are tested")
        if not members["val"] and len(members["train"]) > 1:
            members["val"] = maker.validating(members["train"], fold)
            members["train"] -= members["val"]
            notes.append(f"fold {fold}: {len(members['val'])} of its training patients are drawn to validate on")
        if lacking := [role for role in ROLES if not members[role]]:
            raise CohortError(
                f"fold {fold} has no patient with a label left in {lacking[0]}",
                where=settings.folds_from,
                hint="; ".join(notes) or "all of that role lack a label",
            )
        kept += [(fold, patient, role) for role in ROLES for patient in members[role]]
    if not kept:
        raise CohortError("none of the patients in these folds has a label", where=f"target `{settings.target}`")
    splits = Splits.of(kept)
    notes += _check_classes(splits, strata) if strata.classes else []
    return Planned(maker.nested(splits), None, tuple(notes))


@dataclass(frozen=True, eq=False)
class _Maker:
    strata: Strata
    settings: SplitSettings
    bonds: Bonds

    def cross_validate(self) -> tuple[list[Row], Assigned | None]:
        """Every patient is tested once."""
        units = self._units(np.ones(len(self.strata.patients), bool))
        if units.single:
            _refuse_small(self.strata, self.settings)
        else:
            units.refuse_large(self.settings.folds)
        even = np.full(self.settings.folds, 1 / self.settings.folds)
        tested, evenness = self._parts(self.strata, units, even, _TEST)
        return self._rows(tested), evenness

    def leave_one_out(self) -> list[Row]:
        """Each site is tested once; what is left to train and validate on may share sites."""
        sites = self.bonds.units(self.strata.patients, sites=True)
        if sites.count < 2:
            raise CohortError("there is one site only, so none can be left out", where="column `site`")
        return self._rows(sites.of)

    def hold_out(self, test: frozenset[str]) -> list[Row]:
        """One test set for all folds."""
        patients, folds = self.strata.patients, self.settings.folds
        tested = self._are(test)
        if tested.all() or not tested.any():
            raise CohortError(f"{int(tested.sum())} of {len(tested)} labelled patients are in the fixed test set")
        self._units(np.ones(len(tested), bool)).refuse_cut(tested)
        if folds == 1:
            return self._rows(np.where(tested, 0, -1).astype(np.int64))
        others = self.strata.take(~tested)
        units = self._units(~tested)
        if not units.single:
            units.refuse_large(folds)
        elif self.strata.classes:
            _refuse_small(others, self.settings)
        validating, _ = self._parts(others, units, np.full(folds, 1 / folds), _TEST)
        roles = {patient: int(part) for patient, part in zip(others.patients, validating, strict=True)}
        return [
            (fold, patient, "test" if patient not in roles else "val" if roles[patient] == fold else "train")
            for fold in range(folds)
            for patient in patients
        ]

    def nested(self, splits: Splits) -> Splits:
        """The same with inner folds, if there are to be any."""
        if not self.settings.inner_folds:
            return splits
        splits = splits.with_inner(self.inner(splits))
        for fold in splits.folds if self.strata.classes else ():
            inner = splits.inner(fold)
            try:
                _check_classes(inner or splits, self.strata)
            except CohortError as error:
                hint = "use other inner folds, or leave out or merge the rare class"
                raise CohortError(f"inside fold {fold}, inner {error.what}", hint=hint) from None
        return splits

    def inner(self, splits: Splits) -> list[tuple[int, str, int]]:
        """The inner fold of everyone a fold doesn't test."""
        count = self.settings.inner_folds
        found: list[tuple[int, str, int]] = []
        for fold in splits.folds:
            rows = self._are({*splits.patients(fold, "train"), *splits.patients(fold, "val")})
            strata, units = self.strata.take(rows), self._units(rows)
            if units.count < count:
                raise CohortError(
                    f"{count} inner folds need {count} patients, groups or sites; fold {fold} has {units.count} that "
                    "it doesn't test",
                    hint="use fewer inner folds",
                )
            parts, _ = self._parts(strata, units, np.full(count, 1 / count), _INNER, fold)
            found += [(fold, patient, int(part)) for patient, part in zip(strata.patients, parts, strict=True)]
        return found

    def _are(self, patients: Collection[str]) -> npt.NDArray[np.bool_]:
        return np.array([patient in patients for patient in self.strata.patients], bool)

    def _units(self, rows: npt.NDArray[np.bool_]) -> Units:
        patients = [name for name, wanted in zip(self.strata.patients, rows, strict=True) if wanted]
        return self.bonds.units(patients, sites=self.settings.by_site == "preserved")

    def _rows(self, tested: Ints) -> list[Row]:
        """All folds, where fold i tests part i, with validation patients drawn from the others."""
        rows: list[Row] = []
        for fold in range(int(tested.max()) + 1):
            named = list(zip(self.strata.patients, tested.tolist(), strict=True))
            val = self.validating({patient for patient, part in named if part != fold}, fold)
            rows += [(fold, p, "test" if part == fold else "val" if p in val else "train") for p, part in named]
        return rows

    def validating(self, patients: Collection[str], fold: int) -> set[str]:
        """The validation patients drawn from those that a fold doesn't test."""
        others = self._are(patients)
        strata, units = self.strata.take(others), self._units(others)
        fraction, seed = self.settings.val_fraction, self.settings.seed
        if units.count < 2:
            raise CohortError(
                f"fold {fold} leaves {units.count} patient, group or site to train and validate on, two are needed",
                hint="use more folds, or let sites or groups be parted",
            )
        if not units.single or not strata.exclusive:
            part, _ = self._parts(strata, units, np.array([fraction, 1 - fraction]), _VAL, fold)
            return {patient for patient, number in zip(strata.patients, part, strict=True) if number == 0}
        pools = [np.flatnonzero(members) for members in strata.members.T]
        pools = [np.random.default_rng([seed, fold, at]).permutation(pool) for at, pool in enumerate(pools)]
        if strata.classes:
            chosen = np.concatenate([pool[: _val_count(len(pool), fraction)] for pool in pools])
        else:  # evenly spaced over the bins: many small ones must not each round up
            pool = np.concatenate(pools)
            count = min(max(1, round(fraction * len(pool))), len(pool) - 1)
            chosen = pool[((np.arange(count) + 0.5) * len(pool) / count).astype(np.int64)]
        return {strata.patients[place] for place in chosen}

    def _parts(
        self, strata: Strata, units: Units, shares: npt.NDArray[np.float64], stream: int, fold: int = 0
    ) -> tuple[Ints, Assigned | None]:
        """The part of every patient: as units, by several labels, or dealt."""
        rng = np.random.default_rng([self.settings.seed, stream, fold, 0])
        if not units.single:
            counts = np.zeros((units.count, len(strata.names)), np.int64)
            np.add.at(counts, units.of, strata.members.astype(np.int64))
            assigned = assign_units(counts, np.bincount(units.of), shares, rng)
            return assigned.fold[units.of], assigned
        if not strata.exclusive:
            return stratify_iteratively(strata.members, shares, rng), None
        return deal(strata.members, len(shares), self.settings.seed), None


def _val_count(patients: int, fraction: float) -> int:
    return min(max(1, round(fraction * patients)), patients - 1)


def _refuse_small(strata: Strata, settings: SplitSettings) -> None:
    where, folds = f"target `{settings.target}`", settings.folds
    if not strata.classes:
        if len(strata.patients) < max(3, folds):
            raise CohortError(f"{folds} folds need {max(3, folds)} patients, there are {len(strata.patients)}", where)
        return
    classes = {name: count for name, count in strata.counts.items() if name != UNLABELLED}
    counts = ", ".join(f"{name}: {count}" for name, count in classes.items())
    if len(classes) < 2:
        raise CohortError(f"two or more classes are needed, patients by class are {counts or 'none'}", where)
    if max(classes.values()) < 3:
        raise CohortError(f"too few patients to train, validate and test: {counts}", where)
    if min(classes.values()) < folds:
        raise CohortError(
            f"{folds} folds need {folds} patients of every class, there are {counts}",
            where,
            hint=f"use at most {max(2, min(classes.values()))} folds, or leave out or merge the rare class",
        )


def _check_classes(splits: Splits, strata: Strata) -> list[str]:
    """What folds lack: a class to train on is refused, one to test is said."""
    classes = [name for name in strata.names if name != UNLABELLED]
    if len(classes) < 2:
        raise CohortError(f"two or more classes are needed, there is {', '.join(classes) or 'none'}")
    row = {patient: number for number, patient in enumerate(strata.patients)}
    notes = []
    for fold in splits.folds:
        for role in ("train", "test"):
            members = strata.members[[row[patient] for patient in splits.patients(fold, role)]]
            absent = [name for name, count in zip(strata.names, members.sum(axis=0), strict=True) if count == 0]
            absent = [name for name in absent if name in classes]
            if absent and role == "train":
                raise CohortError(
                    f"fold {fold} has no patient of class `{absent[0]}` to train on",
                    hint="use fewer folds, let sites or groups be parted, or leave out the rare class",
                )
            if absent:
                notes.append(f"fold {fold} tests no patient of class {', '.join(f'`{name}`' for name in absent)}")
    return notes


def _uneven(evenness: Assigned | None) -> list[str]:
    if evenness is None:
        return []
    if evenness.deviation < 1:
        return ["groups or sites stay whole, and every fold tests its share of each stratum"]
    best = "no folds are more even" if evenness.optimal else "the search ended before that was proved the best"
    many = f"up to {evenness.deviation:.3g} patients of a stratum too many or too few"
    return [f"groups or sites stay whole: a fold tests {many}; {best}"]
