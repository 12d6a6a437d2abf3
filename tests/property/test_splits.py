"""Whatever the cohort: everyone is tested once, roles are disjoint, classes are spread evenly."""

from __future__ import annotations

import random

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.settings import SplitSettings
from pathpipe.training.folds import make_splits


@st.composite
def _cohorts(draw: st.DrawFn) -> tuple[dict[str, str], SplitSettings]:
    folds = draw(st.integers(2, 6))
    sizes = draw(st.lists(st.integers(max(3, folds), 25), min_size=2, max_size=4))
    labels = [f"class{number}" for number, size in enumerate(sizes) for _ in range(size)]
    draw(st.randoms(use_true_random=False)).shuffle(labels)
    fraction = draw(st.floats(0.01, 0.99))
    chosen = SplitSettings(folds=folds, val_fraction=fraction, seed=draw(st.integers(0, 5)))
    return {f"p{number}": label for number, label in enumerate(labels)}, chosen


@settings(max_examples=40, deadline=None)
@given(_cohorts(), st.integers(0, 9))
def test_splits(cohort: tuple[dict[str, str], SplitSettings], order: int) -> None:
    labels, chosen = cohort
    splits = make_splits(labels, chosen)
    assert splits.folds == tuple(range(chosen.folds))
    tested = [patient for fold in splits.folds for patient in splits.patients(fold, "test")]
    assert sorted(tested) == sorted(labels)
    for fold in splits.folds:
        roles = {role: splits.patients(fold, role) for role in ("train", "val", "test")}
        assert sorted(p for members in roles.values() for p in members) == sorted(labels)
        assert abs(len(roles["test"]) - len(labels) / chosen.folds) < 1
        for label in set(labels.values()):
            counts = {role: sum(labels[p] == label for p in members) for role, members in roles.items()}
            others = counts["train"] + counts["val"]
            assert abs(counts["test"] - (others + counts["test"]) / chosen.folds) < 1
            assert abs(counts["val"] - chosen.val_fraction * others) <= 1
            assert counts["train"] >= 1
            assert counts["val"] >= min(1, others - 1)

    shuffled = list(labels.items())
    random.Random(order).shuffle(shuffled)
    pd.testing.assert_frame_equal(make_splits(dict(shuffled), chosen).table, splits.table)
