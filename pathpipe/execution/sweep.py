"""Sweep: candidates trained and compared on validation patients; no test patient is loaded, let alone predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pathpipe.errors import CohortError, PathpipeError, SettingsError
from pathpipe.fingerprint import fingerprint
from pathpipe.lease import Lease
from pathpipe.publish import publish_text
from pathpipe.registry import suggest
from pathpipe.run import Run
from pathpipe.settings import RunSettings, TrainSettings, merge

if TYPE_CHECKING:
    from pathpipe.stages.patients import Prepared
    from pathpipe.training.trainer import TrainedFold

JOURNAL, BEST, TABLE = "study.journal", "best.yaml", "trials.csv"


@dataclass(frozen=True)
class Tried:
    """One candidate.

    Attributes:
        state: `complete`, `pruned` (given up after some folds) or `fail`.
        value: Mean over folds and seeds; None where it failed.
        changes: What was varied -> its value.
        reason: Why it failed.
    """

    number: int
    state: str
    value: float | None
    changes: Mapping[str, Any]
    reason: str = ""


@dataclass(frozen=True)
class Swept:
    """A study.

    Attributes:
        objective: The metric that was compared.
        trials: In the order they were tried.
        best: The best complete one.
        best_yaml: Its settings, for `pathpipe train --config`.
    """

    objective: str
    trials: tuple[Tried, ...]
    best: Tried | None
    best_yaml: Path


@dataclass(frozen=True, eq=False)
class _Round:
    """One training that a candidate goes through: patients, and those that score it."""

    prepared: Prepared
    scored: str  # the role: val, or the test role of an inner fold


def run_sweep(run: Run, settings: RunSettings, heard: Callable[[Tried], None]) -> Swept:
    """Try candidates until the study has as many as asked for, and write the best one's settings.

    Args:
        heard: Told of each candidate.

    Raises:
        MissingError: Optuna is not installed.
        SettingsError: Nothing is varied, the task has no such metric, or another command is at it.
        CohortError: A fold can't be trained on.
    """
    from pathpipe.training.search import open_study, propose

    sweep = settings.sweep
    if not (sweep.models or sweep.space):
        raise SettingsError("nothing is varied", where="sweep.space", hint="configs/sweep.yaml is one to start from")
    rounds = _rounds(run, settings)
    objective = _objective(settings, rounds[0])
    folder = run.sweep(_name(settings, objective))
    lease = Lease.acquire(run.lease("sweep", folder.name))
    if lease is None:
        raise SettingsError("another command works on this study", where=str(folder), hint="wait for it")
    with lease:
        study = open_study(folder / JOURNAL, folder.name, sweep, objective != "loss")
        while (done := len(_finished(study))) < sweep.trials:
            trial, values = propose(study, sweep, settings.train.model_dump(mode="json"), done)
            heard(_try(study, trial, values, rounds, objective, settings))
        trials = tuple(_finished(study))
    complete = [one for one in trials if one.state == "complete" and one.value is not None]
    best = None
    if complete:
        sign = -1 if objective == "loss" else 1
        best = max(complete, key=lambda one: (sign * (one.value or 0.0), -one.number))
        publish_text(folder / BEST, _best_yaml(study.trials[best.number].user_attrs["train"], best, objective))
    _write_table(folder / TABLE, trials, objective)
    return Swept(objective, trials, best, folder / BEST)


def _rounds(run: Run, settings: RunSettings) -> list[_Round]:
    """What a candidate is trained on: the inner folds of each fold, or the fold itself without those it tests."""
    from pathpipe.stages.patients import prepare_fold
    from pathpipe.stages.split import read_splits

    splits = read_splits(run, settings)
    only = settings.sweep.only_fold
    if only is not None and only not in splits.folds:
        raise SettingsError(f"there is no fold {only}", where="sweep.only_fold", hint=f"folds: {splits.folds}")
    found = []
    for fold in splits.folds if only is None else (only,):
        inner = splits.inner(fold)
        if inner is None:
            found.append(_Round(_untested(prepare_fold(run, settings, fold)), "val"))
        else:
            found += [_Round(prepare_fold(run, settings, part, inner), "test") for part in inner.folds]
    return found


def _untested(prepared: Prepared) -> Prepared:
    """A fold without the patients it tests: not their labels, not their features."""
    data = prepared.data
    tested = set(data.roles["test"])
    return replace(
        prepared,
        data=replace(
            data,
            bags={patient: bag for patient, bag in data.bags.items() if patient not in tested},
            labels={patient: label for patient, label in data.labels.items() if patient not in tested},
            roles={**data.roles, "test": ()},
        ),
    )


def _objective(settings: RunSettings, first: _Round) -> str:
    asked = settings.sweep.objective
    import torch

    task, data = first.prepared.task, first.prepared.data
    members = data.roles[first.scored]
    targets = task.encode([data.labels[patient] for patient in members])
    known = list(task.metrics(torch.zeros(len(members), task.outputs), targets))
    if asked == "auto":
        return known[0] if known else "loss"
    if asked != "loss" and asked not in known:
        hint = suggest(asked, ["loss", *known])
        raise SettingsError(f"the task measures no `{asked}`", where="sweep.objective", hint=hint)
    return asked


def _try(
    study: Any, trial: Any, values: dict[str, Any], rounds: list[_Round], objective: str, settings: RunSettings
) -> Tried:
    """Train one candidate on every round; a candidate that can't be trained fails, and the search goes on."""
    from pathpipe.encoders.load import pick_device
    from pathpipe.training.fit import Conditions
    from pathpipe.training.memory import keep_freed_memory
    from pathpipe.training.trainer import train_fold

    keep_freed_memory()
    device = pick_device(settings.execution.device)
    found: list[float] = []
    try:
        for number, one in enumerate(rounds):
            train = _settings_of(values, one.prepared.settings)
            for seed in train.seeds:
                prepared = one.prepared
                how = Conditions(predict=(one.scored,), compile=settings.execution.compile)
                trained = train_fold(prepared.data, prepared.task, train, seed, device, how=how)
                found.append(_scored(trained, one, objective))
            trial.report(sum(found) / len(found), number)
            if number + 1 < len(rounds) and trial.should_prune():
                _end(study, trial, values, state=_states().PRUNED)
                break
        else:
            _end(study, trial, values, sum(found) / len(found))
    except PathpipeError as error:
        trial.set_user_attr("reason", error.reason)
        _end(study, trial, values, state=_states().FAIL)
    return _tried(study.trials[trial.number])


