"""A candidate of a sweep: trained on every round, by whatever process has it in hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pathpipe.errors import CohortError, PathpipeError, SettingsError
from pathpipe.progress import Notify, silent
from pathpipe.registry import suggest
from pathpipe.run import Run
from pathpipe.settings import RunSettings, TrainSettings, merge

if TYPE_CHECKING:
    from pathpipe.stages.patients import Prepared
    from pathpipe.training.trainer import TrainedFold


@dataclass(frozen=True)
class Candidate:
    """What is tried.

    Attributes:
        number: Its place in the study.
        values: The values of `train`.
        bars: For each round, what the mean so far must reach; None: anything. Later rounds have none.
        up: Whether larger is better.
    """

    number: int
    values: Mapping[str, Any]
    bars: tuple[float | None, ...] = ()
    up: bool = True

    @property
    def key(self) -> str:
        """All of it as text, which goes to the worker."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, key: str) -> Candidate:
        """The candidate of a key."""
        return cls(**json.loads(key))

    def is_below(self, reached: list[float]) -> bool:
        """Whether to give it up: the best mean so far doesn't reach the bar of the last round."""
        bar = self.bars[len(reached) - 1] if len(reached) <= len(self.bars) else None
        if bar is None:
            return False
        return max(reached) < bar if self.up else min(reached) > bar


@dataclass(frozen=True)
class Result:
    """What became of a candidate.

    Attributes:
        reached: After each round, the mean over the trainings so far.
        reason: Why it failed.
    """

    state: Literal["complete", "pruned", "fail"]
    reached: list[float] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Round:
    """One training that a candidate goes through: patients, and those that score it."""

    prepared: Prepared
    scored: str  # the role: val, or the test role of an inner fold


@dataclass(eq=False)
class Trying:
    """`Work` of the processes that try candidates: each loads the patients once.

    Attributes:
        threads: Most threads that torch may use.
    """

    run: Run
    settings: RunSettings
    objective: str
    threads: int | None = None
    rounds: list[Round] | None = None

    def __call__(self, key: str, notify: Notify = silent) -> Result:
        """Train one candidate on every round; one that can't be trained fails, and the search goes on."""
        import torch

        from pathpipe.training.memory import keep_freed_memory

        keep_freed_memory()
        if self.threads is not None:
            torch.set_num_threads(min(self.threads, torch.get_num_threads()))
        if self.rounds is None:
            self.rounds = rounds_of(self.run, self.settings)
        return self._tried(Candidate.of(key), self.rounds, notify)

    def _tried(self, candidate: Candidate, rounds: list[Round], notify: Notify) -> Result:
        found: list[float] = []
        reached: list[float] = []
        try:
            for number, one in enumerate(rounds):
                found += self._of_round(candidate, one, notify)
                reached.append(sum(found) / len(found))
                if number + 1 < len(rounds) and candidate.is_below(reached):
                    return Result("pruned", reached)
        except PathpipeError as error:
            return Result("fail", reached, error.reason)
        return Result("complete", reached)

    def _of_round(self, candidate: Candidate, one: Round, notify: Notify) -> list[float]:
        from pathpipe.encoders.load import pick_device
        from pathpipe.training.fit import Conditions
        from pathpipe.training.trainer import train_fold

        execution, prepared = self.settings.execution, one.prepared
        train = _settings_of(candidate.values, prepared.settings)
        how = Conditions(predict=(one.scored,), compile=execution.compile)
        device = pick_device(execution.device)
        return [
            _scored(train_fold(prepared.data, prepared.task, train, seed, device, notify, how), one, self.objective)
            for seed in train.seeds
        ]


def rounds_of(run: Run, settings: RunSettings) -> list[Round]:
    """What a candidate is trained on: the inner folds of each fold, or the fold itself without those it tests.

    Raises:
        SettingsError: There is no such fold.
    """
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
            found.append(Round(_untested(prepare_fold(run, settings, fold)), "val"))
        else:
            found += [Round(prepare_fold(run, settings, part, inner), "test") for part in inner.folds]
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


def objective_of(settings: RunSettings, first: Round) -> str:
    """The metric that candidates are compared by.

    Raises:
        SettingsError: The task has no such metric.
    """
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


def _settings_of(values: Mapping[str, Any], prepared: TrainSettings) -> TrainSettings:
    """The candidate's settings, with the wrappers that a fold's slides and covariates stand for outermost."""
    train, _ = merge(TrainSettings, [("the sweep", values)])
    added = {name: options for name, options in prepared.wrappers.items() if name not in train.wrappers}
    return train.model_copy(update={"wrappers": {**train.wrappers, **added}})


def _scored(trained: TrainedFold, one: Round, objective: str) -> float:
    """What the patients that score say of the chosen epoch; a loss without class weights, which candidates may vary."""
    task, data = one.prepared.task, one.prepared.data
    targets = task.encode([data.labels[patient] for patient in trained.patients[one.scored]])
    logits = trained.logits[one.scored]
    value = task.loss(logits, targets, None).item() if objective == "loss" else task.metrics(logits, targets)[objective]
    if math.isnan(value):
        raise CohortError(
            f"{objective} is not defined on the validation patients of fold {trained.fold}",
            hint="compare by `--objective loss`, or use a larger --val-fraction",
        )
    return value
