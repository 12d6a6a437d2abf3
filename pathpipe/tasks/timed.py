"""Times to an event: what both kinds of survival task read, cut and say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pathpipe.errors import CohortError
from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.labels import Label, duration, holds
from pathpipe.tasks.task import Table

KIND = "survival"  # of the table, whichever model of time made it
Floats = npt.NDArray[np.float64]
_REPORTED = (0.25, 0.5, 0.75)  # quantiles of the event times at which survival is reported


def read_times(labels: Sequence[Label], columns: Sequence[str], censoring: bool) -> Floats:
    """(P, 2) time and event (1 seen, 0 censored), NaN where unknown."""
    return np.array([_read(label, "", columns, censoring) for label in labels]).reshape(len(labels), 2)


def reporting_times(spec: TargetSpec, labels: Mapping[str, Label]) -> tuple[float, ...]:
    """Quartiles of a cohort's event times, to four digits: where P(T > t) is reported, the same in all folds.

    They say where to look, and nothing is learnt at them.

    Raises:
        CohortError: A text is no time or no event, with the patient; or no event was seen.
    """
    rows = [_read(label, patient, spec.columns, spec.censoring) for patient, label in labels.items()]
    seen = np.array([time for time, event in rows if event == 1])
    if not len(seen):
        raise CohortError(
            "no patient had the event",
            where=f"column `{spec.columns[1]}`",
            hint=f"where 1 means censored write `{spec.columns[0]}/!{spec.columns[1]}`",
        )
    return tuple(sorted({float(f"{time:.4g}") for time in np.quantile(seen, _REPORTED)}))


def training_events(labels: Sequence[Label], columns: Sequence[str], censoring: bool) -> tuple[Floats, Floats]:
    """Event times of training patients, and all their times.

    Raises:
        CohortError: None of them had the event.
    """
    read = read_times(labels, columns, censoring)
    read = read[~np.isnan(read[:, 0])]
    seen = read[read[:, 1] == 1, 0]
    if not len(seen):
        raise CohortError("no training patient had the event", where=f"column `{columns[1]}`", hint="use fewer folds")
    return seen, read[:, 0]


def survival_table(
    target: str, times: Sequence[float], risk: Tensor, survival: Tensor, truth: Floats | None = None
) -> Table:
    """Columns time and event, risk and `survival_<t>`.

    Args:
        risk: (P,) higher means an earlier event.
        survival: (P, T) P(T > t).
        truth: (P, 2) of `read_times`.
    """
    columns: dict[str, Any] = {}
    known = [True] * len(risk)
    if truth is not None:
        known = (~np.isnan(truth[:, 0])).tolist()
        columns = {"time": truth[:, 0], "event": [int(event == 1) for event in truth[:, 1]]}
    columns["risk"] = risk.numpy()
    columns |= {f"survival_{time:g}": survival[:, at].numpy() for at, time in enumerate(times)}
    return Table(target, KIND, columns, known)


def _read(label: Label, patient: str, columns: Sequence[str], censoring: bool) -> tuple[float, float]:
    time, event = label
    if not (time and event):
        return math.nan, math.nan
    return duration(time, patient, columns[0]), float(holds(event, patient, columns[1]) != censoring)
