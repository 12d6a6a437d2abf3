"""Records as JSON: what goes in comes out, undefined numbers are null, and damage is an error."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import pytest

from pathpipe.evaluation.records import from_json, to_json


@dataclass(frozen=True)
class Inner:
    value: float
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    counts: dict[int, dict[str, int]]
    lines: tuple[Inner, ...]
    numbers: list[float]
    inner: Inner | None = None
    flag: bool = True
    extra: dict[str, Inner] = field(default_factory=dict)


RECORD = Outer({3: {"a": 1}}, (Inner(0.1), Inner(2.0, "x")), [1.0, 0.25], Inner(1e-300), False, {"k": Inner(3.0)})


def test_round_trip() -> None:
    assert from_json(Outer, json.loads(json.dumps(to_json(RECORD), allow_nan=False))) == RECORD


def test_undefined_is_null_and_nan_again() -> None:
    text = json.dumps(to_json(Outer({}, (), [math.nan, math.inf, 1.0], Inner(math.nan))), allow_nan=False)
    assert json.loads(text)["numbers"] == [None, None, 1.0]
    found = from_json(Outer, json.loads(text))
    assert math.isnan(found.numbers[0]) and math.isnan(found.numbers[1]) and found.inner is not None
    assert math.isnan(found.inner.value) and found.inner.name is None


def test_what_has_a_default_may_be_missing() -> None:
    assert from_json(Outer, {"counts": {}, "lines": [], "numbers": [1]}) == Outer({}, (), [1.0])
    with pytest.raises(KeyError, match="lines"):
        from_json(Outer, {"counts": {}, "numbers": []})


@pytest.mark.parametrize(
    "change", [{"numbers": ["x"]}, {"flag": 3}, {"counts": {"a": {}}}, {"lines": 5}, {"inner": [1]}, {"counts": [1]}]
)
def test_damage(change: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_json(Outer, {**to_json(RECORD), **change})
