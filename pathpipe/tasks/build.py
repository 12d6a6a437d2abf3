"""From a target as typed, a cohort's labels and options to a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pathpipe.errors import SettingsError
from pathpipe.registry import suggest
from pathpipe.settings import merge
from pathpipe.settings.target import TargetSpec, parse_target
from pathpipe.tasks.labels import Label
from pathpipe.tasks.several import SeveralTask
from pathpipe.tasks.task import TASKS, Task

_WHERE = "train.task_settings"
_FACTORS = "weights"


def task_from_target(target: str, labels: Mapping[str, Label], options: Mapping[str, Any] | None = None) -> Task:
    """The task of a cohort, before it has learnt anything.

    Args:
        target: The setting `split.target`.
        labels: patient_id -> texts in the columns of all targets, in order (`known_labels`).
        options: The setting `train.task_settings`: options of the kinds of target. With several targets an option
            goes to all whose kind has it; those under a target's name go to that one, and `weights` holds the factor
            of a target's loss under its name.

    Raises:
        SettingsError: No target has such an option, or its value is out of bounds.
        CohortError: A text in the cohort can't be a value of its kind; it names column and patient.
    """
    specs = parse_target(target)
    given = dict(options or {})
    factors = _factors(specs, given.pop(_FACTORS, {})) if len(specs) > 1 else (1.0,)
    _refuse_unknown(specs, given)
    parts, start = [], 0
    for spec in specs:
        end = start + len(spec.columns)
        own = {patient: tuple(label[start:end]) for patient, label in labels.items()}
        kind = TASKS[spec.kind]
        settings, _ = merge(kind.Options, [(_WHERE, _own(spec, given))])
        task: Task = kind.build(spec, {patient: label for patient, label in own.items() if any(label)}, settings)
        parts.append(task)
        start = end
    return parts[0] if len(parts) == 1 else SeveralTask(target, tuple(parts), factors)


def _own(spec: TargetSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are for this target, those under its name last."""
    fields = TASKS[spec.kind].Options.model_fields
    own = given.get(spec.name, {})
    if not isinstance(own, Mapping):
        raise SettingsError(f"`{spec.name}` needs a mapping of options, not `{own}`", where=_WHERE)
    return {**{name: value for name, value in given.items() if name in fields}, **own}


def _refuse_unknown(specs: tuple[TargetSpec, ...], given: Mapping[str, Any]) -> None:
    known = [name for spec in specs for name in TASKS[spec.kind].Options.model_fields]
    named = [spec.name for spec in specs] if len(specs) > 1 else []
    for name in given:
        if name not in (*known, *named):
            what = f"a {specs[0].kind} target" if len(specs) == 1 else "none of the targets"
            has = "has no option" if len(specs) == 1 else "has an option"
            hint = suggest(name, [*known, *named]) if known or named else "it takes none"
            raise SettingsError(f"{what} {has} `{name}`", where=_WHERE, hint=hint)


def _factors(specs: tuple[TargetSpec, ...], given: Any) -> tuple[float, ...]:
    names = [spec.name for spec in specs]
    if not isinstance(given, Mapping) or not all(
        isinstance(value, int | float) and value > 0 for value in given.values()
    ):
        raise SettingsError("weights must give targets numbers above 0", where=f"{_WHERE}.{_FACTORS}")
    for name in given:
        if name not in names:
            raise SettingsError(f"`{name}` is no target", where=f"{_WHERE}.{_FACTORS}", hint=suggest(str(name), names))
    return tuple(float(given.get(name, 1.0)) for name in names)
