"""Mask to GeoJSON and back, without loss: outlines in level-0 px that QuPath opens and may edit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import Provenance
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.artefacts import Colour, artefact_colour, artefact_name
from pathpipe.tissue.geojson import Feature, Polygon, Ring, feature, read_features
from pathpipe.tissue.mask import BoolArray, TissueMask

FORMAT, VERSION = "pathpipe-tissue", 2
TISSUE: Colour = (0, 128, 96)
_FIXED_POINT_BITS = 8
_FAR = 1 << 29  # a corner further away than this, in fixed-point px, is drawn here: int32 holds no more


def trace(mask: BoolArray, scale0: tuple[float, float]) -> list[Polygon]:
    """Outlines of a mask: a list of polygons, each its outer ring followed by its holes.

    The mask is doubled before it is traced, so vertices lie a quarter of a mask pixel inside the pixels' edges: every
    pixel centre is strictly inside or outside, and `fill` gives the same mask back.
    """
    doubled = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons: dict[int, Polygon] = {}
    for index, contour in enumerate(contours):
        parent = int(hierarchy[0, index, 3])
        ring = (contour[:, 0, :].astype(np.float64) + 0.5) / 2 * np.asarray(scale0)
        if parent < 0:
            polygons.setdefault(index, []).insert(0, ring)
        else:
            polygons.setdefault(parent, []).append(ring)
    return list(polygons.values())


def fill(polygons: Sequence[Polygon], scale0: tuple[float, float], shape: tuple[int, int]) -> BoolArray:
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
    return np.clip(np.round(doubled * (1 << _FIXED_POINT_BITS)), -_FAR, _FAR).astype(np.int32)


def write_tissue(
    path: Path, mask: TissueMask, provenance: Provenance, origin0: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Write a mask as a GeoJSON FeatureCollection (docs/formats.md, tissue).

    Args:
        origin0: What the file calls (0, 0), level-0 px: the corner of the scanned bounds for viewers that start there.
    """
    features = _features_of("Tissue", TISSUE, mask.mask, mask.scale0, origin0)
    for index, one in enumerate(features):
        one["properties"]["tissue_id"] = index
    for kind, where in mask.artefacts.items():
        features += _features_of(artefact_name(kind), artefact_colour(kind), where, mask.scale0, origin0)
    own = {
        "format": FORMAT,
        "version": VERSION,
        "origin0": list(origin0),
        "outlines": fingerprint(features),
        "mask": {
            "shape": list(mask.mask.shape),
            "scale0": list(mask.scale0),
            "mpp": {"x": mask.mpp.x, "y": mask.mpp.y, "source": mask.mpp.source},
            "threshold": mask.threshold,
            "method": mask.method,
            "artefacts": list(mask.artefacts),
            "removed_um2": dict(mask.removed_um2),
            "colour": dict(mask.colour),
            "flags": list(mask.flags),
        },
        "provenance": provenance.to_dict(),
    }
    content = {"type": "FeatureCollection", "features": features, "pathpipe": own}
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def _features_of(
    name: str, colour: Colour, mask: BoolArray, scale0: tuple[float, float], origin0: tuple[float, float]
) -> list[dict[str, Any]]:
    # so many digits that a corner can't move by a quarter of a fixed-point step: `fill` then gives the mask back
    decimals = max(0, math.ceil(math.log10(4 * (1 << _FIXED_POINT_BITS) / min(scale0))))
    polygons = [[ring - np.asarray(origin0) for ring in polygon] for polygon in trace(mask, scale0)]
    return [feature(name, colour, polygon, decimals) for polygon in polygons]


def read_tissue(path: Path) -> TissueMask:
    """Read a mask back; polygons edited by a person count as they are.

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
        shape = (int(facts["shape"][0]), int(facts["shape"][1]))
        features = moved(read_features(content), own["origin0"])
        tissue, artefacts = parted(features, facts["artefacts"])
        return TissueMask(
            mask=fill(tissue, scale0, shape),
            scale0=scale0,
            mpp=Mpp(**facts["mpp"]),
            threshold=facts["threshold"],
            method=facts["method"],
            artefacts={kind: fill(polygons, scale0, shape) for kind, polygons in artefacts.items()},
            removed_um2=facts["removed_um2"],
            colour=facts["colour"],
            flags=tuple(facts["flags"]),
        )
    except (OSError, KeyError, TypeError, IndexError, ValueError, RecursionError) as error:
        raise StoreError(
            f"isn't a tissue file of pathpipe, or is damaged ({error!r})",
            where=str(path),
            hint="delete it and run `pathpipe tile` again",
        ) from None


def moved(features: Sequence[Feature], by0: Sequence[float]) -> list[Feature]:
    """Features moved by (x, y) level-0 px."""
    step = np.asarray(by0, np.float64)
    return [Feature(one.name, [[ring + step for ring in rings] for rings in one.polygons]) for one in features]


def parted(features: Sequence[Feature], kinds: Sequence[str]) -> tuple[list[Polygon], Mapping[str, list[Polygon]]]:
    """Tissue, and artefacts by kind.

    Whatever isn't named as one of `kinds` is tissue: a person may draw without a class, or rename it.
    """
    artefacts: dict[str, list[Polygon]] = {kind: [] for kind in kinds}
    by_name = {artefact_name(kind).casefold(): kind for kind in kinds}
    tissue: list[Polygon] = []
    for one in features:
        kind = by_name.get((one.name or "").casefold())
        (tissue if kind is None else artefacts[kind]).extend(one.polygons)
    return tissue, artefacts


def outlines_fingerprint(path: Path) -> str | None:
    """Of the outlines, where a person has edited them since they were written; None where they are as they were.

    Raises:
        StoreError: Not a tissue file of pathpipe, or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = fingerprint(content["features"])
        return None if found == content["pathpipe"]["outlines"] else found
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"isn't a tissue file of pathpipe, or is damaged ({error!r})", where=str(path)) from None
