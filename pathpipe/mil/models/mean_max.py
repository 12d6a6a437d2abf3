"""The two plain baselines: a classifier on every tile, its logits averaged or their maximum taken."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from pathpipe.mil.bag import Bags
from pathpipe.mil.dropout import Dropout
from pathpipe.mil.model import MILModule, MILOutput, ModelCard, init_linear
from pathpipe.mil.pooling import max_over_instances, mean_over_instances
from pathpipe.settings import Settings


class PoolOptions(Settings):
    """Options of mean and max pooling."""

    hidden: int = Field(512, ge=1, description="Width of the tile embedding")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of the tile embedding in training")


class _InstanceClassifier(MILModule):
    """A classifier of tiles whose logits a subclass pools."""

    Options: ClassVar[type[Settings]] = PoolOptions

    def __init__(self, dim_in: int, dim_out: int, options: PoolOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        self.embed = nn.Sequential(nn.Linear(dim_in, options.hidden), nn.ReLU(), Dropout(options.dropout))
        self.head = nn.Linear(options.hidden, dim_out)
        init_linear(self)

    def pool(self, instance_logits: Tensor, bags: Bags) -> Tensor:
        """(T, C) or (B, N, C) -> (B, C)."""
        raise NotImplementedError

    def forward(self, bags: Bags) -> MILOutput:
        """Logits and instance logits of a batch."""
        instance_logits = self.head(self.embed(bags.features))
        return MILOutput(logits=self.pool(instance_logits, bags), instance_logits=instance_logits)


class Mean(_InstanceClassifier):
    """Mean of the tiles' logits."""

    card = ModelCard(summary="Mean of the tiles' logits", paper="", attention=False, permutation_invariant=True)

    def pool(self, instance_logits: Tensor, bags: Bags) -> Tensor:
        """Mean over instances."""
        return mean_over_instances(instance_logits, bags)


class Max(_InstanceClassifier):
    """Maximum of the tiles' logits, each class by itself; it learns from at most C tiles a bag and step."""

    card = ModelCard(
        summary="Maximum of the tiles' logits, class by class", paper="", attention=False, permutation_invariant=True
    )

    def pool(self, instance_logits: Tensor, bags: Bags) -> Tensor:
        """Maximum over instances."""
        return max_over_instances(instance_logits, bags)
