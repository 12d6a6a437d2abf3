"""Regression: a number, standardised by the training patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import huber_loss, mse_loss

from pathpipe.errors import CohortError
from pathpipe.settings import Settings
from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.classes import mean_of_known
from pathpipe.tasks.following import r_squared
from pathpipe.tasks.labels import Label, number
from pathpipe.tasks.task import Plain, Table

KIND = "regression"


class RegressionOptions(Settings):
    """Options of regression."""

    loss: Literal["huber", "mse"] = Field("huber", description="Loss of the standardised number")
    delta: float = Field(1.0, gt=0, description="Standard deviations up to which the Huber loss is a square")


@dataclass(frozen=True)
class RegressionTask(Plain):
    """One number.

    Attributes:
        target: As typed.
        column: Of the cohort.
        criterion: `huber` or `mse`.
        delta: Of the Huber loss, in standard deviations.
        mean: Of the training patients, in the target's own units.
        std: Likewise, of the sample; 1 before `fit`.

    Reference: Huber (1964), Annals of Mathematical Statistics 35, 73-101.
    """

    target: str
    column: str
    criterion: str = "huber"
    delta: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    Options: ClassVar[type[Settings]] = RegressionOptions

    @classmethod
    def build(cls, spec: TargetSpec, labels: Mapping[str, Label], options: Settings) -> RegressionTask:
        """The task of a cohort's target.

        Raises:
            CohortError: A text is no number, or all are the same.
        """
        column = spec.columns[0]
        found = {number(text, patient, column) for patient, (text,) in labels.items() if text}
        if len(found) == 1:
            raise CohortError("says the same of every patient", where=f"column `{column}`")
        chosen = options if isinstance(options, RegressionOptions) else RegressionOptions()
        return cls(str(spec), column, chosen.loss, chosen.delta)

    @property
    def kind(self) -> str:
        """Registered name."""
        return KIND

    @property
    def outputs(self) -> int:
        """The standardised number."""
        return 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def fit(self, labels: Sequence[Label]) -> RegressionTask:
        """Learn mean and standard deviation.

        Raises:
            CohortError: The training patients all have the same value, or none.
        """
        values = np.array([number(text, "", self.column) for (text,) in labels if text])
        if len(np.unique(values)) < 2:
            found = f"the one value {values[0]:g}" if len(values) else "no value"
            raise CohortError(f"the training patients have {found}", where=f"column `{self.column}`")
        return replace(self, mean=float(values.mean()), std=float(values.std(ddof=1)))

    def encode(self, labels: Sequence[Label]) -> Tensor:
        """(P,) float32 standard deviations above the mean, NaN where unknown."""
        values = [number(text, "", self.column) if text else math.nan for (text,) in labels]
        return torch.tensor([(value - self.mean) / self.std for value in values], dtype=torch.float32)

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Mean Huber or squared loss of the standardised number."""
        known = ~targets.isnan()
        predicted, stand_in = logits.squeeze(1), torch.where(known, targets, 0.0).to(logits.dtype)
        if self.criterion == "mse":
            losses = mse_loss(predicted, stand_in, reduction="none")
        else:
            losses = huber_loss(predicted, stand_in, reduction="none", delta=self.delta)
        return mean_of_known(losses, known, share)

    def scores(self, logits: Tensor) -> Tensor:
        """(P, 1) float64 in the target's own units."""
        return logits.double() * self.std + self.mean

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """`r2`: 1 - squared errors / squared distances from the mean of these patients."""
        known = ~targets.isnan()
        return {"r2": r_squared(targets[known].double().numpy(), logits[known, 0].double().numpy())}

    def tables(self, logits: Tensor, labels: Sequence[Label] | None = None) -> tuple[Table, ...]:
        """Columns target and prediction."""
        columns: dict[str, Any] = {} if labels is None else {"target": [float(text or "nan") for (text,) in labels]}
        known = [True] * len(logits) if labels is None else [bool(text) for (text,) in labels]
        columns["prediction"] = self.scores(logits)[:, 0].numpy()
        return (Table(self.target, KIND, columns, known),)

    def question(self) -> dict[str, Any]:
        """All but mean and spread."""
        asked = {"column": self.column, "criterion": self.criterion, "delta": self.delta}
        return {"kind": KIND, "target": self.target, **asked}

    def to_dict(self) -> dict[str, Any]:
        """The question, mean and spread."""
        return {**self.question(), "mean": self.mean, "std": self.std}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RegressionTask:
        """Inverse of `to_dict`."""
        texts = [str(value[name]) for name in ("target", "column", "criterion")]
        mean, std = float(value.get("mean", 0.0)), float(value.get("std", 1.0))
        return cls(texts[0], texts[1], texts[2], float(value["delta"]), mean, std)
