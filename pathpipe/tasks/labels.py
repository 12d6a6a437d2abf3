"""Labels: the texts of a cohort's columns as numbers, with the patient named where a text can't be one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from pathpipe.errors import CohortError
from pathpipe.settings.target import TargetSpec

_TRUE, _FALSE = ("1", "true", "yes", "positive"), ("0", "false", "no", "negative")
_MANY = 10  # classes up to which numbers may be what classes are called
_FEW = 5  # patients a class, below which many numbers are no classes
Label = Sequence[str]


def number(text: str, patient: str, column: str) -> float:
    """A finite number.

    Raises:
        CohortError: It is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CohortError(f"`{text}`{_of(patient)} is no number", where=f"column `{column}`")
    return value


def holds(text: str, patient: str, column: str) -> bool:
    """Whether a text says yes: 1, 1.0, true, yes or positive.

    Raises:
        CohortError: It says neither yes nor no.
    """
    plain = text.strip().lower().removesuffix(".0")
    if plain not in (*_TRUE, *_FALSE):
        raise CohortError(
            f"`{text}`{_of(patient)} says neither yes nor no", where=f"column `{column}`", hint="use 1 and 0"
        )
    return plain in _TRUE


def duration(text: str, patient: str, column: str) -> float:
    """A time from the start of observation, in any unit. 0 is one: cohorts have patients who left on the first day.

    Raises:
        CohortError: It is no number, or below 0.
    """
    value = number(text, patient, column)
    if value < 0:
        raise CohortError(
            f"a time can't be below 0: `{text}`{_of(patient)}",
            where=f"column `{column}`",
            hint="leave the cell empty where the time is unknown",
        )
    return value


def is_known(spec: TargetSpec, label: Label) -> bool:
    """Whether there is a value to learn from: one label of several is enough, a time needs its event."""
    return any(label) if spec.kind == "multilabel" else all(label)


def known_labels(specs: Sequence[TargetSpec], columns: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """patient_id -> texts in the columns of all targets, in order; patients without a value of any are left out.

    A target that is half known (a time without its event) counts as unknown.

    Args:
        columns: Column -> patient_id -> text.
    """
    patients = sorted({patient for column in columns.values() for patient in column})
    found = {}
    for patient in patients:
        label: list[str] = []
        for spec in specs:
            texts = [columns[name].get(patient, "") for name in spec.columns]
            label += texts if is_known(spec, texts) else [""] * len(texts)
        if any(label):
            found[patient] = tuple(label)
    return found


def refuse_measured(texts: Iterable[str], column: str) -> None:
    """Make sure that classes aren't a number that was measured.

    Raises:
        CohortError: There are more than 10 different values, all of them numbers, and fewer than 5 patients of each.
    """
    known = [text for text in texts if text]
    found = set(known)
    if len(found) > _MANY and len(known) < _FEW * len(found) and as_numbers(found) is not None:
        raise CohortError(
            f"{len(found)} different numbers of {len(known)} patients are no classes",
            where=f"column `{column}`",
            hint=f"to predict the number itself ask for `{column}:regression`",
        )


def as_numbers(texts: Iterable[str]) -> dict[str, float] | None:
    """Text -> number, where every text is a finite number; None otherwise."""
    try:
        numbers = {text: float(text) for text in texts}
    except ValueError:
        return None
    return numbers if all(math.isfinite(value) for value in numbers.values()) else None


def _of(patient: str) -> str:
    return f" of patient {patient}" if patient else ""
