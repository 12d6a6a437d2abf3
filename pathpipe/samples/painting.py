"""Painting one demo slide: real tissue inside smooth shapes on white glass, with regions of another tissue set in."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Polygon = npt.NDArray[np.float64]  # (V, 2) x, y in px of the picture
_WHITE = (243, 242, 244)


@dataclass(frozen=True)
class Recipe:
    """What one slide shows. Lengths are um.

    Attributes:
        size_um: (width, height) of the glass.
        implants: How many regions are set in.
        foreign: Whether they are of the other tissue; if not, they are moved pieces of the same tissue, so that
            the traces of setting in say nothing about the label.
        blank: No tissue at all.
        pen: A stroke of blue ink.
    """

    size_um: tuple[float, float]
    implants: int
    foreign: bool
    blank: bool = False
    pen: bool = False


@dataclass(frozen=True)
class Painting:
    """A picture, (H, W, 3) uint8, and the outlines of what was set in, in its pixels."""

    image: Image
    implants: tuple[Polygon, ...]


def paint(recipe: Recipe, tissue: Image, other: Image, um_px: float, rng: np.random.Generator) -> Painting:
    """Paint a slide at `um_px`.

    Args:
        tissue: The main tissue at that resolution, (H, W, 3).
        other: The other tissue at that resolution, (H, W, 3).
    """
    width, height = (round(side / um_px) for side in recipe.size_um)
    glass = np.empty((height, width, 3), np.float32)
    glass[:] = _WHITE
    implants: list[Polygon] = []
    if not recipe.blank:
        section = _cover(tissue, (height, width), rng)
        shape = _blob((height, width), rng)
        for _ in range(recipe.implants):
            outline = _outline(shape, rng.uniform(75, 115) / um_px, rng)
            source = _cover(other if recipe.foreign else tissue, (height, width), rng)
            soft = _soft_mask(outline, (height, width), 3 / um_px)
            section = section * (1 - soft) + source * soft
            implants.append(outline)
        section = _restain(section, rng)
        soft_edge = cv2.GaussianBlur(shape.astype(np.float32), (0, 0), 4 / um_px)[..., None]
        glass = glass * (1 - soft_edge) + section * soft_edge
    if recipe.pen:
        _draw_pen(glass, rng)
    noise = rng.normal(0, 1.2, (height, width, 1)).astype(np.float32)
    return Painting(np.clip(glass + noise, 0, 255).astype(np.uint8), tuple(implants))


def _cover(texture: Image, shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Fill a shape with the texture, turned, mirrored and shifted at random; edges meet as in a mirror."""
    turned = np.rot90(texture, rng.integers(4))
    if rng.integers(2):
        turned = turned[:, ::-1]
    shift = tuple(int(rng.integers(side)) for side in turned.shape[:2])
    rows = _mirror_index(shape[0], turned.shape[0], shift[0])
    columns = _mirror_index(shape[1], turned.shape[1], shift[1])
    return turned[rows][:, columns].astype(np.float32)


def _mirror_index(length: int, period: int, shift: int) -> npt.NDArray[np.intp]:
    index = (np.arange(length) + shift) % (2 * period)
    return np.where(index < period, index, 2 * period - 1 - index)


def _blob(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A smooth outline that leaves a white border."""
    height, width = shape
    yy, xx = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = np.arctan2(yy, xx)
    radius = np.full_like(angle, 0.82)
    for wave in range(2, 6):
        radius += rng.uniform(0.01, 0.06) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(np.hypot(xx, yy) < np.minimum(radius, 0.93))


def _outline(shape: npt.NDArray[np.bool_], radius_px: float, rng: np.random.Generator) -> Polygon:
    """A wavy circle that lies inside the tissue."""
    inner = cv2.distanceTransform(shape.astype(np.uint8), cv2.DIST_L2, 3) > radius_px
    rows, columns = np.nonzero(inner if inner.any() else shape)
    at = rng.integers(len(rows))
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = radius_px * (
        1 + 0.12 * np.cos(2 * angle + rng.uniform(0, 6)) + 0.08 * np.cos(3 * angle + rng.uniform(0, 6))
    )
    return np.stack([columns[at] + radius * np.cos(angle), rows[at] + radius * np.sin(angle)], axis=1)


def _soft_mask(outline: Polygon, shape: tuple[int, int], feather_px: float) -> npt.NDArray[np.float32]:
    mask = np.zeros(shape, np.float32)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1.0)
    return cv2.GaussianBlur(mask, (0, 0), feather_px)[..., None]


def _restain(section: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Vary the amount of stain: optical density scaled a little, per colour channel (Beer-Lambert)."""
    density = -np.log((section + 1) / 256)
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3)
    return np.asarray(256 * np.exp(-density * gain) - 1, dtype=np.float32)


def _draw_pen(glass: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    height, width = glass.shape[:2]
    along = np.linspace(0.05, 0.95, 40)
    x = along * width
    y = height * (0.12 + 0.05 * np.sin(along * 9 + rng.uniform(0, 6)))
    points = np.round(np.stack([x, y], axis=1)).astype(np.int32)
    cv2.polylines(glass, [points], False, (38.0, 62.0, 170.0), thickness=max(2, height // 28), lineType=cv2.LINE_AA)
