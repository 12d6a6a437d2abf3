"""Fold: a split joined with the patients' bags and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pathpipe.errors import CohortError
from pathpipe.mil.bag import Bag
from pathpipe.tasks.labels import Label
from pathpipe.training.splits import ROLES, Splits


@dataclass(frozen=True, eq=False)
class FoldData:
    """One fold: bags and labels by role.

    Attributes:
        fold: Number of the fold.
        bags: patient_id -> bag, for all roles.
        labels: patient_id -> texts in the columns of the target.
        roles: Role -> patients.
        left_out: patient_id -> why a patient of the split takes no part.
    """

    fold: int
    bags: Mapping[str, Bag]
    labels: Mapping[str, Label]
    roles: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]

    @classmethod
    def of(
        cls,
        splits: Splits,
        fold: int,
        bags: Mapping[str, Bag],
        labels: Mapping[str, Label],
        classes: Sequence[int] = (0,),
    ) -> FoldData:
        """Join a split with bags and labels; patients without a bag or a label are left out, and named.

        Args:
            classes: Which of a label's texts are classes.

        Raises:
            CohortError: A role has no patient left, or a class has none left to train on.
        """
        left_out: dict[str, str] = {}
        roles: dict[str, tuple[str, ...]] = {}
        for role in ROLES:
            members = splits.patients(fold, role)
            left_out |= {p: "no label" for p in members if not any(labels.get(p, ()))}
            left_out |= {p: "no tiles" for p in members if p not in bags}
            roles[role] = tuple(p for p in members if p not in left_out)
            if not roles[role]:
                raise CohortError(f"no patient with tiles and a label is left in {role}", where=f"fold {fold}")
        used = {patient: labels[patient] for members in roles.values() for patient in members}
        for at in classes:
            unseen = sorted(
                {one[at] for one in used.values()} - {used[patient][at] for patient in roles["train"]} - {""}
            )
            if unseen:
                raise CohortError(
                    f"no patient of class `{unseen[0]}` is left to train on",
                    where=f"fold {fold}",
                    hint="use fewer folds, or leave out the rare class",
                )
        return cls(fold, {patient: bags[patient] for patient in used}, used, roles, left_out)
