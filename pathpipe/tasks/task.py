"""What a task is: how labels become targets, what a model's outputs cost and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from pathpipe.errors import StoreError
from pathpipe.registry import Registry
from pathpipe.tasks.labels import Label

TASKS = Registry(
    "task",
    {
        "classification": "pathpipe.tasks.classification:ClassificationTask",
        "multilabel": "pathpipe.tasks.multilabel:MultilabelTask",
        "ordinal": "pathpipe.tasks.ordinal:OrdinalTask",
        "regression": "pathpipe.tasks.regression:RegressionTask",
        "survival": "pathpipe.tasks.survival:SurvivalTask",
        "cox": "pathpipe.tasks.cox:CoxTask",
        "several": "pathpipe.tasks.several:SeveralTask",
    },
)


@dataclass(frozen=True, eq=False)
class Table:
    """What is said of some patients about one target, as columns of a table of predictions.

    Attributes:
        target: The target as typed, or the column of one label of several.
        kind: `classification`, `ordinal`, `regression` or `survival`.
        columns: Name -> a value a patient. Without labels the columns of the truth are left out.
        known: (P,) whether the patient's truth is known; all True without labels.
    """

    target: str
    kind: str
    columns: Mapping[str, Sequence[Any]]
    known: Sequence[bool]


class Task(Protocol):
    """One kind of target. Frozen, and JSON-able through `to_dict`, so that a checkpoint can carry it.

    Targets are a tensor with one row a patient: (P,) int64 classes, -1 where unknown, or (P,) or (P, width) float32,
    NaN where unknown. Rows or single labels that are unknown add exactly nothing to a loss.
    """

    @property
    def target(self) -> str:
        """The target as typed, e.g. `subtype` or `os_months/os_event:survival`."""

    @property
    def kind(self) -> str:
        """Its registered name."""

    @property
    def outputs(self) -> int:
        """Number of logits a model must give."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the cohort, in the order of a label's texts."""

    @property
    def width(self) -> int:
        """Numbers that `encode` makes of one patient."""

    @property
    def weighed(self) -> int:
        """Numbers that `weights` gives; 0 where nothing is weighed."""

    @property
    def finishes(self) -> bool:
        """Whether `finish` adds anything."""

    @property
    def relative(self) -> tuple[int, ...]:
        """Logits that say something only beside those of other patients: a model's start must not tell them apart."""

    def fit(self, labels: Sequence[Label]) -> Task:
        """The same task with what is learnt from training patients alone: bins of time, mean and spread.

        Fitting again to the same labels changes nothing.

        Raises:
            CohortError: They can't teach it, e.g. no event was seen.
        """

    def finish(self, logits: Tensor, targets: Tensor) -> Task:
        """The same task with what a trained model's logits of the training patients add: a baseline hazard."""

    def encode(self, labels: Sequence[Label]) -> Tensor:
        """Labels as the cohort has them -> (P, ...) targets."""

    def weights(self, targets: Tensor) -> Tensor:
        """(weighed,) weights for `loss` that balance these (training) targets."""

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Mean loss over rows, each taken `share` times: (R, outputs) logits and R targets -> scalar."""

    def scores(self, logits: Tensor) -> Tensor:
        """(P, outputs) logits -> (P, S) float64 predictions a person reads, e.g. probabilities."""

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Numbers to follow in training, on validation: higher is better in all; NaN where undefined."""

    def tables(self, logits: Tensor, labels: Sequence[Label] | None = None) -> tuple[Table, ...]:
        """What predictions keep: a table a target, or a table a label of a multilabel target."""

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to build it again, under its kind's name at `kind`."""

    def question(self) -> dict[str, Any]:
        """What is asked, without what was learnt: equal in all folds of one training."""


class Plain:
    """What most tasks have in common: one number a patient, nothing to learn from labels and nothing to weigh."""

    @property
    def width(self) -> int:
        """One number a patient."""
        return 1

    @property
    def weighed(self) -> int:
        """No weights."""
        return 0

    @property
    def finishes(self) -> bool:
        """Not needed."""
        return False

    @property
    def relative(self) -> tuple[int, ...]:
        """None."""
        return ()

    def fit(self, labels: Sequence[Label]) -> Self:
        """Nothing is learnt."""
        return self

    def finish(self, logits: Tensor, targets: Tensor) -> Self:
        """Nothing is added."""
        return self

    def weights(self, targets: Tensor) -> Tensor:
        """None: (0,)."""
        return torch.zeros(0)


def task_from_dict(value: Mapping[str, Any]) -> Task:
    """Inverse of `Task.to_dict`.

    Raises:
        StoreError: The mapping describes no task this installation knows.
    """
    kind = str(value.get("kind"))
    if kind not in TASKS:
        raise StoreError(f"describes a task of unknown kind `{kind}`", hint=f"known: {', '.join(TASKS.names())}")
    try:
        task: Task = TASKS[kind].from_dict(value)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"does not describe a {kind} task: {error!r}") from None
    return task
