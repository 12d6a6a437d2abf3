"""Whatever is tied: nobody in two roles, everybody tested once, nothing cut, and the order of the table is nothing."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.settings import SplitSettings
from pathpipe.settings.target import parse_target
from pathpipe.training.bonds import Bonds
from pathpipe.training.folds import plan_folds
from pathpipe.training.splits import ROLES, Splits
from pathpipe.training.strata import strata_of

KINDS = ("y", "y:ordinal", "y:regression", "y/e:survival", "y/e:multilabel")


@st.composite
def _tied(draw: st.DrawFn) -> tuple[dict[str, tuple[str, ...]], Bonds, SplitSettings, str]:
    """Sites of at most a quarter of the patients, some families, any kind of target."""
    folds = draw(st.integers(2, 3))
    sites = draw(st.integers(2 * folds + 2, 12))
    each = draw(st.integers(2, 5))
    kind = draw(st.sampled_from(KINDS))
    patients = [f"p{number:02}" for number in range(sites * each)]
    flips = draw(st.lists(st.booleans(), min_size=len(patients), max_size=len(patients)))
    # within a site the label alternates, so that every class is in every fold
    values = {
        p: (str(n % 2), str(int(flip)))[: 2 if "/" in kind else 1]
        for n, (p, flip) in enumerate(zip(patients, flips, strict=True))
    }
    site = {p: (f"s{n // each}",) for n, p in enumerate(patients)}
    family = {p: ("f",) for p in draw(st.lists(st.sampled_from(patients[: 2 * each]), max_size=3))}
    by_site = draw(st.sampled_from(["ignored", "preserved"]))
    chosen = SplitSettings.model_validate(
        {"folds": folds, "by_site": by_site, "seed": draw(st.integers(0, 3)), "target": kind, "val_fraction": 0.3}
    )
    return values, Bonds(group=family, site=site), chosen, kind


def _where(splits: Splits, fold: int) -> dict[str, str]:
    return {patient: role for role in ROLES for patient in splits.patients(fold, role)}


@settings(max_examples=25, deadline=None)
@given(_tied(), st.integers(0, 9))
def test_folds_of_tied_patients(cohort: tuple, order: int) -> None:
    values, bonds, chosen, kind = cohort
    spec = parse_target(kind)[0]
    planned = plan_folds(strata_of(spec, values, chosen.folds), chosen, bonds)
    splits = planned.splits
    tested = [patient for fold in splits.folds for patient in splits.patients(fold, "test")]
    assert sorted(tested) == sorted(values)
    ties = {"group": bonds.group} | ({"site": bonds.site} if chosen.by_site == "preserved" else {})
    for fold in splits.folds:
        where = _where(splits, fold)
        assert sorted(where) == sorted(values)
        for column in ties.values():
            for value in {one for texts in column.values() for one in texts}:
                assert len({where[patient] for patient, texts in column.items() if value in texts}) == 1
        share = len(splits.patients(fold, "test")) / len(values)
        largest = max(np.unique([texts[0] for texts in bonds.site.values()], return_counts=True)[1])
        assert abs(share - 1 / chosen.folds) <= 2 * largest / len(values), "off by two sites at the most"
    shuffled = list(values.items())
    random.Random(order).shuffle(shuffled)
    again = plan_folds(strata_of(spec, dict(shuffled), chosen.folds), chosen, bonds)
    pd.testing.assert_frame_equal(again.splits.table, splits.table)
