"""Classification: one label out of two or more; softmax and cross-entropy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from pathpipe.settings import Settings
from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.classes import (
    checked_classes,
    class_table,
    class_weights,
    encode_classes,
    in_order,
    mean_of_known,
)
from pathpipe.tasks.following import auroc
from pathpipe.tasks.labels import Label, refuse_measured
from pathpipe.tasks.task import Plain, Table

KIND = "classification"


class ClassificationOptions(Settings):
    """Classification has no options."""


@dataclass(frozen=True)
class ClassificationTask(Plain):
    """Binary (two classes, two logits) or multi-class.

    Attributes:
        target: Cohort column.
        classes: Labels in the order of the logits. Of two, the second is the positive one.

    Raises:
        CohortError: Fewer than two classes, or one twice.
    """

    target: str
    classes: tuple[str, ...]
    Options: ClassVar[type[Settings]] = ClassificationOptions

    def __post_init__(self) -> None:
        checked_classes(self.classes, self.target)

    @classmethod
    def from_column(cls, target: str, labels: Iterable[str]) -> ClassificationTask:
        """The classes that occur, as numbers in order if all are numbers, else in alphabetical order."""
        return cls(target, in_order(labels))

    @classmethod
    def build(cls, spec: TargetSpec, labels: Mapping[str, Label], options: Settings) -> ClassificationTask:
        """The task of a cohort's target.

        Args:
            labels: patient_id -> text of the column.

        Raises:
            CohortError: There are fewer than two classes, or so many different numbers that they are none.
        """
        column = spec.columns[0]
        texts = [text for (text,) in labels.values() if text]
        refuse_measured(texts, column)
        return cls.from_column(column, texts)

    @property
    def kind(self) -> str:
        """Registered name."""
        return KIND

    @property
    def outputs(self) -> int:
        """One logit a class."""
        return len(self.classes)

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.target,)

    @property
    def weighed(self) -> int:
        """One weight a class."""
        return len(self.classes)

    def encode(self, labels: Sequence[Label]) -> Tensor:
        """(P,) int64 class indices, -1 where unknown.

        Raises:
            CohortError: A label that is none of the classes.
        """
        return encode_classes(labels, self.classes, self.target)

    def weights(self, targets: Tensor) -> Tensor:
        """(C,) float32 P / (C * P_c): their mean over the targets is 1. A class that is absent weighs 0."""
        return class_weights(targets, self.outputs)

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Mean over bags of weight times cross-entropy.

        It is divided by the number of bags, not by the batch's weights, under which a batch of one class, and so
        any batch of one bag, would lose the weighting.
        """
        known = targets >= 0
        losses = cross_entropy(logits, targets.long().clamp(min=0), weights, reduction="none")
        return mean_of_known(losses, known, share)

    def scores(self, logits: Tensor) -> Tensor:
        """(P, C) float64 probabilities."""
        return logits.double().softmax(-1)

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """`auroc`: of the positive class, or the mean of one against the rest; NaN when a class is absent."""
        known = targets >= 0
        scores, truth = self.scores(logits[known]).numpy(), targets[known].numpy()
        columns = [1] if self.outputs == 2 else range(self.outputs)
        return {"auroc": float(np.mean([auroc(scores[:, c], truth == c) for c in columns]))}

    def tables(self, logits: Tensor, labels: Sequence[Label] | None = None) -> tuple[Table, ...]:
        """Columns target, `p_<class>` and `logit_<class>`."""
        return (class_table(self.target, KIND, self.classes, (self.scores(logits), logits.double()), labels),)

    def to_dict(self) -> dict[str, Any]:
        """Kind, target and classes."""
        return {"kind": KIND, "target": self.target, "classes": list(self.classes)}

    def question(self) -> dict[str, Any]:
        """All of it."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ClassificationTask:
        """Inverse of `to_dict`."""
        return cls(str(value["target"]), tuple(str(name) for name in value["classes"]))
