"""The arithmetic of stain normalisation: batches of tiles on any device, each tile by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

WHITE = 240.0  # grey level of light that met no tissue
_PALE = 0.15  # optical density below which a channel counts as light that met no tissue
_ALPHA = 0.01  # share of pixels left out at both ends of the stains' angles
_STRONG = 0.99  # quantile of the concentrations that counts as full strength
_SAMPLES_PER_SIDE = 128  # a tile is measured on at most about 255 x 255 of its pixels, evenly spaced
_MIN_SHARE, _MIN_PIXELS = 0.05, 16  # less tissue than this says little of the stains
_MIN_SINE2 = 0.005  # squared sine of the angle between two stains (4 degrees): less is one colour
_MIN_STRENGTH = 0.01
_MIN_SPREAD = 0.5  # standard deviation of L*, a*, b*: less is one colour
_CHUNK = 16  # tiles worked on together: bounds memory
# sRGB to XYZ of D65 (IEC 61966-2-1), scaled to that white
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_D65 = (0.95047, 1.0, 1.08883)


@dataclass(frozen=True)
class Measured:
    """What was measured on each tile.

    Attributes:
        first: Macenko: (N, 3, 2) unit stain vectors, haematoxylin first. Reinhard: (N, 3) means of L*, a*, b*.
        second: Macenko: (N, 2) strengths. Reinhard: (N, 3) standard deviations.
        usable: (N,) bool; False where there is too little tissue, or only one colour.
    """

    first: Tensor
    second: Tensor
    usable: Tensor


def measure(method: str, tiles: Tensor) -> Measured:
    """Measure the stains of each tile.

    Args:
        method: `macenko` or `reinhard`.
        tiles: (N, H, W, 3) uint8 RGB.

    Returns:
        float64 numbers.

    Reference:
        Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009.
        Reinhard et al., Color transfer between images, IEEE CG&A 21 (2001); here in CIELAB, over tissue.
    """
    step = max(1, min(tiles.shape[1:3]) // _SAMPLES_PER_SIDE)
    sample = _planes(tiles[:, ::step, ::step]).double()  # (N, 3, P)
    density = -torch.log((sample + 1) / WHITE)
    tissue = (density >= _PALE).all(dim=1)  # (N, P)
    enough = tissue.sum(dim=1) >= max(_MIN_PIXELS, math.ceil(_MIN_SHARE * sample.shape[2]))
    if method == "macenko":
        return _two_stains(density, tissue, enough)
    lab = _to_lab(sample / 255)
    count = tissue.sum(dim=1, keepdim=True).clamp(min=1)
    weight = tissue[:, None].double()
    mean = (lab * weight).sum(dim=2) / count
    spread = (((lab - mean[..., None]) * weight) ** 2).sum(dim=2).div(count).sqrt()
    return Measured(mean, spread, enough & (spread >= _MIN_SPREAD).all(dim=1))


def _planes(tiles: Tensor) -> Tensor:
    """(N, H, W, 3) -> (N, 3, H * W) in one piece: arithmetic on planes is several times faster than on pixels."""
    return tiles.permute(0, 3, 1, 2).reshape(len(tiles), 3, -1)


def _two_stains(density: Tensor, tissue: Tensor, enough: Tensor) -> Measured:
    count = tissue.sum(dim=1)
    weight = tissue[:, None].double()
    mean = (density * weight).sum(dim=2, keepdim=True) / count.clamp(min=1)[:, None, None]
    centred = (density - mean) * weight
    covariance = centred @ centred.mT / (count - 1).clamp(min=1)[:, None, None]
    plane = torch.linalg.eigh(covariance).eigenvectors[..., [2, 1]]  # (N, 3, 2), the main direction first
    # a solver may give a direction or its opposite: the main one shall point to more of all colours
    plane = torch.where(plane.sum(dim=1, keepdim=True) < 0, -plane, plane)
    within = plane.mT @ density  # (N, 2, P)
    low, high = _quantiles(torch.atan2(within[:, 1], within[:, 0]), tissue, (_ALPHA, 1 - _ALPHA))
    ends = [plane[..., 0] * one.cos()[:, None] + plane[..., 1] * one.sin()[:, None] for one in (low, high)]
    red_first = (ends[0][:, 0] > ends[1][:, 0])[:, None]  # haematoxylin takes more of the red
    stains = torch.stack(
        [torch.where(red_first, ends[0], ends[1]), torch.where(red_first, ends[1], ends[0])], dim=2
    )  # (N, 3, 2)
    amounts = _unmix(stains) @ density  # (N, 2, P)
    everywhere = torch.ones_like(tissue)
    strength = torch.cat([_quantiles(amounts[:, one], everywhere, (_STRONG,)) for one in (0, 1)]).mT
    sine2 = 1 - (stains[..., 0] * stains[..., 1]).sum(dim=1) ** 2
    return Measured(stains, strength, enough & (sine2 >= _MIN_SINE2) & (strength >= _MIN_STRENGTH).all(dim=1))


def _unmix(stains: Tensor) -> Tensor:
    """(N, 2, 3) from optical density to amounts of two unit stains, by least squares."""
    first, second = stains[..., 0], stains[..., 1]
    cosine = (first * second).sum(dim=1)[:, None]
    sine2 = (1 - cosine**2).clamp(min=1e-9)
    return torch.stack([first - cosine * second, second - cosine * first], dim=1) / sine2[..., None]


def _quantiles(values: Tensor, counted: Tensor, shares: tuple[float, ...]) -> Tensor:
    """(len(shares), N) quantiles of each row of (N, P) over its counted values, interpolated; 0 where none counts."""
    ordered = values.masked_fill(~counted, torch.inf).sort(dim=1).values
    last = counted.sum(dim=1) - 1
    found = []
    for share in shares:
        place = share * last.clamp(min=0).double()
        below = place.floor().long()
        above = torch.minimum(below + 1, last.clamp(min=0))
        low, high = (ordered.gather(1, at[:, None])[:, 0] for at in (below, above))
        found.append(torch.where(last >= 0, torch.lerp(low, high, place - below), torch.zeros_like(low)))
    return torch.stack(found)


def normalise(method: str, tiles: Tensor, target: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Give tiles the stains of a target; tiles that can't be measured stay as they are.

    Args:
        method: `macenko` or `reinhard`.
        tiles: (N, H, W, 3) uint8 RGB.
        target: `first` and `second` of `Measured`, without N.

    Returns:
        (N, H, W, 3) uint8, and (N,) bool: which tiles were changed.
    """
    done = [_normalise(method, chunk, target) for chunk in tiles.split(_CHUNK)]
    return torch.cat([one for one, _ in done]), torch.cat([one for _, one in done])


