"""Survival by Cox's proportional hazards: one log-risk, learnt from who had the event before whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pathpipe.settings import Settings
from pathpipe.settings.target import TargetSpec
from pathpipe.tasks.following import concordance
from pathpipe.tasks.labels import Label
from pathpipe.tasks.task import Plain, Table
from pathpipe.tasks.timed import Floats, read_times, reporting_times, survival_table, training_events

KIND = "cox"
_BLOCK_VALUES = 1 << 22  # values of a block of (event times, patients)
_NONE = float("-inf")


class CoxOptions(Settings):
    """Options of Cox's model."""

    ties: Literal["efron", "breslow"] = Field("efron", description="Approximation for events at one time")


@dataclass(frozen=True)
class CoxTask(Plain):
    """A log-risk, higher for an earlier event.

    The loss compares the bags of a batch with each other: an event is compared with those bags of its batch that were
    still at risk. A batch of one bag, or without an event, teaches nothing, so batches must be larger than usual
    (`--batch-size 32`); adding up the gradients of several batches makes no risk set larger.

    Attributes:
        target: As typed.
        columns: Time and event.
        censoring: Whether the second column says that a patient was censored.
        times: Where P(T > t) is reported.
        ties: `efron` or `breslow`.
        hazard: Breslow's cumulative baseline hazard at `times`, of the training patients; empty before `finish`.

    Reference: Cox (1972), JRSS B 34, 187-220; Efron (1977), JASA 72, 557-565; Breslow (1974), Biometrics 30, 89-99;
    Faraggi & Simon (1995), Statistics in Medicine 14, 73-82 for a network's output as the log-risk.
    """

    target: str
    columns: tuple[str, ...]
    censoring: bool
    times: tuple[float, ...]
    ties: str = "efron"
    hazard: tuple[float, ...] = ()
    Options: ClassVar[type[Settings]] = CoxOptions

    @classmethod
    def build(cls, spec: TargetSpec, labels: Mapping[str, Label], options: Settings) -> CoxTask:
        """The task of a cohort's target.

        Raises:
            CohortError: A text is no time or no event, or no event was seen.
        """
        ties = options.ties if isinstance(options, CoxOptions) else "efron"
        return cls(str(spec), spec.columns, spec.censoring, reporting_times(spec, labels), ties)

    @property
    def kind(self) -> str:
        """Registered name."""
        return KIND

    @property
    def outputs(self) -> int:
        """The log-risk."""
        return 1

    @property
    def width(self) -> int:
        """Time and event."""
        return 2

    @property
    def finishes(self) -> bool:
        """The baseline hazard."""
        return True

    @property
    def relative(self) -> tuple[int, ...]:
        """The log-risk."""
        return (0,)

    def fit(self, labels: Sequence[Label]) -> CoxTask:
        """Nothing is learnt; there must be an event.

        Raises:
            CohortError: There is none.
        """
        training_events(labels, self.columns, self.censoring)
        return self

    def finish(self, logits: Tensor, targets: Tensor) -> CoxTask:
        """Breslow's baseline hazard of the training patients, by what the trained model says of them."""
        known = ~targets[:, 0].isnan()
        truth = targets[known].double().numpy()
        hazard = _baseline(truth[:, 0], truth[:, 1] == 1, logits[known, 0].double().numpy(), np.array(self.times))
        return replace(self, hazard=tuple(hazard.tolist()))

    def encode(self, labels: Sequence[Label]) -> Tensor:
        """(P, 2) float32: time and event (1 seen, 0 censored); NaN where unknown."""
        return torch.from_numpy(read_times(labels, self.columns, self.censoring)).float()

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None, share: Tensor | None = None) -> Tensor:
        """Negative log partial likelihood of the batch over its number of events; 0 where there is no event.

        Rows enter risk sets and events `share` times.
        """
        kept = ~targets[:, 0].isnan()
        if share is not None:
            kept = kept & (share > 0)
        risk, time, event = logits[kept, 0], targets[kept, 0], targets[kept, 1] == 1
        counted = torch.ones_like(risk) if share is None else share[kept].to(risk.dtype)
        if not bool(event.any()):
            return logits.sum() * 0.0
        likelihood = (counted * risk)[event].sum()
        distinct = time[event].unique()
        step = max(1, _BLOCK_VALUES // len(risk))
        for block in distinct.split(step):
            likelihood = likelihood - self._normaliser(risk + counted.log(), (time, event, counted), block)
        return -likelihood / counted[event].sum()

    def _normaliser(self, weighed: Tensor, rows: tuple[Tensor, Tensor, Tensor], times: Tensor) -> Tensor:
        """Sum over some event times of the log of who was at risk.

        Args:
            weighed: (R,) log of share times hazard.
            rows: (R,) time, event and share.
            times: (G,) distinct event times.
        """
        time, event, counted = rows
        at_risk = (time >= times[:, None]).to(weighed.device)  # (G, R)
        tied = (time == times[:, None]) & event
        total = torch.where(at_risk, weighed, _NONE).logsumexp(1)
        mass = (tied * counted).sum(1)
        if self.ties == "breslow":
            return (mass * total).sum()
        own = torch.where(tied, weighed, _NONE).logsumexp(1)
        deaths = tied.sum(1)
        steps = torch.arange(int(deaths.max()), device=weighed.device, dtype=weighed.dtype)
        within = steps < deaths[:, None]  # (G, most deaths at one time)
        taken = torch.where(within, steps / deaths[:, None], 0.0)
        ratio = (own - total).exp()[:, None]
        logs = total[:, None] + torch.log1p(-taken * ratio)
        return (mass / deaths * torch.where(within, logs, 0.0).sum(1)).sum()

    def scores(self, logits: Tensor) -> Tensor:
        """(P, 1) float64 log-risks; only their differences mean something."""
        return logits.double()

    def metrics(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """`cindex`: Harrell's C of the risk; NaN where no two patients can be compared."""
        known = ~targets[:, 0].isnan()
        truth = targets[known].double().numpy()
        return {"cindex": concordance(truth[:, 0], truth[:, 1] == 1, logits[known, 0].double().numpy())}

    def tables(self, logits: Tensor, labels: Sequence[Label] | None = None) -> tuple[Table, ...]:
        """Columns time, event, risk and, once `finish` was called, `survival_<t>`."""
        truth = None if labels is None else read_times(labels, self.columns, self.censoring)
        risk = logits[:, 0].double()
        times = self.times[: len(self.hazard)]
        survival = (-torch.tensor(self.hazard, dtype=torch.float64) * risk.exp()[:, None]).exp()
        return (survival_table(self.target, times, risk, survival, truth),)

    def question(self) -> dict[str, Any]:
        """All but the baseline."""
        asked = {"columns": list(self.columns), "censoring": self.censoring, "times": list(self.times)}
        return {"kind": KIND, "target": self.target, **asked, "ties": self.ties}

    def to_dict(self) -> dict[str, Any]:
        """The question and the baseline."""
        return {**self.question(), "hazard": list(self.hazard)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> CoxTask:
        """Inverse of `to_dict`."""
        return cls(
            target=str(value["target"]),
            columns=tuple(str(name) for name in value["columns"]),
            censoring=bool(value["censoring"]),
            times=tuple(float(time) for time in value["times"]),
            ties=str(value["ties"]),
            hazard=tuple(float(one) for one in value.get("hazard", ())),
        )


def _baseline(time: Floats, event: np.ndarray, risk: Floats, times: Floats) -> Floats:
    """(T,) cumulative hazard of a patient of log-risk 0 by Breslow's estimator."""
    distinct = np.unique(time[event])
    top = risk.max()
    at_risk = np.array([np.exp(risk[time >= at] - top).sum() for at in distinct])
    deaths = np.array([(event & (time == at)).sum() for at in distinct])
    steps = np.r_[0.0, np.cumsum(deaths / at_risk)] * np.exp(-top)
    return np.asarray(steps[np.searchsorted(distinct, times, side="right")], np.float64)
