"""Covariates: what a cohort knows of a patient beside the slides, as numbers a model can take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from pathpipe.errors import CohortError
from pathpipe.settings import Settings


class Covariate(Settings):
    """How one column of a cohort becomes numbers.

    A number becomes two: standard deviations above the mean of the training patients, 0 where unknown, and 1 where
    unknown. A category becomes one number for each value the cohort has, 1 for the patient's own; all are 0 where it is
    unknown, or a value the cohort doesn't have.
    """

    column: str
    kind: Literal["number", "category"]
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers it becomes."""
        return 2 if self.kind == "number" else len(self.categories)

    @classmethod
    def fit(cls, column: str, cohort: Mapping[str, str], train: Sequence[str]) -> Covariate:
        """Learn how a column is written from the cohort, and mean and spread from the training patients alone.

        Args:
            cohort: patient_id -> text, "" where unknown; it is a column of numbers if all others are numbers.
            train: patient_ids.
        """
        texts = {patient: text for patient, text in cohort.items() if text}
        numbers = {patient: _number(text) for patient, text in texts.items()}
        if not all(math.isfinite(value) for value in numbers.values()):
            return cls(column=column, kind="category", categories=tuple(sorted(set(texts.values()))))
        known = np.array([numbers[patient] for patient in train if patient in numbers])
        mean = float(known.mean()) if len(known) else 0.0
        std = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        return cls(column=column, kind="number", mean=mean, std=std or 1.0)

    def encode(self, text: str, patient: str) -> list[float]:
        """The numbers of one patient.

        Raises:
            CohortError: A number is needed and the text is none.
        """
        if self.kind == "category":
            return [float(text == name) for name in self.categories]
        if not text:
            return [0.0, 1.0]
        value = _number(text)
        if not math.isfinite(value):
            raise CohortError(
                f"`{text}` of patient {patient} is no number, as it was in training", where=f"column `{self.column}`"
            )
        return [(value - self.mean) / self.std, 0.0]


def encode_covariates(
    covariates: Sequence[Covariate], values: Mapping[str, Mapping[str, str]], patient: str
) -> npt.NDArray[np.float32]:
    """(Q,) numbers of one patient.

    Args:
        values: Column -> patient_id -> text; a patient who isn't there is unknown.
    """
    numbers = [number for one in covariates for number in one.encode(values[one.column].get(patient, ""), patient)]
    return np.array(numbers, np.float32)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
