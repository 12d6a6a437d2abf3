"""What every MIL model is: a card, options, a forward pass over bags, and hooks the trainer calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from pathpipe.mil.bag import Bags
from pathpipe.settings import Settings


@dataclass(frozen=True)
class ModelCard:
    """What people and tests are told of a model.

    Attributes:
        summary: One line.
        paper: Reference, or empty.
        attention: Whether the output has attention.
        permutation_invariant: Whether the order of a bag's instances leaves the logits as they are.
    """

    summary: str
    paper: str
    attention: bool
    permutation_invariant: bool


@dataclass(frozen=True, eq=False)
class MILOutput:
    """What a forward pass gives. Values per instance have the layout of the batch.

    Attributes:
        logits: (B, C).
        embedding: (B, L) bag features.
        attention: Packed (T, K) or padded (B, N, K): at least 0, sums to 1 over a bag, 0 on padding.
        attention_raw: The scores before the softmax, same layout; meaningless on padding.
        instance_logits: Packed (T, C) or padded (B, N, C); meaningless on padding.
        losses: Name -> scalar that the model adds to the task's loss in training.
        loss_weights: Name -> factor; 1 where absent.
    """

    logits: Tensor
    embedding: Tensor | None = None
    attention: Tensor | None = None
    attention_raw: Tensor | None = None
    instance_logits: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    loss_weights: Mapping[str, float] = field(default_factory=dict)

    def attention_per_bag(self, bags: Bags) -> list[Tensor]:
        """(n_b, K) for each bag.

        Raises:
            ValueError: The model has no attention.
        """
        if self.attention is None:
            raise ValueError("this model has no attention; its card says so")
        return bags.split(self.attention)


@dataclass(frozen=True)
class TrainContext:
    """Where training stands, for models whose schedule or randomness depends on it.

    Attributes:
        epoch: From 0.
        step: Optimiser step, from 0, over all epochs.
        total_steps: Steps if training isn't stopped early.
        generator: Host generator; draw from it to stay reproducible.
    """

    epoch: int
    epochs: int
    step: int
    total_steps: int
    generator: torch.Generator


class MILModule(nn.Module):
    """Base of all models: keeps how it was built, and hooks that do nothing unless a model needs them.

    Args:
        dim_in: Width D of a feature.
        dim_out: Number of logits C.
        options: An instance of the class's own `Options`.
    """

    card: ClassVar[ModelCard]
    Options: ClassVar[type[Settings]] = Settings

    def __init__(self, dim_in: int, dim_out: int, options: Settings) -> None:
        super().__init__()
        self.dim_in = dim_in
        self.dim_out = dim_out
        self.options = options

    def forward(self, bags: Bags) -> MILOutput:
        """Logits of a batch, in either layout."""
        raise NotImplementedError

    def setup(self, context: TrainContext) -> None:
        """Called once, before the first epoch."""

    def on_epoch(self, context: TrainContext) -> None:
        """Called before every epoch."""

    def pre_step(self, bags: Bags, context: TrainContext) -> None:
        """Called before the forward pass of every training step."""

    def post_step(self, bags: Bags, context: TrainContext) -> None:
        """Called after the optimiser's step."""


def init_linear(model: nn.Module) -> None:
    """Xavier-normal weights and zero biases for all linear layers, as attention MIL codes have it."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
