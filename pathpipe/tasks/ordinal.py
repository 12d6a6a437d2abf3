"""Ordinal classification: grades whose order matters, with probabilities that keep it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from pathpipe.errors import CohortError
from pathpipe.registry import suggest
from pathpipe.settings import Settings
from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.classes import checked_classes, class_table, class_weights, encode_classes, mean_of_known
from pathpipe.tasks.following import quadratic_kappa
from pathpipe.tasks.labels import Label, as_numbers
from pathpipe.tasks.task import Plain, Table

KIND = "ordinal"


class OrdinalOptions(Settings):
    """Options of ordinal classification."""

    order: list[str] | None = Field(
        None, description="The grades from lowest to highest, where they are neither numbers nor end in one"
    )


@dataclass(frozen=True)
class OrdinalTask(Plain):
    """Grades in order, by the odds of going on to a higher one (continuation ratios).

    Logit k of C - 1 is that of P(grade > k | grade >= k), so P(grade > k) is a product of sigmoids: it falls with k and
    the C probabilities are at least 0 and sum to 1, whatever the logits. That is why this is used and not C - 1
    independent sigmoids (Frank & Hall 2001), which may contradict each other, nor CORAL (Cao et al. 2020), which is
    consistent only for a head of one shared weight vector: here any model's head serves, and so do the logits of its
    branches and the mean of several models' logits. The loss is the exact negative log-likelihood of the grade, where
    CORN averages each threshold over the patients that reached it; both have the same minimum for each patient.

    Attributes:
        target: As typed.
        column: Of the cohort.
        classes: From the lowest to the highest.

    Reference: Shi, Cao & Raschka, Deep neural networks for rank-consistent ordinal regression based on conditional
    probabilities, 2023, arXiv:2111.08851; Tutz (1991), Computational Statistics & Data Analysis 11, 275-295.
    """

    target: str
    column: str
    classes: tuple[str, ...]
    Options: ClassVar[type[Settings]] = OrdinalOptions

    def __post_init__(self) -> None:
        checked_classes(self.classes, self.column)

    @classmethod
    def build(cls, spec: TargetSpec, labels: Mapping[str, Label], options: Settings) -> OrdinalTask:
        """The task of a cohort's target.

        Raises:
            CohortError: The order of the grades isn't known, or the one given lacks a grade.
        """
        column = spec.columns[0]
        found = {text for (text,) in labels.values() if text}
        order = options.order if isinstance(options, OrdinalOptions) else None
        if order is None:
            return cls(str(spec), column, _natural_order(found, column))
        missing = sorted(found - set(order))
        if missing:
            raise CohortError(
                f"the order given lacks `{missing[0]}`", where=f"column `{column}`", hint=suggest(missing[0], order)
            )
        return cls(str(spec), column, tuple(order))

    @property
    def kind(self) -> str:
        """Registered name."""
        return KIND

    @property
    def outputs(self) -> int:
        """One logit a step between grades."""
        return len(self.classes) - 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    @property
    def weighed(self) -> int:
        """One weight a grade."""
        return len(self.classes)

    def encode(self, labels: Sequence[Label]) -> Tensor:
        """(P,) int64 grades from 0, -1 where unknown.

        Raises:
            CohortError: A label that is none of the grades.
        """
        return encode_classes(labels, self.classes, self.column)

    def weights(self, targets: Tensor) -> Tensor:
        """(C,) float32 P / (C * P_c), as for classes."""
        return class_weights(targets, len(self.classes))

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Mean over bags of the negative log-probability of the grade, times its weight."""
        known = targets >= 0
        grades = targets.long().clamp(min=0)
        losses = -_log_probabilities(logits).gather(1, grades[:, None]).squeeze(1)
        if weights is not None:
            losses = losses * weights[grades]
        return mean_of_known(losses, known, share)

    def scores(self, logits: Tensor) -> Tensor:
        """(P, C) float64 probabilities of the grades."""
        return _log_probabilities(logits.double()).exp()

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """`kappa`: quadratic, of the median grade; NaN where all patients and predictions are of one grade."""
        known = targets >= 0
        above = 1 - self.scores(logits[known]).cumsum(1)[:, :-1]
        return {"kappa": quadratic_kappa(targets[known].long().numpy(), (above > 0.5).sum(1).numpy())}

    def tables(self, logits: Tensor, labels: Sequence[Label] | None = None) -> tuple[Table, ...]:
        """Columns target, `p_<grade>` and `logit_<grade>`: log-probabilities, as there is no logit of a grade."""
        logs = _log_probabilities(logits.double())
        return (class_table(self.target, KIND, self.classes, (logs.exp(), logs), labels),)

    def to_dict(self) -> dict[str, Any]:
        """Kind, target, column and grades."""
        return {"kind": KIND, "target": self.target, "column": self.column, "classes": list(self.classes)}

    def question(self) -> dict[str, Any]:
        """All of it."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> OrdinalTask:
        """Inverse of `to_dict`."""
        return cls(str(value["target"]), str(value["column"]), tuple(str(name) for name in value["classes"]))


def _log_probabilities(logits: Tensor) -> Tensor:
    """(P, C - 1) logits of going on -> (P, C) log-probabilities: every step up to the grade, and no further."""
    start = logits.new_zeros(len(logits), 1)
    reached = torch.cat([start, logsigmoid(logits).cumsum(1)], dim=1)
    stopped = torch.cat([logsigmoid(-logits), start], dim=1)
    return reached + stopped


def _natural_order(found: Iterable[str], column: str) -> tuple[str, ...]:
    """Numbers, or names that differ by the number they end in (G1, G2, G10), in the order of the numbers."""
    names = sorted(set(found))
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    numbers = as_numbers(names)
    if numbers is None and all(parts) and len({part[1] for part in parts if part}) == 1:
        numbers = {part[0]: float(part[2]) for part in parts if part}
    if numbers is None:
        raise CohortError(
            f"nothing says in which order the grades are: {', '.join(names)}",
            where=f"column `{column}`",
            hint="give it, lowest first: `--task-settings order=[low,mid,high]`",
        )
    return tuple(sorted(names, key=lambda name: (numbers[name], name)))
