"""Mask to GeoJSON and back, without loss: outlines in level-0 px that QuPath opens and may edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.provenance import Provenance
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.mask import BoolArray, TissueMask

FORMAT, VERSION = "pathpipe-tissue", 2
Ring = npt.NDArray[np.float64]  # (V, 2) x, y in level-0 px, not closed
_FIXED_POINT_BITS = 8


def trace(mask: BoolArray, scale0: tuple[float, float]) -> list[list[Ring]]:
    """Outlines of a mask: a list of polygons, each its outer ring followed by its holes.

    The mask is doubled before it is traced, so vertices lie a quarter of a mask pixel inside the pixels' edges: every
    pixel centre is strictly inside or outside, and `fill` gives the same mask back.
    """
    doubled = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons: dict[int, list[Ring]] = {}
    for index, contour in enumerate(contours):
        parent = int(hierarchy[0, index, 3])
        ring = (contour[:, 0, :].astype(np.float64) + 0.5) / 2 * np.asarray(scale0)
        if parent < 0:
            polygons.setdefault(index, []).insert(0, ring)
        else:
            polygons.setdefault(parent, []).append(ring)
    return list(polygons.values())


def fill(polygons: list[list[Ring]], scale0: tuple[float, float], shape: tuple[int, int]) -> BoolArray:
    """The mask of polygons in level-0 px, whether traced here or drawn by hand.

    Args:
        shape: (H, W) of the mask.
    """
    height, width = shape
    canvas = np.zeros((2 * height, 2 * width), np.uint8)
    for rings in polygons:
        # all rings in one call: even-odd filling leaves a hole as it was, be it inside another polygon
        cv2.fillPoly(canvas, [_fixed(ring, scale0) for ring in rings], 1, shift=_FIXED_POINT_BITS)
    return np.asarray(canvas[::2, ::2] & canvas[1::2, 1::2], dtype=bool)


def _fixed(ring: Ring, scale0: tuple[float, float]) -> npt.NDArray[np.int32]:
    doubled = ring / np.asarray(scale0) * 2 - 0.5
    return np.round(doubled * (1 << _FIXED_POINT_BITS)).astype(np.int32)


def write_tissue(path: Path, mask: TissueMask, provenance: Provenance) -> None:
    """Write a mask as a GeoJSON FeatureCollection (docs/formats.md, tissue)."""
    features = [
        {
            "type": "Feature",
            "properties": {"objectType": "annotation", "classification": {"name": "Tissue"}, "tissue_id": index},
            "geometry": {"type": "Polygon", "coordinates": [_closed(ring) for ring in rings]},
        }
        for index, rings in enumerate(trace(mask.mask, mask.scale0))
    ]
    own = {
        "format": FORMAT,
        "version": VERSION,
        "mask": {
            "shape": list(mask.mask.shape),
            "scale0": list(mask.scale0),
            "mpp": {"x": mask.mpp.x, "y": mask.mpp.y, "source": mask.mpp.source},
            "threshold": mask.threshold,
            "method": mask.method,
            "removed_um2": dict(mask.removed_um2),
            "colour": dict(mask.colour),
            "flags": list(mask.flags),
        },
        "provenance": provenance.to_dict(),
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, "pathpipe": own}), encoding="utf-8")


def read_tissue(path: Path) -> TissueMask:
    """Read a mask back; polygons edited in QuPath count as they are.

    Raises:
        StoreError: Not a tissue file of pathpipe, or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        own = content["pathpipe"]
        if (own["format"], own["version"]) != (FORMAT, VERSION):
            raise StoreError(f"is {own['format']} version {own['version']}", where=str(path))
        facts = own["mask"]
        scale0 = (float(facts["scale0"][0]), float(facts["scale0"][1]))
        mask = fill(read_polygons(content), scale0, (int(facts["shape"][0]), int(facts["shape"][1])))
        return TissueMask(
            mask=mask,
            scale0=scale0,
            mpp=Mpp(**facts["mpp"]),
            threshold=facts["threshold"],
            method=facts["method"],
            removed_um2=facts["removed_um2"],
            colour=facts["colour"],
            flags=tuple(facts["flags"]),
        )
    except (OSError, KeyError, TypeError, IndexError, ValueError) as error:
        raise StoreError(
            f"isn't a tissue file of pathpipe, or is damaged ({error!r})",
            where=str(path),
            hint="delete it and run `pathpipe tile` again",
        ) from None


def read_polygons(content: dict[str, Any]) -> list[list[Ring]]:
    """Polygons and multi-polygons of a GeoJSON FeatureCollection, in its own coordinates.

    Raises:
        ValueError: A ring has fewer than three corners, or a coordinate that is no number.
    """
    polygons: list[list[Ring]] = []
    for feature in content["features"]:
        geometry = feature["geometry"]
        many = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}.get(geometry["type"], [])
        polygons.extend([_open_ring(ring) for ring in rings] for rings in many if rings)
    return polygons


def _open_ring(closed: list[list[float]]) -> Ring:
    ring = np.asarray(closed, np.float64)[:-1, :2]
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a ring of fewer than three corners, or with a corner that is no number")
    return ring


def _closed(ring: Ring) -> list[list[float]]:
    return np.vstack([ring, ring[:1]]).tolist()
