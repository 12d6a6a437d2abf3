"""Truth: regions a person (or the demo) marked, and how well a score finds them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.evaluation.metrics import auroc
from pathpipe.tissue.geojson import Polygon, read_polygons

INSIDE = 0.5
_FIXED_POINT_BITS = 8


def read_truth(path: Path) -> list[Polygon]:
    """Polygons of a GeoJSON file in level-0 px, each an outer ring followed by its holes.

    Raises:
        StoreError: It can't be read as GeoJSON.
    """
    try:
        return read_polygons(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise StoreError(f"can't be read as GeoJSON polygons: {error!r}", where=str(path)) from None


def share_inside(
    xy0: npt.NDArray[np.int64], side0: tuple[float, float], polygons: list[Polygon], resolution: int = 16
) -> npt.NDArray[np.float64]:
    """Share of each tile that lies inside the polygons, to 1 / `resolution` of a tile's side.

    Args:
        xy0: (N, 2) tile corners, level-0 px.
    """
    if not polygons or not len(xy0):
        return np.zeros(len(xy0))
    step = np.asarray(side0) / resolution
    origin = xy0.min(axis=0)
    shape = np.ceil((xy0.max(axis=0) + np.asarray(side0) - origin) / step).astype(int)[::-1] + 1
    canvas = np.zeros((int(shape[0]), int(shape[1])), np.uint8)
    for rings in polygons:
        # all rings in one call: even-odd filling leaves a hole as it was, be it inside another polygon
        cv2.fillPoly(canvas, [_fixed((ring - origin) / step - 0.5) for ring in rings], 1, shift=_FIXED_POINT_BITS)
    integral = np.pad(canvas.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    column, row = np.round((xy0 - origin) / step).astype(int).T
    column_end = np.minimum(column + resolution, canvas.shape[1])
    row_end = np.minimum(row + resolution, canvas.shape[0])
    inside = (
        integral[row_end, column_end] - integral[row, column_end] - integral[row_end, column] + integral[row, column]
    )
    return np.asarray(inside / resolution**2, np.float64)


def _fixed(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    return np.round(points * (1 << _FIXED_POINT_BITS)).astype(np.int32)


def instance_auroc(score: npt.NDArray[np.float64], share: npt.NDArray[np.float64]) -> float:
    """AUROC of a tile score for tiles that lie at least half inside the truth; NaN when all or none do."""
    inside = (share >= INSIDE).astype(np.int64)
    both = np.stack([-score, score], axis=1)
    return float(auroc(inside, both, np.ones((1, len(score))))[0])
