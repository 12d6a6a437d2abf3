"""A fold joins a split with bags and labels, and says whom it leaves out."""

from __future__ import annotations

import pandas as pd
import pytest

from pathpipe.errors import CohortError
from pathpipe.testing.bags import random_bag
from pathpipe.training.fold import FoldData
from pathpipe.training.splits import Splits

ROLES = {"train": "abcd", "val": "ef", "test": "gh"}
SPLITS = Splits(
    pd.DataFrame(
        [(1, patient, role) for role, patients in ROLES.items() for patient in patients],
        columns=["fold", "patient_id", "role"],
    )
)
BAGS = {patient: random_bag(2, 3, name=patient) for patient in "abcdefghz"}
LABELS = dict(zip("abcdefgh", "01010101", strict=True))


def test_joins() -> None:
    data = FoldData.of(SPLITS, 1, BAGS, LABELS)
    assert data.roles == {role: tuple(patients) for role, patients in ROLES.items()}
    assert data.labels == LABELS
    assert list(data.bags) == list("abcdefgh") and data.bags["c"] is BAGS["c"]
    assert (data.fold, data.left_out) == (1, {})


def test_names_whom_it_leaves_out() -> None:
    bags = {patient: bag for patient, bag in BAGS.items() if patient != "e"}
    data = FoldData.of(SPLITS, 1, bags, {**LABELS, "b": "", "z": "1"})
    assert data.left_out == {"b": "no label", "e": "no tiles"}
    assert data.roles == {"train": ("a", "c", "d"), "val": ("f",), "test": ("g", "h")}
    assert set(data.bags) == set("acdfgh")


def test_refuses_an_empty_role() -> None:
    with pytest.raises(CohortError, match="fold 1: no patient with tiles and a label is left in val"):
        FoldData.of(SPLITS, 1, {p: bag for p, bag in BAGS.items() if p not in "ef"}, LABELS)


def test_refuses_a_class_without_training_patients() -> None:
    with pytest.raises(CohortError, match="fold 1: no patient of class `2` is left to train on"):
        FoldData.of(SPLITS, 1, BAGS, {**LABELS, "g": "2"})
