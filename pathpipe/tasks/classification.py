"""Classification: one label out of two or more; softmax and cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import cross_entropy

from pathpipe.errors import CohortError, StoreError
from pathpipe.registry import suggest

KIND = "classification"


@dataclass(frozen=True)
class ClassificationTask:
    """Binary (two classes, two logits) or multi-class.

    Attributes:
        target: Cohort column.
        classes: Labels in the order of the logits. Of two, the second is the positive one.

    Raises:
        CohortError: Fewer than two classes, or one twice.
    """

    target: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise CohortError(
                f"two or more different classes are needed, found: {', '.join(self.classes) or 'none'}",
                where=f"column `{self.target}`",
            )

    @classmethod
    def from_column(cls, target: str, labels: Iterable[str]) -> ClassificationTask:
        """The classes that occur, as numbers in order if all are numbers, else in alphabetical order."""
        names = set(labels)
        return cls(target, tuple(sorted(names, key=_order(names))))

    @property
    def kind(self) -> str:
        """Registered name."""
        return KIND

    @property
    def outputs(self) -> int:
        """One logit a class."""
        return len(self.classes)

    def encode(self, labels: Sequence[str]) -> Tensor:
        """(P,) int64 class indices.

        Raises:
            CohortError: A label that is none of the classes.
        """
        index = {name: number for number, name in enumerate(self.classes)}
        for label in labels:
            if label not in index:
                raise CohortError(
                    f"`{label}` is none of the classes",
                    where=f"column `{self.target}`",
                    hint=suggest(label, list(self.classes)),
                )
        return torch.tensor([index[label] for label in labels], dtype=torch.int64)

    def weights(self, targets: Tensor) -> Tensor:
        """(C,) float32 P / (C * P_c): their mean over the targets is 1. A class that is absent weighs 0."""
        counts = torch.bincount(targets, minlength=self.outputs)
        balanced = len(targets) / (self.outputs * counts.clamp(min=1).double())
        return torch.where(counts > 0, balanced, 0.0).float()

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Mean over bags of weight times cross-entropy.

        It is divided by the number of bags, not by the batch's weights, under which a batch of one class, and so
        any batch of one bag, would lose the weighting.
        """
        losses = cross_entropy(logits, targets, weights, reduction="none")
        return losses.mean() if share is None else (share * losses).sum() / share.sum()

    def scores(self, logits: Tensor) -> Tensor:
        """(P, C) float64 probabilities."""
        return logits.double().softmax(-1)

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """`auroc`: of the positive class, or the mean of one against the rest; NaN when a class is absent."""
        scores, truth = self.scores(logits).numpy(), targets.numpy()
        columns = [1] if self.outputs == 2 else range(self.outputs)
        return {"auroc": float(np.mean([_auroc(scores[:, c], truth == c) for c in columns]))}

    def to_dict(self) -> dict[str, Any]:
        """Kind, target and classes."""
        return {"kind": KIND, "target": self.target, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ClassificationTask:
        """Inverse of `to_dict`."""
        try:
            return cls(str(value["target"]), tuple(str(name) for name in value["classes"]))
        except (KeyError, TypeError) as error:
            raise StoreError(f"does not describe a classification task: {error!r}") from None


def _order(labels: set[str]) -> Callable[[str], tuple[float, str]]:
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        numbers = {}
    if not all(math.isfinite(number) for number in numbers.values()):  # a class may be called `nan`
        numbers = {}
    return lambda label: (numbers.get(label, 0.0), label)


def _auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mann-Whitney: the share of (positive, negative) pairs in the right order, ties counting half."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
