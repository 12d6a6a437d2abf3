"""TransMIL: two layers of Nystrom attention over all tiles, with a convolutional position encoding in between."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import nn

from pathpipe.mil.bag import Bags
from pathpipe.mil.grid import Ppeg, wrapped_to_square
from pathpipe.mil.loop import join_outputs
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule
from pathpipe.mil.nystrom import NystromAttention
from pathpipe.settings import Settings


class TransmilOptions(Settings):
    """Options of TransMIL."""

    hidden: int = Field(512, ge=1, description="Width of a token, divisible by the number of heads")
    heads: int = Field(8, ge=1, description="Attention heads")
    landmarks: int = Field(256, ge=1, description="Landmarks of the attention")
    iterations: int = Field(6, ge=1, description="Iterations of the pseudo-inverse")
    zero_tokens: bool = Field(
        True, description="Fill the sequence up with zero tokens to a multiple of the landmarks, as the published code"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the attention's output in training")

    @model_validator(mode="after")
    def _heads_divide(self) -> TransmilOptions:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be divisible by heads ({self.heads})")
        return self


class Transmil(StagedModule):
    """TransMIL.

    The tiles fill a square in the order of the bag, the first ones repeated at its end, so order matters. A bag is
    answered by itself. Nystrom's attention may be negative and need not sum to 1, so it isn't declared as attention:
    `attention_raw` (T, heads) is what the class token takes from each tile in the first layer, without gradient, and
    `scores` its mean over the heads. The weights start as torch draws them, as in the published code.

    Reference: Shao et al., NeurIPS 2021, arXiv:2106.00908, algorithms 2 and 3.
    """

    card = ModelCard(
        summary="Transformer over all tiles by Nystrom attention, with a convolutional position encoding",
        paper="Shao et al., TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide Image "
        "Classification, NeurIPS 2021, arXiv:2106.00908",
        attention=False,
        permutation_invariant=False,
    )
    Options: ClassVar[type[Settings]] = TransmilOptions

    def __init__(self, dim_in: int, dim_out: int, options: TransmilOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden

        def attention() -> NystromAttention:
            return NystromAttention(
                width, options.heads, options.landmarks, options.iterations, options.zero_tokens, options.dropout
            )

        self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU())
        self.token = nn.Parameter(torch.randn(1, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.first, self.second = attention(), attention()
        self.position = Ppeg(width)
        self.head = nn.Linear(width, dim_out)

    def encode(self, bags: Bags) -> Bags:
        """Instances embedded: (T, L) or (B, N, L)."""
        return bags.with_features(self.embed(bags.features))

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits of embedded instances, bag by bag."""
        return join_outputs([self._one(bag) for bag in hidden.single()], hidden)

    def _one(self, bag: Bags) -> MILOutput:
        """Output of one packed bag."""
        count = len(bag.features)
        tokens = torch.cat([self.token, wrapped_to_square(bag.features)])[None]  # (1, 1 + side^2, L)
        attended, row = self.first(self.norms[0](tokens))
        tokens = (tokens + attended)[0]
        tokens = torch.cat([tokens[:1], self.position(tokens[1:])])[None]
        embedding = self.norms[2](tokens[:, 0] + self.second.first(self.norms[1](tokens)))
        raw = row[0, :, 1 : count + 1].T  # (N, H)
        return MILOutput(self.head(embedding), embedding, attention_raw=raw, scores=raw.mean(1))
