"""RRT-MIL: tiles embedded anew by attention within and across regions of the slide, then attention pooling."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from pathpipe.mil.bag import Bags
from pathpipe.mil.grid import from_regions, to_regions
from pathpipe.mil.loop import join_outputs
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.region_attention import CrossRegionAttention, MultiHeadAttention
from pathpipe.settings import Settings


class RrtOptions(Settings):
    """Options of RRT-MIL."""

    hidden: int = Field(512, ge=1, description="Width of a tile's embedding, divisible by the number of heads")
    heads: int = Field(8, ge=1, description="Attention heads")
    layers: int = Field(1, ge=0, description="Layers of attention within regions")
    regions: int = Field(8, ge=1, description="The bag's square is cut into REGIONS x REGIONS")
    kernel: int = Field(15, ge=1, description="Odd length of the position encoding's convolution (epeg_k)")
    cross_tokens: int = Field(3, ge=1, description="Summaries of a region in the attention across regions (crmsa_k)")
    shortcut: bool = Field(False, description="Add the embedding before all attention to that after it (all_shortcut)")
    attention_dim: int = Field(128, ge=1, description="Width of the attention pooling")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of the tile embedding in training")
    attention_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout after each attention in training")

    @model_validator(mode="after")
    def _divisible(self) -> RrtOptions:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be divisible by heads ({self.heads})")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel ({self.kernel}) must be odd")
        return self


class Rrt(StagedModule):
    """RRT-MIL (R2T): regional re-embedding, then attention-based MIL.

    The tiles fill a square in the order of the bag, so order matters. As in the published code the zeros that fill the
    square up aren't masked, and with at most regions^2 tiles a region holds one tile: attention within it is trivial
    and attention across regions hands nothing back. Set `cross_tokens`, `kernel` and `shortcut` by the encoder and
    cohort: the authors did.

    Reference: Tang et al., Feature Re-Embedding: Towards Foundation Model-Level Performance in Computational
    Pathology, CVPR 2024, arXiv:2402.17228.
    """

    card = ModelCard(
        summary="Tiles embedded anew by attention within and across regions, then attention pooling",
        paper="Tang et al., Feature Re-Embedding: Towards Foundation Model-Level Performance in Computational "
        "Pathology, CVPR 2024, arXiv:2402.17228",
        attention=True,
        permutation_invariant=False,
    )
    Options: ClassVar[type[Settings]] = RrtOptions

    def __init__(self, dim_in: int, dim_out: int, options: RrtOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width, heads = options.hidden, options.heads
        self.regions, self.shortcut = options.regions, options.shortcut
        self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU(), nn.Dropout(options.dropout))
        within = [
            MultiHeadAttention(width, heads, options.attention_dropout, options.kernel) for _ in range(options.layers)
        ]
        across = CrossRegionAttention(width, heads, options.cross_tokens, options.attention_dropout)
        self.attentions = nn.ModuleList([*within, across])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.attentions)
        self.norm = nn.LayerNorm(width)
        self.score = nn.Sequential(
            nn.Linear(width, options.attention_dim, bias=False),
            nn.Tanh(),
            nn.Linear(options.attention_dim, 1, bias=False),
        )
        self.head = nn.Linear(width, dim_out)
        init_linear(self)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits, attention and instance logits of embedded instances, bag by bag."""
        return join_outputs([self._one(bag.features) for bag in hidden.single()], hidden)

    def _one(self, tiles: Tensor) -> MILOutput:
        """Output of one bag (N, L)."""
        again = self.norm(self._embedded_again(tiles))
        raw = self.score(again)
        attention = raw.softmax(0)
        embedding = attention.T @ again
        return MILOutput(
            logits=self.head(embedding),
            embedding=embedding,
            attention=attention,
            attention_raw=raw,
            instance_logits=self.head(again),
        )

    def _embedded_again(self, tiles: Tensor) -> Tensor:
        """(N, L) -> (N, L)."""
        again = tiles
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            regions = attention(to_regions(norm(again), self.regions))
            again = again + from_regions(regions, len(again))
        return again + tiles if self.shortcut else again
