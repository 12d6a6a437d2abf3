"""What every MIL model is: a card, options, a forward pass over bags, and hooks the trainer calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        needs_classes: Whether training needs one class a bag: such a model takes no other targets.
        needs_coordinates: Whether bags must have `xy0`.
    """

    summary: str
    paper: str
    attention: bool
    permutation_invariant: bool
    needs_classes: bool = False
    needs_coordinates: bool = False


@dataclass(frozen=True, eq=False)
class Auxiliary:
    """Further logits that are trained by the task's own loss: branches, pseudo-bags, streams.

    Attributes:
        logits: (R, C).
        bag: (R,) int64 row -> bag of the batch whose target it has. One row a target: a row of mixed targets is
            repeated with a share of each.
        share: (R,) factor of each row's loss; 1 where None. The sum is divided by the sum of the shares.
        weight: Factor of the whole.
    """

    logits: Tensor
    bag: Tensor
    share: Tensor | None = None
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class MILOutput:
    """What a forward pass gives. Values per instance have the layout of the batch.

    Attributes:
        logits: (B, C).
        embedding: (B, L) bag features.
        attention: Packed (T, K) or padded (B, N, K): at least 0, sums to 1 over a bag, 0 on padding.
        attention_raw: The scores before the softmax, same layout; meaningless on padding.
        instance_logits: Packed (T, C) or padded (B, N, C); meaningless on padding.
        scores: Packed (T,) or padded (B, N), what a heatmap shows instead of the attention's mean: higher matters more.
        losses: Name -> scalar that the model adds to the task's loss in training.
        loss_weights: Name -> factor; 1 where absent.
        auxiliary: Name -> further logits for the task's loss, in training.
        weight: Factor of the task's loss of `logits`.
        seen: The instances that the values above are of, where training looked at others than the batch's: some
            hidden, some merged.
    """

    logits: Tensor
    embedding: Tensor | None = None
    attention: Tensor | None = None
    attention_raw: Tensor | None = None
    instance_logits: Tensor | None = None
    scores: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    auxiliary: Mapping[str, Auxiliary] = field(default_factory=dict)
    weight: float = 1.0
    seen: Bags | None = None

    def attention_per_bag(self, bags: Bags) -> list[Tensor]:
        """(n_b, K) for each bag.

        Raises:
            ValueError: The model has no attention.
        """
        if self.attention is None:
            raise ValueError("this model has no attention; its card says so")
        return bags.split(self.attention)

    def total_loss(self, criterion: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]) -> Tensor:
        """What training minimises.

        Args:
            criterion: The task's loss: (logits, bag or None for one row a bag in order, share or None) -> scalar.
        """
        loss = self.weight * criterion(self.logits, None, None)
        for further in self.auxiliary.values():
            loss = loss + further.weight * criterion(further.logits, further.bag, further.share)
        for name, extra in self.losses.items():
            loss = loss + self.loss_weights.get(name, 1.0) * extra
        return loss


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

    What a model must remember between steps (a teacher, a queue, prototypes) is a submodule or a buffer, so that an
    interrupted training goes on with it. Randomness comes from torch's global generators or the context's, and only in
    training mode.

    Args:
        dim_in: Width D of a feature.
        dim_out: Number of logits C.
        options: An instance of the class's own `Options`.
    """

    card: ModelCard
    Options: ClassVar[type[Settings]] = Settings
    name: str = ""  # as registered; given by `build_model`
    output_layers: tuple[str, ...] = ("head",)  # linear layers whose outputs are logits

    def __init__(self, dim_in: int, dim_out: int, options: Settings) -> None:
        super().__init__()
        self.dim_in = dim_in
        self.dim_out = dim_out
        self.options = options

    def forward(self, bags: Bags) -> MILOutput:
        """Logits of a batch, in either layout."""
        raise NotImplementedError

    def level(self, outputs: Sequence[int]) -> None:
        """Zero the weights behind some logits, so that training starts from equal predictions of all bags.

        Of a logit that says something only beside those of others, the start's random differences would stay wherever
        few bags teach otherwise.
        """
        for name in self.output_layers:
            layer = self.get_submodule(name)
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter[list(outputs)] = 0.0

    def deployed(self) -> MILModule:
        """What predicts: the model without the parts that only training needs, sharing its weights."""
        return self

    def setup(self, context: TrainContext) -> None:
        """Called once, before the first epoch."""

    def on_epoch(self, context: TrainContext) -> None:
        """Called before every epoch."""

    def pre_step(self, bags: Bags, context: TrainContext) -> None:
        """Called before the forward pass of every training step."""

    def post_step(self, bags: Bags, context: TrainContext) -> None:
        """Called after the optimiser's step."""


class StagedModule(MILModule):
    """A model in two stages, instances to embeddings and embeddings to logits: wrappers may work between the two."""

    embed: nn.Module  # instances (..., D) -> embeddings (..., L), one by one
    head: nn.Linear  # bag embedding (or an instance's) -> logits

    def encode(self, bags: Bags) -> Bags:
        """Instances embedded one by one: the same batch with features of the model's own width."""
        return bags.with_features(self.embed(bags.features))

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits of embedded instances."""
        raise NotImplementedError

    def forward(self, bags: Bags) -> MILOutput:
        """Both stages."""
        return self.aggregate(self.encode(bags))


def init_linear(model: nn.Module) -> None:
    """Xavier-normal weights and zero biases for all linear layers, as attention MIL codes have it."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
