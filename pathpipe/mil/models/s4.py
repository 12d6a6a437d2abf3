"""S4MIL: a structured state space model over the sequence of tiles, then the maximum of each channel."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from pathpipe.mil.bag import Bags
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.pooling import max_over_instances
from pathpipe.mil.s4d import S4D
from pathpipe.settings import Settings

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class S4Options(Settings):
    """Options of S4MIL."""

    hidden: int = Field(512, ge=1, description="Width of a tile's embedding")
    state: int = Field(32, ge=2, multiple_of=2, description="Size of a channel's state")
    activation: Literal["relu", "gelu"] = Field("relu", description="Activation of the tile embedding")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of the tile embedding in training")


class S4Mil(StagedModule):
    """S4MIL.

    The tiles are a sequence in the order of the bag: a tile's output depends on it and those before it. The head is
    linear in the channels' maxima, so `instance_logits` are what a tile's own channels would give. The linear layers
    start as attention MIL's do, as in the code of MambaMIL's authors.

    Reference: Fillioux et al., Structured State Space Models for Multiple Instance Learning in Digital Pathology,
    MICCAI 2023, arXiv:2306.15789.
    """

    card = ModelCard(
        summary="State space model over the sequence of tiles, then the maximum",
        paper="Fillioux et al., Structured State Space Models for Multiple Instance Learning in Digital Pathology, "
        "MICCAI 2023, arXiv:2306.15789",
        attention=False,
        permutation_invariant=False,
    )
    Options: ClassVar[type[Settings]] = S4Options

    def __init__(self, dim_in: int, dim_out: int, options: S4Options) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden
        self.embed = nn.Sequential(
            nn.Linear(dim_in, width), _ACTIVATIONS[options.activation](), nn.Dropout(options.dropout)
        )
        self.norm = nn.LayerNorm(width)
        self.states = S4D(width, options.state // 2)
        self.head = nn.Linear(width, dim_out)
        init_linear(self)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits and instance logits of embedded instances."""
        tiles = self.states(hidden.with_features(self.norm(hidden.features))).features
        embedding = max_over_instances(tiles, hidden)
        return MILOutput(self.head(embedding), embedding, instance_logits=self.head(tiles))
