"""The table that people see of a split."""

from __future__ import annotations

import pytest

from pathpipe.settings.target import parse_target
from pathpipe.training.split_summary import summarise
from pathpipe.training.splits import Splits

ROLES = {"a": "train", "b": "train", "c": "val", "d": "test"}
SPLITS = Splits.of((0, patient, role) for patient, role in ROLES.items())


@pytest.mark.parametrize(
    ("target", "values", "columns", "train"),
    [
        ("y", {"a": ("x",), "b": ("z",), "c": ("x",), "d": ("z",)}, ("x", "z"), ("1 (50%)", "1 (50%)")),
        (
            "age:regression",
            {p: (str(n),) for n, p in enumerate("abcd")},
            ("median age", "quartiles"),
            ("0.5", "0.25 to 0.75"),
        ),
        (
            "t/!e:cox",
            {"a": ("3", "0"), "b": ("6", "1"), "c": ("", "1"), "d": ("2", "0")},
            ("events", "median t"),
            ("1 (50%)", "4.5"),
        ),
        (
            "er/pr:multilabel",
            {"a": ("1", ""), "b": ("0", "1"), "c": ("1", "1"), "d": ("0", "0")},
            ("er", "pr"),
            ("1 (50%)", "1 (100%)"),
        ),
    ],
)
def test_shares_by_kind(target: str, values: dict, columns: tuple[str, ...], train: tuple[str, ...]) -> None:
    sites = {"a": ("s1",), "b": ("s1", "s2"), "c": ("",), "d": ("s3",)}
    found = summarise(SPLITS, parse_target(target)[0], values, {"a": 2, "b": 1, "c": 1, "d": 1}, sites)
    assert found.columns == ("fold", "role", "patients", "slides", "sites", *columns)
    assert found.rows[0] == (0, "train", 2, 3, 2, *train)
    assert found.rows[1][:5] == (0, "val", 1, 1, 0)
    bare = summarise(SPLITS, parse_target(target)[0], values, {}, {})
    assert bare.columns == ("fold", "role", "patients", "slides", *columns)
    if target == "t/!e:cox":
        assert found.rows[1][5:] == ("-", "-")
