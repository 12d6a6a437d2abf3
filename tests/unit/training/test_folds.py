"""Folds of every kind: fixed test sets, groups, sites, nesting, folds made elsewhere."""

from __future__ import annotations

from collections import Counter

import pytest

from pathpipe.errors import CohortError, LeakError
from pathpipe.settings import SplitSettings
from pathpipe.settings.target import parse_target
from pathpipe.training.bonds import Bonds
from pathpipe.training.folds import Planned, adopt_folds, plan_folds
from pathpipe.training.splits import ROLES, Splits
from pathpipe.training.strata import Strata, strata_of

LABELS = {f"p{number:02}": "ab"[number % 2] for number in range(40)}
SITES = {patient: (f"s{number % 8}",) for number, patient in enumerate(LABELS)}


def _plan(labels: dict[str, str] = LABELS, bonds: Bonds | None = None, **given: object) -> Planned:
    return plan_folds(Strata.of_labels(labels), SplitSettings.model_validate(given), bonds or Bonds())


def _roles(splits: Splits, fold: int) -> dict[str, set[str]]:
    return {role: set(splits.patients(fold, role)) for role in ROLES}


def test_one_fold_with_a_fixed_test_set_is_a_hold_out() -> None:
    test = frozenset(list(LABELS)[:10])
    splits = _plan(bonds=Bonds(test=test), folds=1, test_column="set").splits
    roles = _roles(splits, 0)
    assert splits.folds == (0,) and not splits.tested_again
    assert roles["test"] == test
    assert Counter(LABELS[p] for p in roles["val"]) == {"a": 3, "b": 3}
    assert len(roles["train"]) == 24


def test_folds_around_a_fixed_test_set_all_test_it_and_validate_on_each_other_patient_once() -> None:
    test = frozenset(list(LABELS)[:10])
    splits = _plan(bonds=Bonds(test=test), folds=3, test_column="set").splits
    assert splits.tested_again
    assert all(_roles(splits, fold)["test"] == test for fold in splits.folds)
    validated = [patient for fold in splits.folds for patient in splits.patients(fold, "val")]
    assert sorted(validated) == sorted(set(LABELS) - test)


@pytest.mark.parametrize("everyone", [True, False])
def test_a_fixed_test_set_of_all_or_of_none_is_refused(everyone: bool) -> None:
    test = frozenset(LABELS) if everyone else frozenset({"somebody else"})
    with pytest.raises(CohortError, match=f"{40 if everyone else 0} of 40 labelled patients are in the fixed test set"):
        _plan(bonds=Bonds(test=test), folds=1, test_column="set")


def test_a_fixed_test_set_must_not_cut_a_group() -> None:
    bonds = Bonds(group={"p00": ("family",), "p39": ("family",)}, test=frozenset({"p00", "p01"}))
    with pytest.raises(LeakError, match="has some patients of group family, and others are left to train on"):
        _plan(bonds=bonds, folds=1, test_column="set", group="f")


def test_groups_stay_together_and_everyone_is_tested_once() -> None:
    groups = {patient: (f"f{number // 3}",) for number, patient in enumerate(LABELS)}
    planned = _plan(bonds=Bonds(group=groups), folds=4, group="family", val_fraction=0.25)
    splits = planned.splits
    assert sorted(p for fold in splits.folds for p in splits.patients(fold, "test")) == sorted(LABELS)
    for fold in splits.folds:
        where = {patient: role for role, members in _roles(splits, fold).items() for patient in members}
        for group in set(groups.values()):
            assert len({where[patient] for patient, of in groups.items() if of == group}) == 1
    assert planned.evenness is not None and planned.evenness.deviation == pytest.approx(2.0)
    assert planned.notes == (
        "groups or sites stay whole: a fold tests up to 2 patients of a stratum too many or too few; no folds are more "
        "even",
    )


def test_sites_are_preserved_and_classes_balanced() -> None:
    planned = _plan(bonds=Bonds(site=SITES), folds=4, by_site="preserved", val_fraction=0.3)
    for fold in planned.splits.folds:
        roles = _roles(planned.splits, fold)
        sites = {role: {SITES[patient] for patient in members} for role, members in roles.items()}
        assert not sites["train"] & sites["test"] and not sites["train"] & sites["val"]
        assert not sites["val"] & sites["test"]
        assert Counter(LABELS[p] for p in roles["test"]) == {"a": 5, "b": 5}
    assert planned.notes == ("groups or sites stay whole, and every fold tests its share of each stratum",)


