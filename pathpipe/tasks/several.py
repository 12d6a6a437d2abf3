"""Several targets at once, each patient with those that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from pathpipe.tasks.labels import Label
from pathpipe.tasks.task import Table, Task, task_from_dict

KIND = "several"


@dataclass(frozen=True)
class SeveralTask:
    """Targets side by side: blocks of logits, of targets and of a label's texts, in the order of the parts.

    The loss is the mean of the targets' own losses, weighted by `factors`; each is a mean over the rows whose value
    of that target is known, and 0 in a batch without one.

    Attributes:
        target: As typed, all of it.
        parts: One task a target.
        factors: What each one's loss counts.
    """

    target: str
    parts: tuple[Task, ...]
    factors: tuple[float, ...]

    @property
    def kind(self) -> str:
        """Registered name."""
        return KIND

    @property
    def outputs(self) -> int:
        """All logits."""
        return sum(part.outputs for part in self.parts)

    @property
    def columns(self) -> tuple[str, ...]:
        """Of all targets."""
        return tuple(name for part in self.parts for name in part.columns)

    @property
    def width(self) -> int:
        """Numbers of all targets."""
        return sum(part.width for part in self.parts)

    @property
    def weighed(self) -> int:
        """Weights of all targets."""
        return sum(part.weighed for part in self.parts)

    @property
    def relative(self) -> tuple[int, ...]:
        """Those of all targets."""
        starts = accumulate((part.outputs for part in self.parts[:-1]), initial=0)
        return tuple(start + at for start, part in zip(starts, self.parts, strict=True) for at in part.relative)

    @property
    def finishes(self) -> bool:
        """Whether one of the parts needs it."""
        return any(part.finishes for part in self.parts)

    def fit(self, labels: Sequence[Label]) -> SeveralTask:
        """Each from the training patients whose value is known.

        Raises:
            CohortError: A target can't be learnt from them.
        """
        parts = [part.fit(own) for part, own in zip(self.parts, self._labels(labels), strict=True)]
        return replace(self, parts=tuple(parts))

    def finish(self, logits: Tensor, targets: Tensor) -> SeveralTask:
        """Each by its own logits."""
        blocks = zip(self.parts, self._logits(logits), self._targets(targets), strict=True)
        return replace(self, parts=tuple(part.finish(own, truth) for part, own, truth in blocks))

    def encode(self, labels: Sequence[Label]) -> Tensor:
        """(P, width) float32, NaN where unknown."""
        blocks = []
        for part, own in zip(self.parts, self._labels(labels), strict=True):
            encoded = part.encode(own).reshape(len(labels), part.width)
            unknown = (encoded < 0) & (not encoded.is_floating_point())
            blocks.append(encoded.float().masked_fill(unknown, torch.nan))
        return torch.cat(blocks, dim=1)

    def weights(self, targets: Tensor) -> Tensor:
        """(weighed,) those of the parts."""
        return torch.cat([part.weights(own) for part, own in zip(self.parts, self._targets(targets), strict=True)])

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Weighted mean of the targets' losses."""
        given = [None] * len(self.parts) if weights is None else weights.split([part.weighed for part in self.parts])
        total = logits.new_zeros(())
        rows = zip(self.parts, self._logits(logits), self._targets(targets), given, self.factors, strict=True)
        for part, own, truth, weight, factor in rows:
            weight = weight if weight is not None and len(weight) else None
            total = total + factor * part.loss(own, truth, weight, share)
        return total / sum(self.factors)

    def scores(self, logits: Tensor) -> Tensor:
        """(P, S) float64: those of the parts, side by side."""
        return torch.cat([part.scores(own) for part, own in zip(self.parts, self._logits(logits), strict=True)], dim=1)

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Those of each part, its target's name before them."""
        found: dict[str, float] = {}
        for part, own, truth in zip(self.parts, self._logits(logits), self._targets(targets), strict=True):
            found |= {f"{part.target} {name}": value for name, value in part.metrics(own, truth).items()}
        return found

    def tables(self, logits: Tensor, labels: Sequence[Label] | None = None) -> tuple[Table, ...]:
        """Those of all parts."""
        own_labels = [None] * len(self.parts) if labels is None else self._labels(labels)
        rows = zip(self.parts, self._logits(logits), own_labels, strict=True)
        return tuple(table for part, own, texts in rows for table in part.tables(own, texts))

    def question(self) -> dict[str, Any]:
        """What each part asks."""
        parts = [part.question() for part in self.parts]
        return {"kind": KIND, "target": self.target, "parts": parts, "factors": list(self.factors)}

    def to_dict(self) -> dict[str, Any]:
        """The parts, with what they learnt."""
        return {**self.question(), "parts": [part.to_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SeveralTask:
        """Inverse of `to_dict`."""
        parts = tuple(task_from_dict(part) for part in value["parts"])
        return cls(str(value["target"]), parts, tuple(float(one) for one in value["factors"]))

    def _labels(self, labels: Sequence[Label]) -> list[list[Label]]:
        found: list[list[Label]] = []
        start = 0
        for part in self.parts:
            end = start + len(part.columns)
            found.append([tuple(label[start:end]) for label in labels])
            start = end
        return found

    def _logits(self, logits: Tensor) -> Sequence[Tensor]:
        return logits.split([part.outputs for part in self.parts], dim=1)

    def _targets(self, targets: Tensor) -> list[Tensor]:
        """Each part's own, in the shape and with the unknown it knows."""
        blocks = targets.split([part.width for part in self.parts], dim=1)
        return [_own(part, block) for part, block in zip(self.parts, blocks, strict=True)]


def _own(part: Task, block: Tensor) -> Tensor:
    if part.kind in ("classification", "ordinal"):
        return block[:, 0].nan_to_num(-1.0).long()
    return block[:, 0] if part.kind == "regression" else block
