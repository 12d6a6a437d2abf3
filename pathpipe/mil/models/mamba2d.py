"""2DMamba: a Mamba block whose state runs over the slide's plane, then attention pooling."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pathpipe.errors import StoreError
from pathpipe.mil.attention import Attention
from pathpipe.mil.bag import Bags
from pathpipe.mil.loop import join_outputs
from pathpipe.mil.mamba import MambaBlock
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule
from pathpipe.mil.models.mambamil import init_mamba
from pathpipe.mil.scan2d import Plane, plane_of, plane_scan
from pathpipe.settings import Settings


class Mamba2DOptions(Settings):
    """Options of 2DMamba."""

    hidden: int = Field(128, ge=1, description="Width of the tile embedding")
    layers: int = Field(1, ge=1, description="2DMamba blocks")
    state: int = Field(16, ge=1, description="States of each channel")
    attention_dim: int = Field(128, ge=1, description="Width of the attention network")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of the tile embedding in training")
    attend: Literal["tiles", "cells"] = Field(
        "tiles", description="What is pooled: cells with tiles, or all cells of the grid as in the published code"
    )
    zero_dt_bias: bool = Field(
        False, description="Start the step sizes near 0.69 instead of 0.001 to 0.1, as the published code does"
    )


class Mamba2D(StagedModule):
    """2DMamba over the grid of a bag's tiles; cells without a tile hold one learned token.

    The grid is the bag's own, found from its corners (`tile_step`), where the published code fixes one for a data set;
    tiles of one cell are averaged and share its attention. Pooling over `cells` lets the empty ones take part, so that
    logits depend on how much of the grid is empty; the attention that is given out is then that of the tiles alone,
    made to sum to 1. The convolution before the scan runs along the rows of the grid as one line, as in that code.
    """

    card = ModelCard(
        summary="Mamba block over the slide's plane, then attention",
        paper="Zhang et al., 2DMamba: Efficient State Space Model for Image Representation with Applications on "
        "Giga-Pixel Whole Slide Image Classification, CVPR 2025, arXiv:2412.00678",
        attention=True,
        permutation_invariant=True,
        needs_coordinates=True,
    )
    Options: ClassVar[type[Settings]] = Mamba2DOptions

    def __init__(self, dim_in: int, dim_out: int, options: Mamba2DOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden
        self.attend_cells = options.attend == "cells"
        self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.GELU(), nn.Dropout(options.dropout))
        self.empty = nn.Parameter(torch.rand(width))
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-5) for _ in range(options.layers))
        self.blocks = nn.ModuleList(MambaBlock(width, "mamba", options.state) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width)
        self.attend = Attention(width, options.attention_dim)
        self.head = nn.Linear(width, dim_out)
        init_mamba(self, options.zero_dt_bias)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits, attention and instance logits of embedded instances, bag by bag.

        Raises:
            StoreError: The bags have no coordinates.
        """
        if hidden.xy0 is None:
            raise StoreError("2DMamba needs the tiles' coordinates", hint="extract features with coordinates")
        return join_outputs([self._one(bag.features, _plane(bag)) for bag in hidden.single()], hidden)

    def _one(self, tiles: Tensor, plane: Plane) -> MILOutput:
        """Output of one bag (N, L)."""
        cells = plane.spread(tiles, self.empty)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            cells = cells + block(norm(cells), [len(cells)], partial(plane_scan, width=plane.width))
        cells = self.norm(cells)
        scores = self.attend(cells)  # (cells, 1)
        empty = plane.counts[:, None] == 0
        weights = (scores if self.attend_cells else scores.masked_fill(empty, float("-inf"))).softmax(0)
        embedding = weights.T @ cells
        # Tiles of one cell share its attention.
        raw = (scores - plane.counts.clamp_min(1).log()[:, None])[plane.cell]
        return MILOutput(
            logits=self.head(embedding),
            embedding=embedding,
            attention=raw.softmax(0),
            attention_raw=raw,
            instance_logits=self.head(cells)[plane.cell],
        )


def _plane(bag: Bags) -> Plane:
    """The plane of one bag, on its device."""
    assert bag.xy0 is not None
    plane, device = plane_of(bag.xy0), bag.features.device
    return Plane(plane.cell.to(device), plane.height, plane.width, plane.counts.to(device))
