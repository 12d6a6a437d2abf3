"""Slides of one patient as bags of their own: predictions, not tiles, are pooled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pathpipe.mil.bag import Bags
from pathpipe.mil.model import Auxiliary, MILModule, MILOutput, TrainContext
from pathpipe.mil.wrapper import Wrapper
from pathpipe.settings import Settings

_SLIDES = "slides"


class PoolSlidesOptions(Settings):
    """Pooling slides has no options."""


class PoolSlides(Wrapper):
    """The mean over a patient's slides of their logits.

    In training every slide has its patient's label and a share of 1 / slides of the patient, so that patients weigh the
    same; the losses of the model's own branches are shared out alike. A patient with one slide is left as it is.
    """

    summary = "A bag a slide, logits averaged over the slides of a patient (`--slides-of-patient pool`)"
    Options: ClassVar[type[Settings]] = PoolSlidesOptions

    def forward(self, bags: Bags) -> MILOutput:
        """Logits of patients."""
        if bags.slide is None:
            return super().forward(bags)
        cut = _Cut.of(bags)
        output: MILOutput = self.base(cut.bags)
        gathered = _gathered(output, cut, bags)
        return replace(gathered, weight=0.0, auxiliary=_shared_out(output, cut)) if self.training else gathered

    def deployed(self) -> MILModule:
        """Itself: slides are pooled when it predicts, too."""
        return self.kept()

    def pre_step(self, bags: Bags, context: TrainContext) -> None:
        """The model hears of the slides."""
        self.base.pre_step(bags if bags.slide is None else _Cut.of(bags).bags, context)

    def post_step(self, bags: Bags, context: TrainContext) -> None:
        """The model hears of the slides."""
        self.base.post_step(bags if bags.slide is None else _Cut.of(bags).bags, context)


@dataclass(frozen=True, eq=False)
class _Cut:
    """A batch of patients cut into one of slides.

    Attributes:
        bags: Packed, a bag a slide; slides of a patient stand together.
        order: (T,) rows of the packed batch in the order of the slides, or None where they stand so already.
        patient: (S,) bag of the batch that each slide is of.
        mean: (B, S) that averages over the slides of a patient.
    """

    bags: Bags
    order: Tensor | None
    patient: Tensor
    mean: Tensor

    @classmethod
    def of(cls, bags: Bags) -> _Cut:
        """Cut at slides."""
        packed, slide, device = bags.to_packed(), bags.slide, bags.features.device
        assert slide is not None
        lengths = torch.tensor(bags.lengths)
        width = int(slide.max()) + 1
        key = torch.arange(len(bags)).repeat_interleave(lengths) * width + slide
        rows = key.argsort(stable=True)
        order = None if torch.equal(rows, torch.arange(len(key))) else rows.to(device)
        slides, counts = key[rows].unique_consecutive(return_counts=True)
        patient = (slides // width).to(device)
        own = (torch.arange(len(bags), device=device)[:, None] == patient).float()
        cut = Bags(
            features=packed.features if order is None else packed.features[order],
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
            xy0=packed.xy0 if order is None or packed.xy0 is None else packed.xy0[order],
            covariates=None if bags.covariates is None else bags.covariates[patient],
            labels=None if bags.labels is None else bags.labels.take(patient),
        )
        return cls(cut, order, patient, own / own.sum(1, keepdim=True))

    @property
    def share(self) -> Tensor:
        """(S,) 1 / slides of the patient."""
        return self.mean.sum(0)


def _gathered(output: MILOutput, cut: _Cut, bags: Bags) -> MILOutput:
    """An output of slides as one of patients; attention sums to 1 over a patient."""
    mean = cut.mean.to(output.logits.dtype)

    def rows(values: Tensor | None, share: Tensor | None = None) -> Tensor | None:
        if values is None or output.seen is not None:  # they are of other instances than the batch's
            return None
        values = values if share is None else values * share[:, None].to(values.dtype)
        if cut.order is not None:
            values = torch.empty_like(values).index_copy(0, cut.order, values)
        return values if bags.mask is None else bags.join(list(values.split(bags.lengths)))

    return replace(
        output,
        logits=mean @ output.logits,
        embedding=None if output.embedding is None else mean.to(output.embedding.dtype) @ output.embedding,
        attention=rows(output.attention, cut.share.repeat_interleave(cut.bags.offsets.diff().to(mean.device))),
        attention_raw=rows(output.attention_raw),
        instance_logits=rows(output.instance_logits),
        scores=rows(output.scores),
        seen=None,
    )


def _shared_out(output: MILOutput, cut: _Cut) -> Mapping[str, Auxiliary]:
    """The slides' logits with their patients' targets, and the model's own further logits."""
    found = {_SLIDES: Auxiliary(output.logits, cut.patient, cut.share, output.weight)}
    for name, further in output.auxiliary.items():
        share = cut.share[further.bag] if further.share is None else further.share * cut.share[further.bag]
        found[f"{_SLIDES} {name}"] = replace(further, bag=cut.patient[further.bag], share=share)
    return found
