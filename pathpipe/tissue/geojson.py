"""GeoJSON as pathpipe, QuPath, TRIDENT and people write it: named polygons, whatever the shape of the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.float64]  # (V, 2) x, y, not closed
Polygon = list[Ring]  # an outer ring followed by its holes


@dataclass(frozen=True)
class Feature:
    """One drawn object.

    Attributes:
        name: Its class (`Tissue`, `Tumor`, ...), or None.
        polygons: In the file's own coordinates.
        points: (V, 2) likewise.
    """

    name: str | None
    polygons: list[Polygon]
    points: Ring = field(default_factory=lambda: np.zeros((0, 2)))


def read_features(content: Any) -> list[Feature]:
    """Features of a FeatureCollection, a bare list of them (as QuPath may export), one Feature or a bare geometry.

    Rings may be closed or not. A CRS is not looked at: coordinates are pixels. Points are kept as such; lines give a
    feature without either.

    Raises:
        ValueError: No GeoJSON, a ring of fewer than three corners, or a coordinate that is no number.
        KeyError, TypeError: A member is missing or of another kind.
    """
    return [
        Feature(_name(one), list(_polygons(one["geometry"])), _points(one["geometry"])) for one in _features(content)
    ]


def _features(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        found = content
    elif "features" in content:
        found = list(content["features"])
    elif "geometry" in content:
        found = [content]
    elif "coordinates" in content or "geometries" in content:
        found = [{"geometry": content}]
    else:
        raise ValueError("no features in it")
    if not all(isinstance(one, dict) for one in found):
        raise ValueError("a feature that is no object")
    return found


def _name(feature: dict[str, Any]) -> str | None:
    """QuPath keeps a class as `name`, or as `names` where it is derived from another; others write plain text."""
    properties = feature.get("properties")
    found = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(found.get("names") or [])
    return str(found) if found else None


def _polygons(geometry: dict[str, Any]) -> Iterator[Polygon]:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _polygons(part)
    elif kind in ("Polygon", "MultiPolygon"):
        coordinates = geometry["coordinates"]
        for rings in [coordinates] if kind == "Polygon" else coordinates:
            if rings:  # an empty polygon is no error in GeoJSON
                yield [_open_ring(ring) for ring in rings]


def _points(geometry: dict[str, Any]) -> Ring:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        return np.concatenate([np.zeros((0, 2)), *(_points(part) for part in geometry["geometries"])])
    if kind not in ("Point", "MultiPoint"):
        return np.zeros((0, 2))
    places = [geometry["coordinates"]] if kind == "Point" else geometry["coordinates"]
    points = np.array([place[:2] for place in places if len(place)], np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a point that is no number")
    return points


def _open_ring(corners: list[list[float]]) -> Ring:
    ring = np.asarray(corners, np.float64)
    if ring.ndim == 2 and len(ring) > 1 and np.array_equal(ring[0, :2], ring[-1, :2]):
        ring = ring[:-1]
    ring = ring[:, :2] if ring.ndim == 2 else ring
    if len(ring) < 3 or ring.shape[1] != 2 or not np.isfinite(ring).all():
        raise ValueError("a ring of fewer than three corners, or with a corner that is no number")
    return ring


def feature(name: str, colour: tuple[int, int, int], polygon: Polygon, decimals: int) -> dict[str, Any]:
    """A Feature as QuPath writes an annotation; coordinates carry no needless digits."""
    return {
        "type": "Feature",
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(colour)},
        },
        "geometry": {"type": "Polygon", "coordinates": [_closed(ring, decimals) for ring in polygon]},
    }


def _closed(ring: Ring, decimals: int) -> list[list[float]]:
    rounded = np.round(np.vstack([ring, ring[:1]]), decimals)
    whole = rounded.astype(np.int64)
    if np.array_equal(whole, rounded):
        return whole.tolist()
    return [[int(x) if x.is_integer() else x, int(y) if y.is_integer() else y] for x, y in rounded.tolist()]