def test_a_patient_of_two_sites_and_a_family_tie_sites_together() -> None:
    sites = {**SITES, "p00": ("s0", "s1")}
    bonds = Bonds(site=sites, group={"p02": ("family",), "p03": ("family",)})
    splits = _plan(bonds=bonds, folds=3, by_site="preserved", group="family").splits
    for fold in splits.folds:
        roles = _roles(splits, fold)
        tied = {patient for patient in LABELS if SITES[patient][0] in ("s0", "s1")}
        assert sum(bool(tied & members) for members in roles.values()) == 1
        assert sum(bool({"p02", "p03", "p10", "p11"} & members) for members in roles.values()) == 1


def test_each_site_is_left_out_once() -> None:
    splits = _plan(bonds=Bonds(site=SITES), by_site="leave-one-out").splits
    assert len(splits.folds) == 8
    for fold in splits.folds:
        tested = set(splits.patients(fold, "test"))
        assert tested == {patient for patient in LABELS if SITES[patient] == (f"s{fold}",)}
        assert len(splits.patients(fold, "val")) == 7  # a fifth of 35, by class


@pytest.mark.parametrize(
    ("sites", "given", "message"),
    [
        ({"p03": ()}, {"folds": 2}, "1 patient has no site: p03"),
        (
            {p: ("one",) for p in list(LABELS)[:30]},
            {"folds": 2},
            "site one has 30 of 40 patients, too many for one of 2",
        ),
        (
            {p: ("one",) for p in list(LABELS)[:19]},
            {"folds": 5},
            "site one has 19 of 40 patients, too many for one of 5 folds .hint: use at most 4 folds, or `--by-site",
        ),
        ({p: (f"s{n % 3}",) for n, p in enumerate(LABELS)}, {"folds": 4}, "4 folds .* need 4 of them, there are 3"),
    ],
)
def test_sites_that_make_no_folds(sites: dict, given: dict, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        _plan(bonds=Bonds(site={**SITES, **sites}), by_site="preserved", **given)


def test_one_site_can_not_be_left_out() -> None:
    with pytest.raises(CohortError, match="there is one site only"):
        _plan(bonds=Bonds(site=dict.fromkeys(LABELS, ("s",))), by_site="leave-one-out")


def test_a_class_of_one_site_can_not_be_trained_on_when_that_is_tested() -> None:
    labels = {patient: "b" if SITES[patient] == ("s0",) else "a" for patient in LABELS}
    with pytest.raises(CohortError, match="fold 0 has no patient of class `b` to train on"):
        _plan(labels, bonds=Bonds(site=SITES), by_site="leave-one-out")
    labels |= {"p01": "b"}
    notes = _plan(labels, bonds=Bonds(site=SITES), by_site="leave-one-out").notes
    assert notes[0] == "fold 0 tests no patient of class `a`"
    assert notes[1:] == tuple(f"fold {fold} tests no patient of class `b`" for fold in range(2, 8))


def test_nested_folds_leave_the_tested_out_and_are_stratified() -> None:
    splits = _plan(folds=4, inner_folds=3).splits
    for fold in splits.folds:
        inner = splits.inner(fold)
        assert inner is not None and inner.folds == (0, 1, 2)
        scored = [patient for number in inner.folds for patient in inner.patients(number, "test")]
        assert sorted(scored) == sorted(set(LABELS) - set(splits.patients(fold, "test")))
        for number in inner.folds:
            counts = Counter(LABELS[patient] for patient in inner.patients(number, "test"))
            assert counts == {"a": 5, "b": 5}
            assert inner.patients(number, "val") == inner.patients((number + 1) % 3, "test")
    assert _plan(folds=4).splits.inner(0) is None


def test_a_class_that_an_inner_fold_cannot_train_on_is_refused() -> None:
    rare = {patient: "a" if number < 3 else "b" for number, patient in enumerate(LABELS)}
    _plan(rare, folds=3)
    with pytest.raises(CohortError, match="inside fold 0, inner fold 0 has no patient of class `a` to train on"):
        _plan(rare, folds=3, inner_folds=3)  # two are left: one scores, the other is stopped by
    with pytest.raises(CohortError, match=r"inside fold 0, inner fold . has no patient of class `a` to train on"):
        adopt_folds(
            [
                (0, patient, role)
                for patient, role in zip(rare, ["train", "train", "test", *["train"] * 20], strict=False)
            ],
            Strata.of_labels(rare),
            SplitSettings(folds_from="splits.csv", inner_folds=3),
        )


def test_a_class_may_be_called_unlabelled() -> None:
    named = {patient: {"a": "unlabelled", "b": "x"}[label] for patient, label in LABELS.items()}
    values = {patient: (label,) for patient, label in named.items()}
    planned = plan_folds(strata_of(parse_target("c")[0], values, 4), SplitSettings(target="c", folds=4), Bonds())
    for fold in range(4):
        tested = Counter(named[patient] for patient in planned.splits.patients(fold, "test"))
        assert tested == {"unlabelled": 5, "x": 5}


def test_nested_folds_keep_sites_whole() -> None:
    splits = _plan(bonds=Bonds(site=SITES), folds=4, inner_folds=3, by_site="preserved").splits
    inner = splits.inner(2)
    assert inner is not None
    for number in inner.folds:
        sites = [{SITES[p] for p in inner.patients(number, role)} for role in ROLES]
        assert sum(map(len, sites)) == 6


def test_several_labels_are_stratified() -> None:
    values = {f"p{n:03}": (str(int(n % 2 == 0)), str(int(n % 10 == 0))) for n in range(200)}
    strata = strata_of(parse_target("er/pr:multilabel")[0], values, 5)
    splits = plan_folds(strata, SplitSettings(folds=5), Bonds()).splits
    for fold in splits.folds:
        tested = splits.patients(fold, "test")
        assert sum(values[p][1] == "1" for p in tested) == 4
        assert abs(sum(values[p][0] == "1" for p in tested) - 20) <= 1
        assert abs(len(splits.patients(fold, "val")) - 32) <= 1


def test_values_are_spread_over_folds_and_roles() -> None:
    values = {f"p{n:03}": (str(n),) for n in range(100)}
    strata = strata_of(parse_target("age:regression")[0], values, 5)
    splits = plan_folds(strata, SplitSettings(folds=5, val_fraction=0.05), Bonds()).splits
    for fold in splits.folds:
        tested = [int(p[1:]) for p in splits.patients(fold, "test")]
        assert [sum(n // 10 == decade for n in tested) for decade in range(10)] == [2] * 10
        assert len(splits.patients(fold, "val")) == 4, "ten bins don't each round up to a patient"


def test_adopted_folds_lose_the_unlabelled_and_gain_a_validation_set() -> None:
    strata = Strata.of_labels(LABELS)
    held = [f"p{n:02}" for n in range(8)]
    rows = [(0, p, "val" if p in held else "train") for p in [*LABELS, "stranger"]]
    planned = adopt_folds(rows, strata, SplitSettings(val_fraction=0.25))
    roles = _roles(planned.splits, 0)
    assert roles["test"] == set(held)
    assert Counter(LABELS[p] for p in roles["val"]) == {"a": 4, "b": 4}
    assert planned.notes == (
        "fold 0 has no test patients: those it validates on are tested",
        "fold 0: 8 of its training patients are drawn to validate on",
    )


def test_adopted_folds_that_leak() -> None:
    rows = [(0, p, "train") for p in LABELS] + [(0, "p01", "test"), (0, "p02", "val")]
    with pytest.raises(LeakError, match="1 patient is in both train and val of fold 0: p02"):
        adopt_folds(rows, Strata.of_labels(LABELS), SplitSettings())
    with pytest.raises(CohortError, match="none of the patients in these folds has a label"):
        adopt_folds([(0, "x", "train")], Strata.of_labels(LABELS), SplitSettings())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folds": 1}, "folds 1 needs a fixed test set"),
        ({"inner_folds": 2}, "inner_folds must be 0, or at least 3"),
        ({"test_column": "a", "test_list": "b"}, "say the same thing"),
        ({"test_column": "a", "by_site": "leave-one-out"}, "makes its own test sets"),
        ({"folds_from": "a", "group": "b"}, "leave out group"),
        ({"folds_from": "a", "by_site": "preserved"}, "leave out by_site"),
    ],
)
def test_settings_that_contradict_each_other(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitSettings.model_validate(given)