def _settings_of(values: Mapping[str, Any], prepared: TrainSettings) -> TrainSettings:
    """The candidate's settings, with the wrappers that a fold's slides and covariates stand for outermost."""
    train, _ = merge(TrainSettings, [("the sweep", values)])
    added = {name: options for name, options in prepared.wrappers.items() if name not in train.wrappers}
    return train.model_copy(update={"wrappers": {**train.wrappers, **added}})


def _scored(trained: TrainedFold, one: _Round, objective: str) -> float:
    """What the patients that score say of the chosen epoch."""
    if one.scored == "val":
        row = trained.history.iloc[trained.best_epoch - 1]
        value = float(row["val_loss" if objective == "loss" else f"val_{objective}"])
    else:
        task, data = one.prepared.task, one.prepared.data
        targets = task.encode([data.labels[patient] for patient in trained.patients[one.scored]])
        logits = trained.logits[one.scored]
        value = (
            task.loss(logits, targets, None).item() if objective == "loss" else task.metrics(logits, targets)[objective]
        )
    if math.isnan(value):
        raise CohortError(
            f"{objective} is not defined on the validation patients of fold {trained.fold}",
            hint="compare by `--objective loss`, or use a larger --val-fraction",
        )
    return value


def _end(study: Any, trial: Any, values: dict[str, Any], value: float | None = None, state: Any = None) -> None:
    trial.set_user_attr("train", values)  # what a killed candidate lacks: it doesn't count as one
    study.tell(trial, value, state=state)


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState


def _finished(study: Any) -> list[Tried]:
    trials = study.get_trials(deepcopy=False)
    return [_tried(trial) for trial in trials if trial.state.is_finished() and "train" in trial.user_attrs]


def _tried(trial: Any) -> Tried:
    state = trial.state.name.lower()
    return Tried(trial.number, state, trial.value, dict(trial.params), str(trial.user_attrs.get("reason", "")))


def _name(settings: RunSettings, objective: str) -> str:
    """One study for one question: other patients, another space or other fixed settings are another study."""
    asked = settings.model_dump(mode="json", include={"split", "train", "sweep"})
    asked["sweep"].pop("trials")
    asked["train"].pop("name")
    return f"{objective.replace(' ', '-').replace('/', '-')}-{fingerprint(asked)[:8]}"


def _best_yaml(train: Mapping[str, Any], best: Tried, objective: str) -> str:
    kept = {key: value for key, value in train.items() if key != "name"}
    head = f"# Candidate {best.number} of a sweep, by {objective} on validation patients: {best.value:.4f}\n"
    return head + yaml.safe_dump({"train": kept}, sort_keys=False, allow_unicode=True)


def _write_table(path: Path, trials: tuple[Tried, ...], objective: str) -> None:
    import csv
    import io

    keys = sorted({key for one in trials for key in one.changes})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", objective, *keys, "reason"])
    for one in trials:
        value = "" if one.value is None else repr(one.value)
        writer.writerow([one.number, one.state, value, *(one.changes.get(key, "") for key in keys), one.reason])
    publish_text(path, text.getvalue())
