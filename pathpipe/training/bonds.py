"""Bonds: patients that a split must not part, and those whose role is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pathpipe.errors import CohortError, LeakError
from pathpipe.training.splits import listed

Values = Mapping[str, Sequence[str]]  # patient_id -> values of a column over the patient's slides


@dataclass(frozen=True)
class Bonds:
    """What is known of patients beside their labels.

    Attributes:
        group: patient_id -> groups; patients of one group stay together.
        site: patient_id -> sites.
        test: Patients of a fixed test set; None when folds make their own.
    """

    group: Values = field(default_factory=dict)
    site: Values = field(default_factory=dict)
    test: frozenset[str] | None = None

    def units(self, patients: Sequence[str], *, sites: bool) -> Units:
        """What must stay whole: everyone who is linked through groups and, where `sites`, through sites.

        Raises:
            CohortError: Sites are to stay whole, and a patient has none.
        """
        links = [(patient, f"group {value}") for patient in patients for value in self.group.get(patient, ()) if value]
        if sites:
            without = [patient for patient in patients if not any(self.site.get(patient, ()))]
            if without:
                raise CohortError(
                    f"{len(without)} patient{'s have' if len(without) > 1 else ' has'} no site: {listed(without)}",
                    where="column `site`",
                    hint="fill the column in: folds by site need the site of every patient",
                )
            links += [(patient, f"site {value}") for patient in patients for value in self.site[patient] if value]
        row = {patient: number for number, patient in enumerate(patients)}
        values = {value: number for number, value in enumerate(dict.fromkeys(value for _, value in links))}
        size = len(patients) + len(values)
        ends = np.array([(row[patient], len(patients) + values[value]) for patient, value in links]).reshape(-1, 2)
        graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(size, size))
        _, parts = connected_components(graph, directed=False)
        _, unit = np.unique(parts[: len(patients)], return_inverse=True)
        names: dict[int, list[str]] = {}
        for patient, value in links:
            known = names.setdefault(int(unit[row[patient]]), [])
            if value not in known:
                known.append(value)
        return Units(unit.astype(np.int64), {number: " + ".join(sorted(found)) for number, found in names.items()})


@dataclass(frozen=True, eq=False)
class Units:
    """Patients that stay together.

    Attributes:
        of: (P,) number of each patient's unit.
        names: Unit -> its group or site; patients alone have none.
    """

    of: npt.NDArray[np.int64]
    names: Mapping[int, str]

    @property
    def count(self) -> int:
        """Number of units."""
        return int(self.of.max()) + 1 if len(self.of) else 0

    @property
    def single(self) -> bool:
        """Whether nobody is tied to anybody."""
        return self.count == len(self.of)

    def take(self, rows: npt.NDArray[np.bool_]) -> Units:
        """Of some patients."""
        kept, of = np.unique(self.of[rows], return_inverse=True)
        names = {new: self.names[int(old)] for new, old in enumerate(kept) if int(old) in self.names}
        return Units(of.astype(np.int64), names)

    def refuse_cut(self, tested: npt.NDArray[np.bool_]) -> None:
        """Raise when a fixed test set has patients of a unit and lacks others.

        Raises:
            LeakError: With the units that are cut.
        """
        cut = np.intersect1d(self.of[tested], self.of[~tested])
        if len(cut):
            names = [self.names.get(int(number), "") for number in cut]
            raise LeakError(
                f"the fixed test set has some patients of {listed(names)}, and others are left to train on",
                hint="test the whole of a group or site, or leave out `group` or `by_site`",
            )

    def refuse_large(self, folds: int) -> None:
        """Raise when a unit is too large to be one of many in a fold.

        A fold that is twice as large as it should be, or that tests two thirds of all patients, is none.

        Raises:
            CohortError: There are too few units, or one is too large.
        """
        sizes = np.bincount(self.of)
        largest, total = int(np.argmax(sizes)), len(self.of)
        least = max(folds, 4 if folds == 2 else 3)  # two must be left when a fold is tested
        if self.count < least:
            raise CohortError(
                f"{folds} folds whose groups or sites stay whole need {least} of them, there are {self.count}",
                hint=f"use {'fewer' if folds > 3 else 'other'} folds, or `--by-site ignored`",
            )
        if sizes[largest] > min(2 / folds, 2 / 3) * total:
            fitting = min(2 * total // int(sizes[largest]), folds - 1)
            fewer = f"use at most {fitting} folds, or " if fitting >= 2 and sizes[largest] <= 2 / 3 * total else ""
            raise CohortError(
                f"{self.names.get(largest, 'one unit')} has {sizes[largest]} of {total} patients, too many for one of "
                f"{folds} folds",
                hint=f"{fewer}`--by-site leave-one-out` or `ignored`",
            )
