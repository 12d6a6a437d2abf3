"""Confounders: findings on columns such as `site` that a model could read off the slide instead of the disease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.labels import is_known, number
from pathpipe.training.audit import Finding
from pathpipe.training.confounding import (
    Association,
    class_association,
    martingale_residuals,
    mean_association,
    recognised,
)
from pathpipe.training.leaks import AuditedSlides, Roles
from pathpipe.training.strata import time_and_event

_P = 0.01
_WEAK = {"Cramer's V": 0.1, "eta^2": 0.01}  # small by Cohen's reckoning: not worth a warning, whatever p


def find_confounders(
    slides: AuditedSlides,
    roles: Roles,
    columns: Mapping[str, Mapping[str, str]],
    targets: Mapping[TargetSpec, Mapping[str, Sequence[str]]],
    seed: int,
) -> list[Finding]:
    """For each column, how well features tell it, and how much it goes with each target.

    Args:
        columns: Column -> patient_id -> value, "" where unknown or where a patient's slides disagree.
        targets: Target -> patient_id -> text of each of its columns.
        seed: Of folds and permutations.
    """
    patients, means = slides.by_patient()
    found = []
    for column, values in columns.items():
        if not any(values.get(patient) for patient in patients):
            what = f"column `{column}` says nothing of these patients, so it was not looked for"
            found.append(Finding(f"{column}-in-features", "note", what, ""))
            continue
        shared = roles.shared(values)
        found.append(_in_features(column, [values.get(patient, "") for patient in patients], means, shared, seed))
        for spec, texts in targets.items():
            found += _with_target(column, values, spec, texts, shared, seed)
    return found


def _in_features(
    column: str, values: Sequence[str], means: npt.NDArray[np.float64], shared: tuple[str, ...], seed: int
) -> Finding:
    kind = f"{column}-in-features"
    told = recognised(means, values, seed)
    if told is None:
        what = (
            f"fewer than two values of `{column}` have five patients, so it can't be said how well features tell them"
        )
        return Finding(kind, "note", what, "")
    numbers = {
        "balanced_accuracy": told.accuracy,
        "low": told.low,
        "high": told.high,
        "chance": told.chance,
        "values": float(told.values),
        "patients": float(told.patients),
    }
    what = (
        f"features tell `{column}` with balanced accuracy {told.accuracy:.2f} ({told.low:.2f} to {told.high:.2f}; "
        f"chance {told.chance:.2f}, {told.values} values, {told.patients} patients)"
    )
    if told.low <= told.chance:
        return Finding(kind, "note", what, f"There is no sign that a model could recognise `{column}`.", (), numbers)
    if not shared:
        meaning = "But no fold tests a value it trains on, so recognising it doesn't help."
        return Finding(kind, "note", what, meaning, (), numbers)
    meaning = f"A model can recognise `{column}`; wherever it goes with the target, that passes for skill. " + _remedy(
        column
    )
    return Finding(kind, "warning", what, meaning, shared, numbers)


def _with_target(
    column: str,
    values: Mapping[str, str],
    spec: TargetSpec,
    texts: Mapping[str, Sequence[str]],
    shared: tuple[str, ...],
    seed: int,
) -> list[Finding]:
    known = {patient: found for patient, found in texts.items() if is_known(spec, found)}
    patients = sorted(known)
    given = [values.get(patient, "") for patient in patients]
    tested: dict[str, Association | None] = {}
    if spec.timed:
        times, events = time_and_event(spec, known)
        scores = martingale_residuals(
            np.array([times[patient] for patient in patients]),
            np.array([events[patient] for patient in patients], bool),
        )
        tested[spec.name] = mean_association(scores, given, seed) if patients else None
    elif spec.kind == "regression":
        numbers = [number(known[patient][0], patient, spec.columns[0]) for patient in patients]
        tested[spec.name] = mean_association(np.array(numbers), given, seed)
    else:
        for at, name in enumerate(spec.columns):
            tested[name] = class_association([known[patient][at] for patient in patients], given, seed)
    return [_association(column, name, one, shared) for name, one in tested.items() if one is not None]


def _association(column: str, target: str, one: Association, shared: tuple[str, ...]) -> Finding:
    kind = f"{column}-with-target"
    what = f"`{target}` and `{column}`: {one.measure} {one.value:.2f}, p {one.p:.4f} ({one.patients} patients)"
    numbers = {"value": one.value, "p": one.p, "patients": float(one.patients)}
    if one.p >= _P or one.value < _WEAK[one.measure]:
        return Finding(kind, "note", what, "There is no sign that they go together.", (), numbers)
    if not shared:
        meaning = "They go together, but no fold tests a value it trains on, so that doesn't help the model."
        return Finding(kind, "note", what, meaning, (), numbers)
    meaning = f"They go together: a model that recognises `{column}` gains by it without seeing the disease. "
    return Finding(kind, "warning", what, meaning + _remedy(column), (), numbers)


def _remedy(column: str) -> str:
    if column == "site":
        return "Split by `--by-site preserved` or `leave-one-out`, and report results by site."
    return f"Keep its values together with `--group {column}`, and report results by value."
