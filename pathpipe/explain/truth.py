"""Truth: regions or points that a person (or the demo) marked, and how well a score finds them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from pathpipe.errors import StoreError
from pathpipe.evaluation.metrics import auroc
from pathpipe.tissue.geojson import Polygon, read_features

INSIDE = 0.5
_FIXED_POINT_BITS = 8


@dataclass(frozen=True, eq=False)
class Truth:
    """What a person marked.

    Attributes:
        polygons: Level-0 px, each an outer ring followed by its holes.
        points: (K, 2) level-0 px, e.g. centres of nuclei.
    """

    polygons: list[Polygon] = field(default_factory=list)
    points: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def __bool__(self) -> bool:
        return bool(self.polygons) or len(self.points) > 0


def read_truth(path: Path, wanted: str | None = None) -> Truth:
    """Regions and points of a GeoJSON file, or points of a CSV table of x, y and perhaps type, in level-0 px.

    Args:
        wanted: Class of a region, or type of a point, that counts; all do where None.

    Raises:
        StoreError: It can't be read as either, or it names no classes and one is wanted.
    """
    if path.suffix.lower() == ".csv":
        return Truth(points=_csv_points(path, wanted))
    try:
        features = read_features(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise StoreError(f"can't be read as GeoJSON polygons: {error!r}", where=str(path)) from None
    _refuse_nameless(wanted, [one.name or "" for one in features], path)
    kept = [one for one in features if wanted is None or one.name == wanted]
    points = np.concatenate([np.zeros((0, 2)), *(one.points for one in kept)])
    return Truth([polygon for one in kept for polygon in one.polygons], points)


def _csv_points(path: Path, wanted: str | None) -> npt.NDArray[np.float64]:
    try:
        table = pd.read_csv(path)
        points = table[["x", "y"]].to_numpy(np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise StoreError(
            f"can't be read as points: {error!r}",
            where=str(path),
            hint="columns x and y in level-0 px, and perhaps type",
        ) from None
    if not np.isfinite(points).all():
        raise StoreError("has a point without a place", where=str(path))
    if wanted is None:
        return points
    types = table["type"].astype(str) if "type" in table.columns else pd.Series([""] * len(table))
    _refuse_nameless(wanted, types.tolist(), path)
    return np.asarray(points[(types == wanted).to_numpy()])


def _refuse_nameless(wanted: str | None, names: list[str], path: Path) -> None:
    """A slide may have none of a class; a file that names no class at all was not meant."""
    if wanted is not None and names and not any(names):
        raise StoreError(f"names no classes, so nothing in it is `{wanted}`", where=str(path))


def marked(truth: Truth, xy0: npt.NDArray[np.int64], side0: tuple[float, float]) -> npt.NDArray[np.float64]:
    """(N,) share of each tile that lies inside the regions; 1 for a tile that holds a point."""
    share = share_inside(xy0, side0, truth.polygons)
    if not len(truth.points) or not len(xy0):
        return share
    side = np.asarray(side0)
    # a tile ends before its right and lower edge: the box that is asked for begins and ends a little earlier
    found = cKDTree(truth.points / side).query_ball_point(xy0 / side + 0.5 - 1e-9, 0.5, p=np.inf, return_length=True)
    return np.maximum(share, np.asarray(found) > 0)


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
