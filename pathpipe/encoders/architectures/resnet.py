"""ResNet-50 cut after its third stage: the 1024 features a tile that CLAM made common.

References: He et al., CVPR 2016; Lu et al., Data-efficient and weakly supervised computational pathology, 2021.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn


class TruncatedResNet(nn.Module):
    """Stem and three stages, then the mean over the picture."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"):
            setattr(self, name, getattr(whole, name))
        self.num_features = 1024

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, 1024)."""
        modules: list[Any] = [self.conv1, self.bn1, self.act1, self.maxpool, self.layer1, self.layer2, self.layer3]
        for module in modules:
            images = module(images)
        return images.mean(dim=(2, 3))


def resnet50_trunc(**arguments: Any) -> nn.Module:
    """The network with weights at random."""
    return TruncatedResNet(timm.create_model("resnet50", pretrained=False, **arguments))
