"""Painting one demo slide: real tissue inside smooth shapes on white glass, with regions of another tissue set in."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Polygon = npt.NDArray[np.float64]  # (V, 2) x, y in px of the picture
_WHITE = (243, 242, 244)
_COARSE = 8


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
    picture: Image = np.empty((height, width, 3), np.uint8)
    picture[:] = _WHITE
    implants: list[Polygon] = []
    if not recipe.blank:
        stain = _stain(rng)
        section = _cover(stain[tissue, [0, 1, 2]], (height, width), rng)
        source = stain[other, [0, 1, 2]] if recipe.foreign else stain[tissue, [0, 1, 2]]
        inside = _blob((height, width), rng)
        for _ in range(recipe.implants):
            outline = _outline(inside, rng.uniform(50, 90) / um_px, rng)
            _set_in(section, source, outline, 3 / um_px, rng)
            implants.append(outline)
        edge = cv2.resize(inside.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        edge = np.asarray(cv2.GaussianBlur(edge, (0, 0), 2 / um_px), np.float32)
        picture = np.asarray(cv2.blendLinear(section, picture, edge, 1 - edge), np.uint8)
    if recipe.pen:
        _draw_pen(picture, rng)
    return Painting(_with_noise(picture, rng), tuple(implants))


def _stain(rng: np.random.Generator) -> Image:
    """(256, 3) table that varies the amount of stain: optical density scaled a little, per channel (Beer-Lambert)."""
    density = -np.log((np.arange(256)[:, None] + 1) / 256)
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3)
    return np.clip(np.round(256 * np.exp(-density * gain) - 1), 0, 255).astype(np.uint8)


def _set_in(section: Image, source: Image, outline: Polygon, feather_px: float, rng: np.random.Generator) -> None:
    """Replace what lies inside an outline, with a soft edge; `section` is changed in place."""
    margin = int(4 * feather_px) + 1
    x1, y1 = np.maximum(outline.min(axis=0).astype(int) - margin, 0)
    x2, y2 = np.minimum(outline.max(axis=0).astype(int) + margin, section.shape[1::-1])
    soft = np.zeros((y2 - y1, x2 - x1), np.float32)
    cv2.fillPoly(soft, [np.round(outline - (x1, y1)).astype(np.int32)], 1.0)
    soft = np.asarray(cv2.GaussianBlur(soft, (0, 0), feather_px), np.float32)
    piece = _cover(source, soft.shape, rng)
    section[y1:y2, x1:x2] = cv2.blendLinear(piece, np.ascontiguousarray(section[y1:y2, x1:x2]), soft, 1 - soft)


def _cover(texture: Image, shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """Fill a shape with the texture, turned, mirrored and shifted at random; edges meet as in a mirror."""
    turned = np.rot90(texture, int(rng.integers(4)))
    if rng.integers(2):
        turned = turned[:, ::-1]
    shift = tuple(int(rng.integers(side)) for side in turned.shape[:2])
    rows = _mirror_index(shape[0], turned.shape[0], shift[0])
    columns = _mirror_index(shape[1], turned.shape[1], shift[1])
    return np.ascontiguousarray(turned[rows][:, columns])


def _mirror_index(length: int, period: int, shift: int) -> npt.NDArray[np.intp]:
    index = (np.arange(length) + shift) % (2 * period)
    return np.where(index < period, index, 2 * period - 1 - index)


def _blob(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A smooth outline that leaves a white border, on a grid of 1/8 of the pixels."""
    yy, xx = np.mgrid[-1 : 1 : shape[0] // _COARSE * 1j, -1 : 1 : shape[1] // _COARSE * 1j]
    angle = np.arctan2(yy, xx)
    radius = np.full_like(angle, 0.82)
    for wave in range(2, 6):
        radius += rng.uniform(0.01, 0.06) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(np.hypot(xx, yy) < np.minimum(radius, 0.93))


def _outline(inside: npt.NDArray[np.bool_], radius_px: float, rng: np.random.Generator) -> Polygon:
    """A wavy circle that lies inside the tissue, in px of the picture."""
    inner = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3) > radius_px / _COARSE
    rows, columns = np.nonzero(inner if inner.any() else inside)
    at = rng.integers(len(rows))
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = 0.12 * np.cos(2 * angle + rng.uniform(0, 6)) + 0.08 * np.cos(3 * angle + rng.uniform(0, 6))
    radius = radius_px * (1 + waves)
    centre = np.array([columns[at], rows[at]]) * _COARSE
    return centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _draw_pen(picture: Image, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    along = np.linspace(0.05, 0.95, 40)
    y = height * (0.12 + 0.05 * np.sin(along * 9 + rng.uniform(0, 6)))
    points = np.round(np.stack([along * width, y], axis=1)).astype(np.int32)
    cv2.polylines(picture, [points], False, (38, 62, 170), thickness=max(2, height // 28), lineType=cv2.LINE_AA)


def _with_noise(picture: Image, rng: np.random.Generator) -> Image:
    """Sensor noise: a patch of it, repeated."""
    height, width = picture.shape[:2]
    patch = np.round(rng.normal(0, 1.2, (512, 512, 1))).astype(np.int16).repeat(3, axis=2)
    noise = np.tile(patch, (height // 512 + 1, width // 512 + 1, 1))[:height, :width]
    return np.asarray(cv2.add(picture, np.ascontiguousarray(noise), dtype=cv2.CV_8U), np.uint8)
