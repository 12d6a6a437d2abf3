"""Where a tile lies, as a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sincos_2d(xy: Tensor, dim: int) -> Tensor:
    """Sines and cosines of x in the first half of the channels, of y in the second.

    Wavelengths rise geometrically from 2 pi to 10,000 times that.

    Args:
        xy: (N, 2) in any unit.
        dim: Divisible by 4.

    Returns:
        (N, dim) float32.

    Reference: Vaswani et al., Attention Is All You Need, NeurIPS 2017, sec. 3.5, once an axis.
    """
    quarter = dim // 4
    rate = torch.exp(-math.log(10_000) / quarter * torch.arange(quarter, device=xy.device))
    angle = xy.float()[..., None] * rate  # (N, 2, dim / 4)
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(1)
