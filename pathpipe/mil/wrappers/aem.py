"""AEM: attention is kept from gathering on a few instances by rewarding its entropy."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.losses import negative_entropy
from pathpipe.mil.model import MILModule, MILOutput, TrainContext
from pathpipe.mil.schedule import cosine
from pathpipe.mil.wrapper import Wrapper
from pathpipe.settings import Settings

_LOSS = "negative_entropy"


class AemOptions(Settings):
    """Options of AEM."""

    weight: float = Field(
        0.1, ge=0, description="Weight of the negative entropy; the paper tries 0.001 to 0.2, less for longer bags"
    )
    schedule: Literal["constant", "annealed"] = Field(
        "constant", description="The weight over training; annealed: down to 0 along a half cosine"
    )


class Aem(Wrapper):
    """Attention entropy maximisation on any model that has attention.

    Adds weight * sum of a log a over a bag's instances, the mean of its maps and of the batch's bags, to the loss in
    training. As in the paper it isn't divided by log N: long bags are pulled harder. The paper's third version anneals
    the weight, its code keeps it constant: both are here.
    """

    summary = "Rewards the entropy of attention in training"
    paper = (
        "Zhang et al., AEM: Attention Entropy Maximization for Multiple Instance Learning based Whole Slide Image "
        "Classification, MICCAI 2025, arXiv:2406.15303"
    )
    main_option = "weight"
    Options: ClassVar[type[Settings]] = AemOptions
    options: AemOptions

    def __init__(self, base: MILModule, options: AemOptions) -> None:
        super().__init__(base, options)
        if not base.card.attention:
            raise SettingsError(
                f"wrapper `aem` can't work on `{base.name}`: it has no attention",
                hint="`pathpipe models` says which models have",
            )
        self.weight = options.weight

    def pre_step(self, bags: Bags, context: TrainContext) -> None:
        """The weight of this step."""
        super().pre_step(bags, context)
        if self.options.schedule == "annealed":
            self.weight = cosine(self.options.weight, 0.0, context.step, context.total_steps)

    def forward(self, bags: Bags) -> MILOutput:
        """The model's own output; in training with one more loss."""
        output: MILOutput = self.base(bags)
        if not self.training:
            return output
        maps = output.attention_per_bag(bags if output.seen is None else output.seen)
        loss = torch.stack([negative_entropy(part) for part in maps]).mean()
        return replace(
            output,
            losses={**output.losses, _LOSS: loss},
            loss_weights={**output.loss_weights, _LOSS: self.weight},
        )
