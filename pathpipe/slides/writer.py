"""Writing a small slide: an Aperio-style pyramidal TIFF that OpenSlide takes for what it says it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from pathpipe.slides.slide import Pixels


@dataclass(frozen=True)
class SvsFormat:
    """How the pixels are kept.

    Attributes:
        quality: JPEG quality, or None for a lossless file.
        tile_px: Side of the stored tiles; a multiple of 16.
    """

    quality: int | None = 88
    tile_px: int = 240


def write_svs(
    path: Path,
    levels: Sequence[Pixels],
    mpp: float | None,
    objective: float | None = None,
    form: SvsFormat | None = None,
) -> None:
    """Write levels as an SVS file.

    Args:
        levels: (H, W, 3) uint8 each, the finest first.
        mpp: um/px of the first level; left out of the file when None.
        objective: Objective power; left out when None.
    """
    form = form or SvsFormat()
    with tifffile.TiffWriter(path, bigtiff=False) as writer:
        for index, level in enumerate(levels):
            options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "software": False}
            if form.quality is None:
                options |= {"compression": "zlib"}
            else:
                options |= {"compression": "jpeg", "compressionargs": {"level": form.quality}}
            description = _description(levels[0], level, mpp, objective)
            if index == 1:
                # Aperio's second page is a small striped thumbnail; readers rely on its place.
                thumbnail = shrink(levels[0], max(1, max(levels[0].shape[:2]) // 512))
                writer.write(
                    thumbnail,
                    **{**options, "rowsperstrip": 16},
                    description=_description(levels[0], thumbnail, mpp, objective),
                )
            writer.write(level, **options, tile=(form.tile_px, form.tile_px), description=description)


def shrink(image: Pixels, factor: int) -> Pixels:
    """Mean over blocks of factor x factor px; a rest at the right and lower edge is left out."""
    if factor == 1:
        return image
    height, width = (side // factor for side in image.shape[:2])
    blocks = image[: height * factor, : width * factor]
    return np.asarray(cv2.resize(blocks, (width, height), interpolation=cv2.INTER_AREA))


def _description(first: Pixels, level: Pixels, mpp: float | None, objective: float | None) -> str:
    (height0, width0), (height, width) = first.shape[:2], level.shape[:2]
    text = f"Aperio Image Library v12.0.0\r\n{width0}x{height0} [0,0 {width0}x{height0}] -> {width}x{height}"
    text += f"|AppMag = {objective:g}" if objective is not None else ""
    return text + (f"|MPP = {mpp:.6g}" if mpp is not None else "")
