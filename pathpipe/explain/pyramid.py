"""The pyramid: a heatmap as OME-TIFF that viewers open like a slide, in the slide's own frame and physical size."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
import tifffile

from pathpipe.explain.heatmap import Canvas, Floats, paint, value_range
from pathpipe.explain.scores import Scores
from pathpipe.settings import HeatmapSettings
from pathpipe.slides.slide import Pixels

TILE_PX = 256
SCORE = "score"
_CLASSIC = (1 << 32) - (1 << 25)  # bytes that a TIFF with offsets of 32 bits holds for certain
_ID = uuid.UUID("6f0d2f7e-7a3d-5a0b-9d59-2c1b6a7f5a11")  # files are named within this namespace, by what made them


@dataclass(frozen=True)
class Naming:
    """What the file says of itself.

    Attributes:
        slide_id: Of the slide it lies over.
        size0: (width, height) of the slide, level-0 px.
        fingerprint: Of what made it.
    """

    slide_id: str
    size0: tuple[int, int]
    fingerprint: str


def write_pyramid(path: Path, canvas: Canvas, scores: Scores, naming: Naming, settings: HeatmapSettings) -> None:
    """Write two images, both pyramids: `heatmap`, RGB, and `score`, float32 and NaN where there is no tile.

    Lower levels are SubIFDs, half as large each. Pixel (0, 0) begins at the slide's level-0 corner; the metadata hold
    the physical size of a pixel and how many level-0 px it covers. Equal input gives equal bytes.

    Reference: OME-TIFF 6.0 (sub-resolutions), https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/.
    """
    pictures = _levels(canvas.thumbnail.pixels)
    numbers = [_painted(canvas, scores, scores.score, at).astype(np.float32) for at in _places(pictures)]
    ranked = scores.ranks() if settings.scale == "percentile" else scores.score
    ends = value_range(scores, settings.scale)
    blended = [
        _blend(picture, _painted(canvas, scores, ranked, at), ends, settings)
        for picture, at in zip(pictures, _places(pictures), strict=True)
    ]
    metadata = _metadata(canvas, scores, naming, settings)
    large = sum(picture.size // 3 * 7 for picture in pictures) > _CLASSIC  # RGB and float32
    with tifffile.TiffWriter(path, bigtiff=large, ome=True) as writer:
        jpeg = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 90}}
        _write(writer, blended, {**metadata, "Name": "heatmap", "axes": "YXS"}, jpeg)
        zipped = {"photometric": "minisblack", "compression": "zlib"}
        _write(writer, numbers, {**metadata, "Name": SCORE, "axes": "YX", "Channel": {"Name": scores.kind}}, zipped)


def _places(pictures: Sequence[Pixels]) -> list[tuple[int, int, int]]:
    """Height, width and step of each level."""
    return [(picture.shape[0], picture.shape[1], 2**level) for level, picture in enumerate(pictures)]


def _write(
    writer: tifffile.TiffWriter, levels: Sequence[npt.NDArray[Any]], metadata: dict[str, Any], form: dict[str, Any]
) -> None:
    common = {**form, "tile": (TILE_PX, TILE_PX), "software": False, "resolutionunit": "CENTIMETER"}
    per_cm = (1e4 / metadata["PhysicalSizeX"], 1e4 / metadata["PhysicalSizeY"])
    for level, pixels in enumerate(levels):
        size = (per_cm[0] / 2**level, per_cm[1] / 2**level)
        if level == 0:
            writer.write(pixels, subifds=len(levels) - 1, metadata=metadata, resolution=size, **common)
        else:
            writer.write(pixels, subfiletype=1, metadata=None, resolution=size, **common)


def _metadata(canvas: Canvas, scores: Scores, naming: Naming, settings: HeatmapSettings) -> dict[str, Any]:
    x, y = canvas.thumbnail.scale0
    return {
        "UUID": str(uuid.uuid5(_ID, naming.fingerprint)),
        "Creator": "pathpipe",
        "PhysicalSizeX": x * canvas.mpp.x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": y * canvas.mpp.y,
        "PhysicalSizeYUnit": "µm",
        "Description": f"{scores.kind}, slide {naming.slide_id}",
        "MapAnnotation": {
            "slide": naming.slide_id,
            "score": scores.kind,
            "scale": settings.scale,
            "level0_px_per_px_x": repr(x),
            "level0_px_per_px_y": repr(y),
            "level0_width": str(naming.size0[0]),
            "level0_height": str(naming.size0[1]),
            "made_by": naming.fingerprint,
        },
    }


def _levels(pixels: Pixels) -> list[Pixels]:
    """A picture, halved until it fits into a tile; sizes are rounded up, so that no level ends before the slide."""
    levels = [pixels]
    while max(levels[-1].shape[:2]) > TILE_PX:
        height, width = levels[-1].shape[:2]
        padded = cv2.copyMakeBorder(levels[-1], 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        half = (math.ceil(width / 2), math.ceil(height / 2))
        levels.append(np.asarray(cv2.resize(padded, half, interpolation=cv2.INTER_AREA), np.uint8))
    return levels


def _painted(canvas: Canvas, scores: Scores, values: Floats, at: tuple[int, int, int]) -> Floats:
    (height, width, step), (x, y) = at, canvas.thumbnail.scale0
    return paint(scores.xy0, values, canvas.side0, (height, width), (x * step, y * step))


def _blend(picture: Pixels, painted: Floats, ends: tuple[float, float], settings: HeatmapSettings) -> Pixels:
    """Colours over the slide where there are tiles; the slide elsewhere."""
    low, high = ends
    scaled = (np.nan_to_num(painted, nan=low) - low) / ((high - low) or 1.0)
    palette = np.round(255 * matplotlib.colormaps[settings.colours](np.arange(256) / 255)[:, :3]).astype(np.uint8)
    colours = palette[np.clip(np.round(255 * scaled), 0, 255).astype(np.uint8)]
    mixed = cv2.addWeighted(picture, 1 - settings.opacity, colours, settings.opacity, 0)
    return np.where(np.isfinite(painted)[..., None], mixed, picture)
