"""Bags laid out on a square in the order of their tiles, for methods that convolve or divide it."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


def square_side(count: int) -> int:
    """Side of the smallest square with room for `count` tiles."""
    return isqrt(count - 1) + 1


def wrapped_to_square(tokens: Tensor) -> Tensor:
    """(N, L) -> (side^2, L): the first tokens once more at the end."""
    return torch.cat([tokens, tokens[: square_side(len(tokens)) ** 2 - len(tokens)]])


def to_regions(tokens: Tensor, regions: int) -> Tensor:
    """(N, L) -> (regions^2, p, L): zeros up to a square that `regions` divides, cut into regions x regions squares."""
    size = -(-square_side(len(tokens)) // regions)  # of one region
    side = regions * size
    filled = pad(tokens, (0, 0, 0, side * side - len(tokens)))
    return filled.view(regions, size, regions, size, -1).transpose(1, 2).flatten(2, 3).flatten(0, 1)


def from_regions(parts: Tensor, count: int) -> Tensor:
    """Inverse of `to_regions`: (regions^2, p, L) -> (count, L)."""
    regions, size = isqrt(parts.shape[0]), isqrt(parts.shape[1])
    square = parts.view(regions, regions, size, size, -1).transpose(1, 2)
    return square.reshape((regions * size) ** 2, -1)[:count]


class Ppeg(nn.Module):
    """Pyramid position encoding: depthwise 7x7, 5x5 and 3x3 convolutions over the square, added to it.

    Convolutions are linear, so the three run as one with their kernels added.

    Reference: Shao et al., TransMIL, NeurIPS 2021, arXiv:2106.00908.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seven = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.five = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.three = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, side^2, L) -> (B, side^2, L)."""
        side = isqrt(tokens.shape[1])
        image = tokens.mT.unflatten(2, (side, side))
        kernel = self.seven.weight + pad(self.five.weight, (1, 1, 1, 1)) + pad(self.three.weight, (2, 2, 2, 2))
        image = image + conv2d(image, kernel, self._bias(), padding=3, groups=image.shape[1])
        return image.flatten(2).mT

    def _bias(self) -> Tensor:
        """(L,)."""
        biases = [conv.bias for conv in (self.seven, self.five, self.three) if conv.bias is not None]
        return torch.stack(biases).sum(0)
