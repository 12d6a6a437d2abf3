"""Wrappers: what changes the training of any model, and composes: `--model abmil --with aem=0.1 --with mhim`."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import ClassVar

from pathpipe.mil.bag import Bags
from pathpipe.mil.model import MILModule, MILOutput, ModelCard, TrainContext
from pathpipe.settings import Settings


class Wrapper(MILModule):
    """A model around a model, with the same inputs and outputs; by itself it changes nothing.

    Its card is the base's; a subclass says what is different in `card_of`. What only training needs goes with
    `deployed`, so that a trained model is saved as the plain one: a wrapper that stays overrides it.

    Args:
        base: The model inside, perhaps itself wrapped.
        options: An instance of the class's own `Options`.

    Raises:
        SettingsError: The wrapper can't work on this base.
    """

    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    main_option: ClassVar[str | None] = None  # what VALUE means in `--with NAME=VALUE`

    def __init__(self, base: MILModule, options: Settings) -> None:
        super().__init__(base.dim_in, base.dim_out, options)
        self.base = base
        self.card = self.card_of(base.card)

    def card_of(self, card: ModelCard) -> ModelCard:
        """The card of the wrapped model."""
        return replace(card)

    def forward(self, bags: Bags) -> MILOutput:
        """Logits of a batch."""
        output: MILOutput = self.base(bags)
        return output

    def level(self, outputs: Sequence[int]) -> None:
        """Zero the weights behind some logits of the model inside."""
        self.base.level(outputs)

    def deployed(self) -> MILModule:
        """The model inside."""
        return self.base.deployed()

    def kept(self) -> MILModule:
        """What a wrapper that stays is deployed as: itself around the deployed model, sharing all weights."""
        stays = copy(self)
        stays._modules = dict(self._modules)  # a shallow copy shares the table in which `base` is replaced
        stays.base = self.base.deployed()
        return stays

    def setup(self, context: TrainContext) -> None:
        """Called once, before the first epoch."""
        self.base.setup(context)

    def on_epoch(self, context: TrainContext) -> None:
        """Called before every epoch."""
        self.base.on_epoch(context)

    def pre_step(self, bags: Bags, context: TrainContext) -> None:
        """Called before the forward pass of every training step."""
        self.base.pre_step(bags, context)

    def post_step(self, bags: Bags, context: TrainContext) -> None:
        """Called after the optimiser's step."""
        self.base.post_step(bags, context)
