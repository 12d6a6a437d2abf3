"""CONCH and CONCH v1.5: a ViT whose tokens are read by one learned query (attentional pooling, as in CoCa).

References: Lu et al., Nature Medicine 2024 (CONCH); Ding et al., TITAN, 2025 (v1.5); Yu et al., CoCa, TMLR 2022.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional


class MultiHeadPooler(nn.Module):
    """One query attends over tokens through torch's own attention, whose keys have another width (CONCH)."""

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, dim))
        self.attn = nn.MultiheadAttention(dim, heads, kdim=context_dim, vdim=context_dim, batch_first=True)
        self.ln_q = nn.LayerNorm(dim)
        self.ln_k = nn.LayerNorm(context_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, context_dim) -> (N, dim)."""
        context = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        return self.attn(query, context, context, need_weights=False)[0][:, 0]


class PlainPooler(nn.Module):
    """The same with projections that have no bias (CONCH v1.5)."""

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(1, dim))
        self.ln_k = nn.LayerNorm(context_dim)
        self.ln_q = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, T, context_dim) -> (N, dim)."""
        query = self._split(self.to_q(self.ln_q(self.query))).expand(len(tokens), -1, -1, -1)
        key, value = (self._split(part) for part in self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1))
        read = functional.scaled_dot_product_attention(query, key, value)  # (N, heads, 1, dim / heads)
        return self.to_out(read.transpose(1, 2).flatten(2))[:, 0]

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        if values.dim() == 2:
            values = values[None]
        return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, T, dim / heads)


class ConchTower(nn.Module):
    """Trunk, pooler and norm: the image embedding before the contrastive projection.

    Args:
        stretched: Positions of the trunk's own grid are stretched to the input's by DINO's interpolation at every
            forward (CONCH v1.5); else the trunk's grid is the input's.
    """

    def __init__(self, trunk: nn.Module, pooler: nn.Module, dim: int, stretched: int | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = pooler
        self.ln_contrast = nn.LayerNorm(dim)
        self.stretched = stretched
        self.num_features = dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 448, 448) -> (N, dim)."""
        tokens = self.trunk.forward_features(images) if self.stretched is None else self._stretch(images)  # type: ignore[operator]
        return self.ln_contrast(self.attn_pool_contrast(tokens))

    def _stretch(self, images: torch.Tensor) -> torch.Tensor:
        trunk: Any = self.trunk
        patches = trunk.patch_embed(images).flatten(1, 2)  # (N, T, C)
        token, own = trunk.pos_embed[:, :1], trunk.pos_embed[:, 1:]
        side, wanted = int(own.shape[1] ** 0.5), int(patches.shape[1] ** 0.5)
        if side != wanted:
            # DINO adds 0.1 to be safe from rounding; the factor, and with it every position, follows
            grid = own.unflatten(1, (side, side)).permute(0, 3, 1, 2)
            factor = (wanted + 0.1) / side
            grid = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
            own = grid.permute(0, 2, 3, 1).flatten(1, 2)
        first = trunk.cls_token.expand(len(images), -1, -1) + token
        tokens = torch.cat([first, patches + own], dim=1)
        return trunk.norm(trunk.blocks(tokens))


def conch(**arguments: Any) -> nn.Module:
    """CONCH's image tower: ViT-B/16 at 448 px, one query of 8 heads; (N, 3, 448, 448) -> (N, 512)."""
    trunk = timm.create_model(
        "vit_base_patch16_224", pretrained=False, num_classes=0, img_size=448, dynamic_img_size=True, **arguments
    )
    return ConchTower(trunk, MultiHeadPooler(512, trunk.num_features, heads=8), 512)


def conch_v1_5(**arguments: Any) -> nn.Module:
    """CONCH v1.5's image tower: ViT-L/16 with a 14x14 grid of positions; (N, 3, 448, 448) -> (N, 768)."""
    trunk = timm.create_model(
        "vit_large_patch16_224", pretrained=False, num_classes=0, init_values=1.0, dynamic_img_size=True, **arguments
    )
    return ConchTower(trunk, PlainPooler(768, trunk.num_features, heads=8), 768, stretched=14)
