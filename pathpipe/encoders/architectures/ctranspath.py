"""CTransPath: a tiny Swin whose patches come from a small convolutional stem.

Reference: Wang et al., Transformer-based unsupervised contrastive learning for histopathological image classification,
Medical Image Analysis 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn


class ConvStem(nn.Module):
    """Two strided 3x3 convolutions with normalisation, then a 1x1: 4x4 px a token, as Swin's patch embedding."""

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        **unused: Any,  # timm tells its own patch embedding about padding and formats, which a stem doesn't have
    ) -> None:
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (self.img_size[0] // patch_size, self.img_size[1] // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        channels, width = in_chans, embed_dim // 8
        for _ in range(2):
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels, width = width, width * 2
        self.proj = nn.Sequential(*layers, nn.Conv2d(channels, embed_dim, kernel_size=1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, H / 4, W / 4, C)."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


def ctranspath(**arguments: Any) -> nn.Module:
    """The network; (N, 3, 224, 224) -> (N, 768), mean of the last stage's tokens."""
    network: nn.Module = timm.create_model(
        "swin_tiny_patch4_window7_224", pretrained=False, num_classes=0, embed_layer=ConvStem, **arguments
    )
    return network
