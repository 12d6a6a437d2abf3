"""The cohort: numbers that slides' explanations give, as means over patients with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.evaluation.bootstrap import draw_weights, interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What was measured on one slide: name -> number."""

    patient_id: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One number over a cohort.

    Attributes:
        mean: Over patients, each the mean of its slides.
        low: Lower end of the percentile interval.
        high: Upper end.
        patients: How many have the number.
    """

    name: str
    mean: float
    low: float
    high: float
    patients: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def summarise(slides: Sequence[Measured], draws: int, confidence: float, seed: int) -> list[Row]:
    """Means over patients of all numbers there are, in the order in which they first appear.

    Reference: Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 13 (percentile intervals).
    """
    names = dict.fromkeys(name for slide in slides for name in slide.numbers)
    rows = []
    for name in names:
        by_patient: dict[str, list[float]] = {}
        for slide in slides:
            if name in slide.numbers:
                by_patient.setdefault(slide.patient_id, []).append(slide.numbers[name])
        values = np.array([np.mean(numbers) for numbers in by_patient.values()])
        weights = draw_weights(np.zeros(len(values), np.int64), draws, seed)
        found = interval(partial(_mean, values), weights, confidence)
        rows.append(Row(name, found.value, found.low, found.high, len(values)))
    return rows


def _mean(values: Floats, drawn: Floats) -> Floats:
    """(K,) of (K, P) weights."""
    return np.asarray(drawn @ values / drawn.sum(axis=1))
