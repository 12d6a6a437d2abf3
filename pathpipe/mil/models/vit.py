"""A plain vision transformer over the tiles' features, read out at a class token."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pathpipe.errors import StoreError
from pathpipe.mil.bag import Bags
from pathpipe.mil.loop import join_outputs
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.position import sincos_2d
from pathpipe.settings import Settings


class VitOptions(Settings):
    """Options of the plain transformer."""

    hidden: int = Field(512, ge=4, description="Width of a token, divisible by the number of heads")
    layers: int = Field(2, ge=1, description="Transformer blocks")
    heads: int = Field(8, ge=1, description="Attention heads")
    mlp_ratio: float = Field(2.0, gt=0, description="Width of a block's MLP, in widths of a token")
    position: Literal["none", "sincos"] = Field(
        "none", description="Position encoding: none, or 2-D sines and cosines of the tiles' corners"
    )
    step_px: float = Field(256, gt=0, description="Level-0 px that count as one step of the position encoding")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the embedding and of every block's additions")

    @model_validator(mode="after")
    def _divisible(self) -> VitOptions:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be divisible by heads ({self.heads})")
        if self.position == "sincos" and self.hidden % 4:
            raise ValueError(f"hidden ({self.hidden}) must be divisible by 4 for position=sincos")
        return self


class Block(nn.Module):
    """Pre-norm transformer block: attention, then an MLP, each added to its input."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) -> (N, L) in memory linear in N."""
        query, key, value = self._split(tokens)
        attended = scaled_dot_product_attention(query[None], key[None], value[None])[0]
        return self._added(tokens, attended)

    def first(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The first token of what `forward` gives, (1, L), and its scores of all tokens before the softmax (H, N)."""
        query, key, value = self._split(tokens)
        scores = (query[:, :1] @ key.mT * query.shape[-1] ** -0.5).squeeze(1)
        return self._added(tokens[:1], scores.softmax(-1)[:, None].to(value.dtype) @ value), scores

    def _split(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values (3, H, N, d)."""
        return self.to_qkv(self.norms[0](tokens)).unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)

    def _added(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Both additions, from (n, L) tokens and (H, n, d) attended values."""
        tokens = tokens + self.dropout(self.to_out(attended.transpose(0, 1).flatten(1)))
        return tokens + self.dropout(self.mlp(self.norms[1](tokens)))


class Vit(StagedModule):
    """Plain transformer aggregator: projection, class token, pre-norm blocks, the class token to the head.

    Full attention costs N^2 time, but memory linear in N. In the last block only the class token is worked out. Its
    attention there, one column a head, is that over the tiles: the class token's share for itself is left out. With
    position=sincos positions count from the bag's own upper left corner, in steps of `step_px`.

    Reference: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv:2010.11929, eqs. 1 to 4.
    """

    card = ModelCard(
        summary="Plain transformer over all tiles, with full attention and optional 2-D positions",
        paper="Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, "
        "ICLR 2021, arXiv:2010.11929",
        attention=True,
        permutation_invariant=True,
    )
    Options: ClassVar[type[Settings]] = VitOptions
    options: VitOptions

    def __init__(self, dim_in: int, dim_out: int, options: VitOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden
        self.step_px = options.step_px if options.position == "sincos" else None
        self.card = replace(self.card, needs_coordinates=self.step_px is not None)
        self.embed = nn.Linear(dim_in, width)
        self.dropout = nn.Dropout(options.dropout)
        self.token = nn.Parameter(torch.randn(1, width) * 0.02)
        mlp_dim = max(1, round(options.mlp_ratio * width))
        self.blocks = nn.ModuleList(
            Block(width, options.heads, mlp_dim, options.dropout) for _ in range(options.layers - 1)
        )
        self.last = Block(width, options.heads, mlp_dim, options.dropout)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, dim_out)
        init_linear(self)

    def encode(self, bags: Bags) -> Bags:
        """Instances projected, their positions added: (T, L) or (B, N, L).

        Raises:
            StoreError: Positions are asked for, and a bag has no coordinates.
        """
        hidden = self.embed(bags.features)
        if self.step_px is not None:
            if bags.xy0 is None:
                raise StoreError("the tiles have no coordinates", hint="use vit with position=none")
            corners = [part - part.amin(0) for part in bags.split(bags.xy0)]
            places = [sincos_2d(corner / self.step_px, hidden.shape[-1]) for corner in corners]
            hidden = hidden + bags.join(places).to(hidden.dtype)
        return bags.with_features(self.dropout(hidden))

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits and attention of embedded instances, bag by bag."""
        return join_outputs([self._one(bag.features) for bag in hidden.single()], hidden)

    def _one(self, tiles: Tensor) -> MILOutput:
        """Output of one bag (N, L)."""
        tokens = torch.cat([self.token.to(tiles.dtype), tiles])
        for block in self.blocks:
            tokens = block(tokens)
        token, scores = self.last.first(tokens)
        embedding = self.norm(token)
        raw = scores[:, 1:].T.float() if scores.dtype != torch.float64 else scores[:, 1:].T
        return MILOutput(self.head(embedding), embedding, attention=raw.softmax(0), attention_raw=raw)