def _normalise(method: str, tiles: Tensor, target: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    measured = measure(method, tiles)
    first, second = (one.to(tiles.device, torch.float64) for one in target)
    before = _planes(tiles).float()
    density = -torch.log((before + 1) / WHITE)
    gain = second / measured.second.clamp(min=1e-9)
    if method == "macenko":
        mix = first @ (gain[..., None] * _unmix(measured.first))  # (N, 3, 3)
        after = WHITE * torch.exp(-_mixed(mix.float(), density)) - 1
    else:
        lab = _to_lab(before / 255)
        moved = (lab - measured.first.float()[..., None]) * gain.float()[..., None] + first.float()[:, None]
        # glass has no stain to change: from clear to pale, pixels are changed more and more
        share = (density.mean(dim=1, keepdim=True) / _PALE).clamp(0, 1)
        after = torch.lerp(before, 255 * _to_rgb(moved), share)
    after = torch.where(measured.usable[:, None, None], after.clamp(0, 255).round(), before).to(torch.uint8)
    n, height, width, _ = tiles.shape
    return after.view(n, 3, height, width).permute(0, 2, 3, 1).contiguous(), measured.usable


def _mixed(matrix: Tensor, planes: Tensor) -> Tensor:
    """(N or 1, 3, 3) times (N, 3, P), term by term: the sum of a pixel never depends on its batch."""
    rows = [
        matrix[:, row, 0, None] * planes[:, 0]
        + matrix[:, row, 1, None] * planes[:, 1]
        + matrix[:, row, 2, None] * planes[:, 2]
        for row in range(3)
    ]
    return torch.stack(rows, dim=1)


def _to_lab(rgb: Tensor) -> Tensor:
    """(N, 3, P) sRGB, 0 to 1 -> CIELAB (L* 0 to 100)."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mixed(_relative_xyz().to(rgb), linear)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=0) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _to_rgb(lab: Tensor) -> Tensor:
    """Inverse of `_to_lab`, cut to 0 to 1."""
    y = (lab[:, 0] + 16) / 116
    roots = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], dim=1)
    xyz = torch.where(roots > 0.2068966, roots**3, (roots - 16 / 116) / 7.787)
    linear = _mixed(torch.linalg.inv(_relative_xyz()).to(lab), xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def _relative_xyz() -> Tensor:
    """(1, 3, 3) from linear RGB to XYZ relative to white."""
    return (torch.tensor(_TO_XYZ, dtype=torch.float64) / torch.tensor(_D65, dtype=torch.float64)[:, None])[None]
