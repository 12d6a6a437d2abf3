"""Sweep: candidates trained and compared on validation patients; no test patient is loaded, let alone predicted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pathpipe.errors import SettingsError
from pathpipe.execution.candidate import Candidate, Result, Trying, objective_of, rounds_of
from pathpipe.execution.side_by_side import workers
from pathpipe.fingerprint import fingerprint
from pathpipe.lease import Lease, looks_dead
from pathpipe.publish import publish_text
from pathpipe.run import Run
from pathpipe.settings import RunSettings

if TYPE_CHECKING:
    from pathpipe.training.search import Proposal

JOURNAL, BEST, TABLE = "study.journal", "best.yaml", "trials.csv"
_POLL_S = 1.0


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


def run_sweep(run: Run, settings: RunSettings, heard: Callable[[Tried], None]) -> Swept:
    """Try candidates until the study has as many as asked for, and write the best one's settings.

    Args:
        heard: Told of each candidate.

    Raises:
        MissingError: Optuna is not installed.
        SettingsError: Nothing is varied, the task has no such metric, or another command is at it.
        CohortError: A fold can't be trained on.
        LeaseLostError: Another command took the study over, while this one was paused.
    """
    from pathpipe.mil.registry import model_class
    from pathpipe.training.search import open_study

    sweep = settings.sweep
    if not (sweep.models or sweep.space):
        raise SettingsError("nothing is varied", where="sweep.space", hint="configs/sweep.yaml is one to start from")
    for name in sweep.models:
        model_class(name)  # raises now what would fail each of its candidates
    rounds = rounds_of(run, settings)
    objective = objective_of(settings, rounds[0])
    folder = run.sweep(_name(run, settings, objective))
    lease = _lease(run.lease("sweep", folder.name), settings.execution.lease_s)
    if lease is None:
        raise SettingsError("another command works on this study", where=str(folder), hint="wait for it")
    with lease:
        study = open_study(folder / JOURNAL, folder.name, objective != "loss")
        with workers(Trying(run, settings, objective), rounds) as tries:
            while batch := _next(study, settings, objective != "loss"):
                tries([candidate for candidate, _ in batch], _Journal(study, deque(batch), lease, heard).finished)
        trials = tuple(_finished(study))
    complete = [one for one in trials if one.state == "complete" and one.value is not None]
    best = None
    if complete:
        sign = -1 if objective == "loss" else 1
        best = max(complete, key=lambda one: (sign * (one.value or 0.0), -one.number))
        publish_text(folder / BEST, _best_yaml(study.trials[best.number].user_attrs["train"], best, objective))
    _write_table(folder / TABLE, trials, objective)
    return Swept(objective, trials, best, folder / BEST)


def _lease(path: Path, lasts_s: float) -> Lease | None:
    """None when a living command has it; one that may be dead is watched until that is sure."""
    while (lease := Lease.acquire(path, lasts_s=lasts_s)) is None and looks_dead(path, lasts_s):
        time.sleep(_POLL_S)
    return lease


@dataclass
class _Journal:
    """Writes down what became of a batch in the order in which it was proposed, whoever is finished first."""

    study: Any
    batch: deque[tuple[Candidate, Proposal]]
    lease: Lease
    heard: Callable[[Tried], None]
    results: dict[str, Result] = field(default_factory=dict)

    def finished(self, key: str, result: Result) -> None:
        from pathpipe.training.search import record

        self.results[key] = result
        while self.batch and self.batch[0][0].key in self.results:
            candidate, proposal = self.batch.popleft()
            one = self.results.pop(candidate.key)
            self.lease.confirm()
            self.heard(_tried(record(self.study, proposal, one.state, one.reached, one.reason)))


def _next(study: Any, settings: RunSettings, maximise: bool) -> list[tuple[Candidate, Proposal]]:
    """The candidates that are proposed together and not finished; each learns from those of earlier batches only."""
    from pathpipe.training.search import bars, propose

    sweep, done = settings.sweep, len(_finished(study))
    begun = done - done % sweep.side_by_side
    known = study.get_trials(deepcopy=False)[:begun]
    base = settings.train.model_dump(mode="json")
    reach = tuple(bars(known)) if sweep.prune else ()
    found = []
    for number in range(done, min(begun + sweep.side_by_side, sweep.trials)):
        proposal = propose(known, sweep, base, number, maximise)
        found.append((Candidate(number, proposal.values, reach, maximise), proposal))
    return found


def _finished(study: Any) -> list[Tried]:
    return [_tried(trial) for trial in study.get_trials(deepcopy=False)]


def _tried(trial: Any) -> Tried:
    state = trial.state.name.lower()
    return Tried(trial.number, state, trial.value, dict(trial.params), str(trial.user_attrs.get("reason", "")))


def _name(run: Run, settings: RunSettings, objective: str) -> str:
    """One study for one question: other patients, labels or features, another space or other fixed settings are
    another study."""
    from pathpipe.stages import train

    asked = settings.model_dump(mode="json", include={"split", "train", "sweep"})
    asked["sweep"].pop("trials")
    asked["train"].pop("name")
    asked["inputs"] = train.inputs(run, "sweep", settings)
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
