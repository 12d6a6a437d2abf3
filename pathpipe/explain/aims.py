"""Aims: what an explanation is of, one number a patient: a class's probability, a predicted number, a risk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pathpipe.errors import SettingsError, StoreError
from pathpipe.registry import suggest
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tasks.cox import CoxTask
from pathpipe.tasks.multilabel import MultilabelTask
from pathpipe.tasks.ordinal import OrdinalTask
from pathpipe.tasks.regression import RegressionTask
from pathpipe.tasks.several import SeveralTask
from pathpipe.tasks.survival import SurvivalTask
from pathpipe.tasks.task import Task

Kind = Literal["class", "number", "risk"]
PREDICTED, EVERY = "predicted", "every"


@dataclass(frozen=True)
class Aim:
    """One number that a model says of a patient, from its logits.

    Attributes:
        target: Of the task it belongs to.
        name: The class, the label, the column of a number, or `risk`.
        label: The name, preceded by its target where a model has several.
        kind: `class` has a probability; `number` is in the target's own units; `risk` is higher for earlier events.
        task: What the logits mean.
        first: Where the task's logits begin among the model's.
        column: Of the task's scores, for a class or label.
    """

    target: str
    name: str
    label: str
    kind: Kind
    task: Task
    first: int
    column: int

    def value(self, logits: Tensor) -> Tensor:
        """(R, outputs) logits of the model -> (R,) float64 what a person reads: probability, number or risk."""
        own = self._own(logits)
        scores = self.task.scores(own)
        if isinstance(self.task, SurvivalTask):
            return -scores.sum(1)
        return scores[:, self.column]

    def margin(self, logits: Tensor) -> Tensor:
        """(R,) float64 the same without a ceiling: the log-odds of a class, else the value."""
        own = self._own(logits)
        if self.kind != "class":
            return self.value(logits)
        if isinstance(self.task, MultilabelTask):
            return own[:, self.column].double()
        if isinstance(self.task, OrdinalTask):
            return _odds(_grades(own.double()), self.column)
        return _odds(own.double(), self.column)

    def _own(self, logits: Tensor) -> Tensor:
        return logits[:, self.first : self.first + self.task.outputs]


def _odds(logs: Tensor, column: int) -> Tensor:
    """Log-odds of one of several classes, from their log-probabilities up to a constant."""
    others = torch.cat([logs[:, :column], logs[:, column + 1 :]], dim=1)
    return logs[:, column] - others.logsumexp(1)


def _grades(logits: Tensor) -> Tensor:
    """Log-probabilities of grades from the logits of going on: see `OrdinalTask`."""
    start = logits.new_zeros(len(logits), 1)
    return torch.cat([start, logsigmoid(logits).cumsum(1)], 1) + torch.cat([logsigmoid(-logits), start], 1)


def aims_of(task: Task) -> tuple[Aim, ...]:
    """All that a task's model can be asked to explain, in the order of its targets and classes.

    Raises:
        StoreError: A task of a kind that isn't known here.
    """
    parts = task.parts if isinstance(task, SeveralTask) else (task,)
    found, first = [], 0
    for part in parts:
        kind, names = _names(part)
        stem = part.target.partition(":")[0]
        for column, name in enumerate(names):
            label = f"{stem}: {name}" if len(parts) > 1 and name != stem else name
            found.append(Aim(part.target, name, label, kind, part, first, column))
        first += part.outputs
    return tuple(found)


def _names(task: Task) -> tuple[Kind, tuple[str, ...]]:
    if isinstance(task, ClassificationTask | OrdinalTask):
        return "class", task.classes
    if isinstance(task, MultilabelTask):
        return "class", task.columns
    if isinstance(task, RegressionTask):
        return "number", (task.column,)
    if isinstance(task, SurvivalTask | CoxTask):
        return "risk", ("risk",)
    raise StoreError(f"nothing is known of how to explain a {task.kind} task")


def choose(aims: Sequence[Aim], wanted: str, values: Sequence[float]) -> tuple[Aim, ...]:
    """The aims to explain, the first one first to be shown.

    Args:
        wanted: The setting `heatmap.target_class`.
        values: Of each aim, as the models predict it.

    Raises:
        SettingsError: There is no such class.
    """
    known = dict(zip(aims, values, strict=True))
    targets = dict.fromkeys(aim.target for aim in aims)
    best = [max((aim for aim in aims if aim.target == target), key=lambda aim: known[aim]) for target in targets]
    if wanted == PREDICTED:
        return tuple(best)
    if wanted == EVERY:
        return tuple(dict.fromkeys([best[0], *aims]))
    return (named(aims, wanted),)


def named(aims: Sequence[Aim], wanted: str) -> Aim:
    """The aim of a name or label.

    Raises:
        SettingsError: There is none, or several targets have such a class.
    """
    found = [aim for aim in aims if wanted in (aim.label, aim.name)]
    exact = [aim for aim in found if aim.label == wanted]
    if len(exact) == 1 or len(found) == 1:
        return (exact or found)[0]
    hint = ", ".join(aim.label for aim in found) or suggest(wanted, [PREDICTED, EVERY, *(aim.label for aim in aims)])
    what = f"several targets have a `{wanted}`" if found else f"`{wanted}` is none of the classes, labels and numbers"
    raise SettingsError(what, where="heatmap.target_class", hint=hint)
