"""Several labels at once, each yes or no or unknown: one sigmoid a label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from pathpipe.errors import CohortError
from pathpipe.settings import Settings
from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.classes import class_table, mean_of_known
from pathpipe.tasks.following import auroc
from pathpipe.tasks.labels import Label, holds
from pathpipe.tasks.task import Plain, Table

KIND = "multilabel"
NO_YES = ("0", "1")  # what the two classes of each label are called, whatever the cohort calls them


class MultilabelOptions(Settings):
    """Multi-label classification has no options."""


@dataclass(frozen=True)
class MultilabelTask(Plain):
    """Labels that hold or not, independently.

    Attributes:
        target: As typed.
        columns: A label each, in the order of the logits.
    """

    target: str
    columns: tuple[str, ...]
    Options: ClassVar[type[Settings]] = MultilabelOptions

    @classmethod
    def build(cls, spec: TargetSpec, labels: Mapping[str, Label], options: Settings) -> MultilabelTask:
        """The task of a cohort's target.

        Raises:
            CohortError: A text says neither yes nor no, or a label holds for everyone or for nobody.
        """
        for at, column in enumerate(spec.columns):
            found = {holds(label[at], patient, column) for patient, label in labels.items() if label[at]}
            if len(found) < 2:
                raise CohortError("says the same of every patient", where=f"column `{column}`")
        return cls(str(spec), spec.columns)

    @property
    def kind(self) -> str:
        """Registered name."""
        return KIND

    @property
    def outputs(self) -> int:
        """One logit a label."""
        return len(self.columns)

    @property
    def width(self) -> int:
        """One number a label."""
        return len(self.columns)

    @property
    def weighed(self) -> int:
        """One weight a label."""
        return len(self.columns)

    def encode(self, labels: Sequence[Label]) -> Tensor:
        """(P, L) float32: 1 where a label holds, 0 where not, NaN where unknown."""
        rows = [
            [
                float(holds(text, "", column)) if text else math.nan
                for text, column in zip(label, self.columns, strict=True)
            ]
            for label in labels
        ]
        return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(self.columns))

    def weights(self, targets: Tensor) -> Tensor:
        """(L,) patients without a label for each patient with it; 1 where nobody has it or everybody."""
        with_it, without = (targets == 1).sum(0), (targets == 0).sum(0)
        both = (with_it > 0) & (without > 0)
        return torch.where(both, without / with_it.clamp(min=1), 1.0).float()

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Mean binary cross-entropy of the labels that are known, those that hold weighing `weights` times."""
        known = ~targets.isnan()
        stand_in = torch.where(known, targets, 0.0).to(logits.dtype)
        losses = binary_cross_entropy_with_logits(logits, stand_in, pos_weight=weights, reduction="none")
        return mean_of_known(losses, known, share)

    def scores(self, logits: Tensor) -> Tensor:
        """(P, L) float64 probability that each label holds."""
        return logits.double().sigmoid()

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """`auroc`: mean over the labels of which both kinds of patients are known; NaN where there is none."""
        scores, truth = self.scores(logits).numpy(), targets.numpy()
        known = ~np.isnan(truth)
        each = [auroc(scores[known[:, at], at], truth[known[:, at], at] == 1) for at in range(self.outputs)]
        defined = [value for value in each if math.isfinite(value)]
        return {"auroc": float(np.mean(defined)) if defined else math.nan}

    def tables(self, logits: Tensor, labels: Sequence[Label] | None = None) -> tuple[Table, ...]:
        """A binary classification for each label, its classes called 0 and 1."""
        both = torch.stack([-logits.double(), logits.double()], dim=-1)  # (P, L, 2)
        tables = []
        for at, column in enumerate(self.columns):
            # log-probabilities: logits of a softmax that gives the same two probabilities
            values = (both[:, at].sigmoid(), logsigmoid(both[:, at]))
            texts = None
            if labels is not None:
                texts = [(str(int(holds(label[at], "", column))) if label[at] else "",) for label in labels]
            tables.append(class_table(column, "classification", NO_YES, values, texts))
        return tuple(tables)

    def to_dict(self) -> dict[str, Any]:
        """Kind, target and columns."""
        return {"kind": KIND, "target": self.target, "columns": list(self.columns)}

    def question(self) -> dict[str, Any]:
        """All of it."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> MultilabelTask:
        """Inverse of `to_dict`."""
        return cls(str(value["target"]), tuple(str(name) for name in value["columns"]))
