"""Does a number hold for everyone? Test patients by site, sex, scanner or any other column."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.evaluation import Subgroup
from pathpipe.evaluation.unseen import HEADLINES, Unseen

SMALL = 20  # patients, or
FEW = 5  # of a class, below which an interval visibly covers too little
MISSING = "(missing)"
_FURTHER = ("sensitivity", "specificity")
Gauge = Callable[[Unseen, tuple[str, ...]], dict[str, Interval]]


def subgroups(tested: Unseen, columns: Mapping[str, Mapping[str, str]], gauge: Gauge) -> tuple[Subgroup, ...]:
    """Each value of each column that a test patient has, in the order of columns and values.

    Differences between groups aren't tested: with many groups one stands out by chance.

    Args:
        columns: Column -> patient_id -> value; empty or no value means missing.
        gauge: Patients and names of metrics -> numbers with intervals, of those there are.
    """
    found = []
    for column, values in columns.items():
        texts = np.array([values.get(patient) or MISSING for patient in tested.patients])
        for value in sorted(set(texts.tolist()), key=lambda text: (text == MISSING, text)):
            part = tested.take(texts == value)
            numbers = gauge(part, (*HEADLINES[tested.kind], *_FURTHER))
            found.append(Subgroup(column, value, len(part.patients), part.counts, numbers, _caution(part)))
    return tuple(found)


def _caution(part: Unseen) -> str | None:
    counts = {f"`{name}`": count for name, count in part.counts.items()}
    if part.kind == "survival":  # nothing needs a censored patient
        counts = {"seen to have the event": part.counts["event"]}
    elif part.kind == "regression":
        counts = {}
    absent = [name for name, count in counts.items() if count == 0]
    few = [name for name, count in counts.items() if 0 < count < FEW]
    if absent:
        return f"no patient is {absent[0]}: numbers that need one are undefined"
    if few:
        return f"only {counts[few[0]]} {'is' if counts[few[0]] == 1 else 'are'} {few[0]}: too few to conclude from"
    if len(part.patients) >= SMALL:
        return None
    return f"only {len(part.patients)} patient{'s' if len(part.patients) > 1 else ''}: too few to conclude from"
