"""What a task is: how labels become targets, what a model's outputs cost and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from pathpipe.errors import StoreError
from pathpipe.registry import Registry

TASKS = Registry("task", {"classification": "pathpipe.tasks.classification:ClassificationTask"})


class Task(Protocol):
    """One kind of target. Frozen, and JSON-able through `to_dict`, so that a checkpoint can carry it."""

    @property
    def target(self) -> str:
        """The cohort column."""

    @property
    def kind(self) -> str:
        """Its registered name."""

    @property
    def outputs(self) -> int:
        """Number of logits a model must give."""

    def encode(self, labels: Sequence[str]) -> Tensor:
        """Labels as the cohort has them -> (P, ...) targets."""

    def weights(self, targets: Tensor) -> Tensor:
        """Weights for `loss` that balance these (training) targets."""

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Mean loss over rows, each taken `share` times: (R, outputs) logits and R targets -> scalar."""

    def scores(self, logits: Tensor) -> Tensor:
        """(P, outputs) logits -> (P, outputs) float64 predictions a person reads, e.g. probabilities."""

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Numbers to follow in training, on validation; NaN where undefined."""

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to build it again, under its kind's name at `kind`."""


def task_from_dict(value: Mapping[str, Any]) -> Task:
    """Inverse of `Task.to_dict`.

    Raises:
        StoreError: The mapping describes no task this installation knows.
    """
    kind = str(value.get("kind"))
    if kind not in TASKS:
        raise StoreError(f"describes a task of unknown kind `{kind}`", hint=f"known: {', '.join(TASKS.names())}")
    return TASKS[kind].from_dict(value)
