"""Strata: what of each kind of target is kept balanced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pathpipe.errors import CohortError
from pathpipe.settings.target import parse_target
from pathpipe.training.strata import UNLABELLED, Strata, strata_of


def _strata(target: str, values: Mapping[str, Sequence[str]], folds: int = 2) -> Strata:
    return strata_of(parse_target(target)[0], values, folds)


def _of(strata: Strata) -> dict[str, str]:
    assert strata.exclusive
    return {p: strata.names[int(row.argmax())] for p, row in zip(strata.patients, strata.members, strict=True)}


def test_grades_are_their_own_strata_and_the_unlabelled_are_one() -> None:
    strata = _strata("grade:ordinal", {"b": ("2",), "a": ("1",), "c": ("",), "d": ("1",)})
    assert _of(strata) == {"a": "1", "b": "2", "c": UNLABELLED, "d": "1"}
    assert strata.counts == {"1": 2, "2": 1, UNLABELLED: 1}
    assert strata.classes


def test_a_value_is_cut_at_quantiles_with_room_for_every_fold() -> None:
    values = {f"p{number:02}": (str(number * number),) for number in range(40)}
    bins = _strata("age:regression", values, folds=5).counts
    assert bins == {f"{at:02} of 8": 5 for at in range(1, 9)}
    assert len(_strata("age:regression", values, folds=2).counts) == 10
    tied = {f"p{number:02}": (("0", "1")[number >= 30],) for number in range(40)}
    assert _strata("age:regression", tied, folds=2).counts == {"01 of 2": 30, "02 of 2": 10}


def test_survival_is_cut_by_event_and_by_time_within() -> None:
    values = {f"p{number}": (str(number), str(int(number % 2 == 0))) for number in range(8)}
    found = _of(_strata("t/e:survival", values))
    assert found == {
        "p0": "event, time 01 of 2",
        "p2": "event, time 01 of 2",
        "p4": "event, time 02 of 2",
        "p6": "event, time 02 of 2",
        "p1": "censored, time 01 of 2",
        "p3": "censored, time 01 of 2",
        "p5": "censored, time 02 of 2",
        "p7": "censored, time 02 of 2",
    }
    turned = _of(_strata("t/!e:cox", values))
    assert turned["p0"] == "censored, time 01 of 2" and turned["p7"] == "event, time 02 of 2"


def test_labels_are_strata_that_overlap() -> None:
    strata = _strata("er/pr:multilabel", {"a": ("1", "0"), "b": ("yes", "1.0"), "c": ("", "0")})
    assert not strata.exclusive
    assert strata.names == ("er", "pr")
    assert strata.members.tolist() == [[True, False], [True, True], [False, False]]


@pytest.mark.parametrize(
    ("target", "texts", "message"),
    [
        ("age:regression", ("old",), "column `age`: `old` of patient p is no number"),
        ("age:regression", ("nan",), "`nan` of patient p is no number"),
        ("t/e:cox", ("3", "dead"), "column `e`: `dead` of patient p says neither yes nor no .hint: use 1 and 0"),
        ("er/pr:multilabel", ("1", "2"), "column `pr`: `2` of patient p says neither"),
    ],
)
def test_refuses_what_is_no_value(target: str, texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(CohortError, match=message):
        _strata(target, {"p": texts})
