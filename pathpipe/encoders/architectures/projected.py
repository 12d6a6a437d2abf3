"""ViTs of vision-language models whose image embedding is a projection of the class token (PLIP, KEEP).

References: Huang et al., Nature Medicine 2023 (PLIP); Zhou et al., Cancer Cell 2026 (KEEP); Radford et al., CLIP, 2021.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional


class Projected(nn.Module):
    """A trunk and a head on its class token; optionally scaled to length 1."""

    def __init__(self, trunk: nn.Module, head: nn.Sequential, dim: int, unit: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.unit = unit
        self.num_features = dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, 224, 224) -> (N, dim)."""
        projected = self.head(self.trunk(images))
        return functional.normalize(projected, dim=-1) if self.unit else projected


def plip(**arguments: Any) -> nn.Module:
    """CLIP ViT-B/32 with OpenAI's GELU and its projection; (N, 3, 224, 224) -> (N, 512), not normalised."""
    trunk = timm.create_model("vit_base_patch32_clip_quickgelu_224", pretrained=False, num_classes=0, **arguments)
    return Projected(trunk, nn.Sequential(nn.Linear(trunk.num_features, 512, bias=False)), 512, unit=False)


def keep(**arguments: Any) -> nn.Module:
    """ViT-L/16 with LayerScale and a head of two layers; (N, 3, 224, 224) -> (N, 768) of length 1."""
    trunk = timm.create_model("vit_large_patch16_224", pretrained=False, num_classes=0, init_values=1e-5, **arguments)
    head = nn.Sequential(nn.Linear(trunk.num_features, 768), nn.GELU(), nn.Linear(768, 768))
    return Projected(trunk, head, 768, unit=True)
