"""Survival in discrete time: a hazard for each bin of time, and the likelihood of what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from pathpipe.errors import CohortError
from pathpipe.settings import Settings
from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.classes import mean_of_known
from pathpipe.tasks.following import concordance
from pathpipe.tasks.labels import Label
from pathpipe.tasks.task import Plain, Table
from pathpipe.tasks.timed import Floats, read_times, reporting_times, survival_table, training_events

KIND = "survival"


class SurvivalOptions(Settings):
    """Options of discrete-time survival."""

    bins: int = Field(4, ge=2, description="Bins of time, with equally many events of the training patients")
    alpha: float = Field(
        0.0, ge=0, lt=1, description="How much less censored patients count than those who had the event"
    )


@dataclass(frozen=True)
class SurvivalTask(Plain):
    """The hazard of each bin, given that its beginning was reached.

    Bin k holds the times in (edge k-1, edge k]: the first begins at 0, the last is open. P(T > edge k) is the product
    of (1 - hazard) of the bins up to k. A censored patient counts as one who outlived the bin of the last visit, as in
    the reference. Between edges, and from the last edge to the last time of the training patients, the hazard is taken
    as constant; after that time survival stays as it is. Risk is minus the sum of P(T > edge) over the bins.

    Attributes:
        target: As typed.
        columns: Time and event.
        censoring: Whether the second column says that a patient was censored.
        times: Where P(T > t) is reported.
        bins: Number of bins.
        alpha: The censored patients' share of the loss is 1 - alpha.
        edges: Ends of all bins but the last, of the training patients' event times; empty before `fit`.
        end: Last time of the training patients.

    Reference: Zadeh & Schmid, Bias in cross-entropy-based training of deep survival networks, IEEE TPAMI 2021.
    """

    target: str
    columns: tuple[str, ...]
    censoring: bool
    times: tuple[float, ...]
    bins: int = 4
    alpha: float = 0.0
    edges: tuple[float, ...] = ()
    end: float = 0.0
    Options: ClassVar[type[Settings]] = SurvivalOptions

    @classmethod
    def build(cls, spec: TargetSpec, labels: Mapping[str, Label], options: Settings) -> SurvivalTask:
        """The task of a cohort's target.

        Raises:
            CohortError: A text is no time or no event, no event was seen, or too few for the bins of any fold.
        """
        chosen = options if isinstance(options, SurvivalOptions) else SurvivalOptions()
        times = reporting_times(spec, labels)
        seen, _ = training_events([*labels.values()], spec.columns, spec.censoring)
        if len(np.unique(seen)) < chosen.bins:
            raise _too_few(seen, chosen.bins, spec.columns[0])
        return cls(str(spec), spec.columns, spec.censoring, times, chosen.bins, chosen.alpha)

    @property
    def kind(self) -> str:
        """Registered name."""
        return KIND

    @property
    def outputs(self) -> int:
        """One logit of a hazard a bin."""
        return self.bins

    @property
    def width(self) -> int:
        """Bin, event and time."""
        return 3

    def fit(self, labels: Sequence[Label]) -> SurvivalTask:
        """Cut time at quantiles of the training patients' event times.

        Raises:
            CohortError: There is no event, or there are too few different event times for the bins.
        """
        seen, every = training_events(labels, self.columns, self.censoring)
        edges = np.quantile(seen, np.arange(1, self.bins) / self.bins)
        if len(np.unique(np.searchsorted(edges, seen, side="left"))) < self.bins:  # a bin would have no event
            raise _too_few(seen, self.bins, self.columns[0])
        return replace(self, edges=tuple(edges.tolist()), end=float(every.max()))

    def encode(self, labels: Sequence[Label]) -> Tensor:
        """(P, 3) float32: bin from 0, event (1 seen, 0 censored) and time; NaN where unknown."""
        read = read_times(labels, self.columns, self.censoring)
        place = np.searchsorted(np.array(self.edges), read[:, 0], side="left").astype(np.float64)
        place[np.isnan(read[:, 0])] = np.nan
        return torch.from_numpy(np.column_stack([place, read[:, 1], read[:, 0]])).float()

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood: of the event in its bin, or of outliving the bin of censoring."""
        known = ~targets[:, 0].isnan()
        bin_ = torch.where(known, targets[:, 0], 0.0).long()[:, None]
        event = torch.where(known, targets[:, 1], 0.0).to(logits.dtype)
        outlived = logsigmoid(-logits).cumsum(1)  # log P(T > edge)
        before = pad(outlived, (1, 0))  # of the edge at which each bin begins
        happened = before.gather(1, bin_) + logsigmoid(logits).gather(1, bin_)
        censored = (1 - self.alpha) * outlived.gather(1, bin_)
        return mean_of_known(-torch.where(event == 1, happened.squeeze(1), censored.squeeze(1)), known, share)

    def scores(self, logits: Tensor) -> Tensor:
        """(P, bins) float64 P(T > end of the bin)."""
        return logsigmoid(-logits.double()).cumsum(1).exp()

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """`cindex`: Harrell's C of the risk; NaN where no two patients can be compared."""
        known = ~targets[:, 0].isnan()
        truth = targets[known].double().numpy()
        risk = -self.scores(logits[known]).sum(1)
        return {"cindex": concordance(truth[:, 2], truth[:, 1] == 1, risk.numpy())}

    def survival_at(self, logits: Tensor, times: Sequence[float]) -> Tensor:
        """(P, T) float64 P(T > t), the hazard being constant within a bin."""
        logs = pad(logsigmoid(-logits.double()).cumsum(1), (1, 0))  # at 0, the edges and the end
        grid = np.r_[0.0, self.edges, max((self.end, *self.edges))]
        at = np.clip(np.array(times, np.float64), 0.0, grid[-1])
        after = np.clip(np.searchsorted(grid, at, side="left"), 1, len(grid) - 1)
        room = grid[after] - grid[after - 1]
        part = torch.from_numpy(np.divide(at - grid[after - 1], room, out=np.zeros(len(at)), where=room > 0))
        return (logs[:, after - 1] * (1 - part) + logs[:, after] * part).exp()

    def tables(self, logits: Tensor, labels: Sequence[Label] | None = None) -> tuple[Table, ...]:
        """Columns time, event, risk and `survival_<t>`."""
        truth = None if labels is None else read_times(labels, self.columns, self.censoring)
        risk = -self.scores(logits).sum(1)
        return (survival_table(self.target, self.times, risk, self.survival_at(logits, self.times), truth),)

    def question(self) -> dict[str, Any]:
        """All but the edges."""
        asked = {"columns": list(self.columns), "censoring": self.censoring, "times": list(self.times)}
        return {"kind": KIND, "target": self.target, **asked, "bins": self.bins, "alpha": self.alpha}

    def to_dict(self) -> dict[str, Any]:
        """The question and the edges."""
        return {**self.question(), "edges": list(self.edges), "end": self.end}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SurvivalTask:
        """Inverse of `to_dict`."""
        return cls(
            target=str(value["target"]),
            columns=tuple(str(name) for name in value["columns"]),
            censoring=bool(value["censoring"]),
            times=tuple(float(time) for time in value["times"]),
            bins=int(value["bins"]),
            alpha=float(value["alpha"]),
            edges=tuple(float(edge) for edge in value.get("edges", ())),
            end=float(value.get("end", 0.0)),
        )


def _too_few(seen: Floats, bins: int, column: str) -> CohortError:
    return CohortError(
        f"{len(np.unique(seen))} different event times of {len(seen)} patients don't make {bins} bins",
        where=f"column `{column}`",
        hint="ask for fewer: `--task-settings bins=2`",
    )
