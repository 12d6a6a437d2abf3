"""Layers: what was found on a slide, as compact JSON that a page draws over it; all places in level-0 px."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.errors import SettingsError, StoreError
from pathpipe.explain.cells import paint_cells, rank_bytes
from pathpipe.explain.truth import read_truth
from pathpipe.tiles.table import read_tiles
from pathpipe.tissue.artefacts import COLOURS, Colour, artefact_colour, artefact_name
from pathpipe.tissue.geojson import Polygon, read_features
from pathpipe.tissue.polygons import TISSUE, moved

TRUTH: Colour = (255, 205, 0)  # apart from tissue's green and from every colour map's bright end
_BY_NAME = {artefact_name(kind).casefold(): kind for kind in COLOURS}
Floats = npt.NDArray[np.float64]


def tissue_layer(path: Path) -> dict[str, Any]:
    """Polygons of tissue and artefacts with their colours.

    Raises:
        StoreError: The file isn't GeoJSON of pathpipe.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = moved(read_features(content), content["pathpipe"]["origin0"])
    except (OSError, KeyError, TypeError, IndexError, ValueError, RecursionError) as error:
        raise StoreError(f"can't be read as tissue outlines: {error!r}", where=path.name) from None
    groups: dict[str, list[Polygon]] = {}
    for one in features:
        groups.setdefault(one.name or "Tissue", []).extend(one.polygons)
    return {"groups": [_group(name, _colour(name), polygons) for name, polygons in groups.items()]}


def truth_layer(path: Path) -> dict[str, Any]:
    """True regions.

    Raises:
        StoreError: The file isn't GeoJSON.
    """
    return {"groups": [_group("Truth", TRUTH, read_truth(path).polygons)]}


def tiles_layer(path: Path) -> dict[str, Any]:
    """Corners of all tiles, one flat list x, y, x, y.

    Raises:
        StoreError: The file isn't a tile table.
    """
    grid = read_tiles(path).grid
    return {
        "side0": list(grid.plan.side0),
        "xy0": _flat(grid.xy0),
        "count": len(grid.xy0),
        "tile_px": grid.plan.tile_px,
        "mpp": list(grid.plan.mpp_effective),
        "empty_reason": grid.empty_reason,
    }


def score_names(path: Path) -> list[str]:
    """Names of the scores in a table of x0, y0 and scores; none where there is no table."""
    try:
        with open(path, encoding="utf-8") as file:
            names = file.readline().strip().split(",")
    except (OSError, UnicodeDecodeError):
        return []
    return names[2:] if names[:2] == ["x0", "y0"] else []


def heat_layer(scores: Path, name: str, tiles: Path, palette: str) -> dict[str, Any]:
    """One score of every tile: its rank within the slide (a byte a cell) and its value (a float32 a cell).

    Args:
        scores: CSV of x0, y0 and scores.
        tiles: The tile table, which knows how large tiles are.
        palette: Name of a Matplotlib colour map.

    Raises:
        StoreError: A file is damaged, or there is no such score.
        SettingsError: There is no such colour map.
    """
    xy0, values = _read_scores(scores, name)
    plan = read_tiles(tiles).grid.plan
    ranks = paint_cells(xy0, _ranks(values), plan.side0, plan.stride0)
    means = paint_cells(xy0, values, plan.side0, plan.stride0)
    return {
        "origin0": ranks.origin0,
        "cell0": ranks.cell0,
        "size": [ranks.values.shape[1], ranks.values.shape[0]],
        "low": float(values.min()),
        "high": float(values.max()),
        "ranks": _base64(rank_bytes(ranks)),
        "values": _base64(means.values.astype("<f4")),
        "palette": _base64(_palette(palette)),
    }


def _read_scores(path: Path, name: str) -> tuple[npt.NDArray[np.int64], Floats]:
    names = score_names(path)
    if name not in names:
        raise StoreError(f"has no score `{name}`", where=path.name)
    columns = (0, 1, 2 + names.index(name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty table, which is told below
            table = np.loadtxt(path, delimiter=",", skiprows=1, usecols=columns, ndmin=2, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise StoreError(f"can't be read as scores of tiles: {error}", where=path.name) from None
    if not len(table) or not np.isfinite(table).all():
        raise StoreError("holds no score, or one that isn't finite", where=path.name)
    return np.round(table[:, :2]).astype(np.int64), table[:, 2]


def _ranks(values: Floats) -> Floats:
    """Share of tiles that score at most as high; ties share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values) / len(values), np.float64)


def _palette(name: str) -> npt.NDArray[np.uint8]:
    """(256, 3) uint8."""
    import matplotlib

    if name not in matplotlib.colormaps:
        raise SettingsError(f"there is no colour map `{name}`", where="heatmap.colours")
    colours = matplotlib.colormaps[name](np.linspace(0, 1, 256))
    return np.round(255 * colours[:, :3]).astype(np.uint8)


def _colour(name: str) -> Colour:
    kind = _BY_NAME.get(name.casefold())
    return TISSUE if kind is None else artefact_colour(kind)


def _group(name: str, colour: Colour, polygons: Sequence[Polygon]) -> dict[str, Any]:
    return {"name": name, "colour": list(colour), "polygons": [[_flat(ring) for ring in rings] for rings in polygons]}


def _flat(corners: npt.NDArray[Any]) -> list[Any]:
    rounded = np.round(np.asarray(corners, np.float64), 1)
    whole = rounded.astype(np.int64)
    return (whole if np.array_equal(whole, rounded) else rounded).ravel().tolist()


def _base64(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
