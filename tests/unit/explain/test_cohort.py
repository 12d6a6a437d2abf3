"""The cohort: means over patients, not slides, with intervals of the patient bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from pathpipe.explain.cohort import Measured, summarise


def test_patients_count_once_however_many_slides_they_have() -> None:
    slides = [Measured("A", {"gain": 1.0}), Measured("A", {"gain": 3.0}), Measured("B", {"gain": 5.0})]
    (row,) = summarise(slides, 200, 0.95, 0)
    assert (row.name, row.mean, row.patients) == ("gain", 3.5, 2)
    assert (row.low, row.high) == (2.0, 5.0)  # both patients A, both patients B


def test_numbers_that_some_slides_lack() -> None:
    rows = summarise([Measured("A", {"a": 1.0}), Measured("B", {"a": 2.0, "b": 7.0})], 200, 0.95, 0)
    assert [(row.name, row.mean, row.patients) for row in rows] == [("a", 1.5, 2), ("b", 7.0, 1)]
    assert summarise([], 200, 0.95, 0) == []


def test_the_interval_is_that_of_resampled_patients() -> None:
    values = np.random.default_rng(0).normal(0.3, 0.2, 40)
    (row,) = summarise([Measured(f"P{k}", {"x": value}) for k, value in enumerate(values)], 4000, 0.9, 1)
    rng = np.random.default_rng(9)
    means = [values[rng.integers(0, 40, 40)].mean() for _ in range(4000)]
    assert row.mean == pytest.approx(values.mean())
    assert (row.low, row.high) == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.01)
    assert row == summarise([Measured(f"P{k}", {"x": value}) for k, value in enumerate(values)], 4000, 0.9, 1)[0]
