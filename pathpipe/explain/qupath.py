"""QuPath: scores as objects that it opens, tile by tile with measurements or merged by quantile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

from pathpipe.explain.cells import paint_cells
from pathpipe.explain.outlines import merge_cells
from pathpipe.explain.scores import Scores
from pathpipe.provenance import Provenance
from pathpipe.tissue.artefacts import Colour

FORMAT, VERSION = "pathpipe-heatmap", 1
QUANTILES = 10
MAX_BYTES = 20_000_000  # of one file: QuPath reads it whole
_TILES = 5_000  # turned into text at once
_ALONE = {"class": "probability", "number": "number", "risk": "risk"}


@dataclass(frozen=True)
class Frame:
    """Where tiles lie.

    Attributes:
        side0: (width, height) of a tile, level-0 px.
        stride0: Step from tile to tile, level-0 px.
        origin0: What the file calls (0, 0), level-0 px: the corner of the scanned bounds for viewers that start there.
    """

    side0: tuple[float, float]
    stride0: tuple[float, float]
    origin0: tuple[float, float] = (0.0, 0.0)


def write_tiles(path: Path, scores: Scores, frame: Frame, palette: str, provenance: Provenance) -> list[Path]:
    """Write a QuPath tile object for each tile: score, percentile, and what the models say of the tile alone.

    Coordinates are whole level-0 px. Tiles are classed by tenths, so that they have colours; QuPath's measurement maps
    show the numbers themselves.

    Returns:
        The files: `path`, and where one would be larger than 20 MB further ones called NAME-2, NAME-3.

    Reference: QuPath 0.4 and later (GeoJSON with measurements as a map), https://github.com/qupath/qupath/pull/1099.
    """
    paths, taken = [path], 0
    block: list[str] = []
    for features in _tile_features(scores, frame, palette):
        if block and taken + len(features) > MAX_BYTES:
            _write(paths[-1], block, scores, frame, provenance)
            paths.append(path.with_name(f"{path.stem}-{len(paths) + 1}{path.suffix}"))
            block, taken = [], 0
        block.append(features)
        taken += len(features)
    _write(paths[-1], block, scores, frame, provenance)
    return paths


def _tile_features(scores: Scores, frame: Frame, palette: str) -> Iterator[str]:
    """Features as JSON texts, many at once: one format of a whole block and no loop over tiles."""
    ranks = scores.ranks()
    bins = _bins(ranks)
    classes = np.array([_json(one) for one in _classes(scores, palette)])
    corner = scores.xy0 - np.round(frame.origin0).astype(np.int64)
    left, top = corner.T
    right, below = np.round(corner + np.asarray(frame.side0)).astype(np.int64).T
    numbers = {"score": scores.score, "percentile": 100 * ranks}
    if scores.alone is not None:
        numbers[_ALONE[scores.aim.kind]] = scores.alone
    measured = ",".join(f'"{name}":%s' for name in numbers)
    template = (
        '{"type":"Feature","geometry":{"type":"Polygon","coordinates":'
        "[[[%d,%d],[%d,%d],[%d,%d],[%d,%d],[%d,%d]]]},"
        '"properties":{"objectType":"tile","classification":%s,"measurements":{' + measured + "}}}"
    )
    corners = (left, top, right, top, right, below, left, below, left, top)
    for start in range(0, len(corner), _TILES):
        part = slice(start, start + _TILES)
        texts = [_texts(values[part]) for values in numbers.values()]
        columns = [*(one[part] for one in corners), classes[bins[part]], *texts]
        rows = np.empty((len(columns[0]), len(columns)), object)
        for number, column in enumerate(columns):
            rows[:, number] = column.tolist()
        yield ",\n".join([template] * len(rows)) % tuple(rows.ravel().tolist())


def _texts(values: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    """Numbers to six digits."""
    return np.char.mod("%.6g", values)


def write_quantiles(path: Path, scores: Scores, frame: Frame, palette: str, provenance: Provenance) -> None:
    """Write an annotation for each tenth of the tiles: the outline of all tiles whose score lies in it.

    Where tiles overlap, a place has the mean of the tiles that cover it. Outlines follow the grid of tiles; tiles that
    lie off it are moved by less than a cell.
    """
    cells = paint_cells(scores.xy0, scores.ranks(), frame.side0, frame.stride0)
    known = np.isfinite(cells.values)
    values = np.where(known, _bins(np.where(known, cells.values, 0)), -1)
    origin = (cells.origin0[0] - frame.origin0[0], cells.origin0[1] - frame.origin0[1])
    classes = _classes(scores, palette)
    features = []
    for value, polygons in sorted(merge_cells(values, origin, cells.cell0).items()):
        rings = [[_closed(ring.astype(int).tolist()) for ring in one] for one in polygons]
        inside = cells.values[values == value]
        geometry: dict[str, Any] = {"type": "MultiPolygon", "coordinates": rings}
        if len(rings) == 1:
            geometry = {"type": "Polygon", "coordinates": rings[0]}
        properties = {
            "objectType": "annotation",
            "classification": classes[value],
            "isLocked": True,
            "measurements": {"mean percentile": round(100 * float(inside.mean()), 4)},
        }
        one = {"type": "Feature", "geometry": geometry, "properties": properties}
        features.append(_json(one))
    _write(path, features, scores, frame, provenance)


def _closed(ring: list[list[int]]) -> list[list[int]]:
    return [*ring, ring[0]]


def _bins(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Which tenth: 0 for the lowest."""
    return np.clip(np.ceil(QUANTILES * ranks - 1e-9).astype(np.int64) - 1, 0, QUANTILES - 1)


def _classes(scores: Scores, palette: str) -> list[dict[str, Any]]:
    """QuPath's class of each tenth, its colour as in the picture."""
    share = 100 // QUANTILES
    colours = matplotlib.colormaps[palette]((np.arange(QUANTILES) + 0.5) / QUANTILES)
    name = scores.aim.label
    return [
        {"name": f"{name} {share * at}-{share * (at + 1)}%", "color": list(_rgb(colours[at]))}
        for at in range(QUANTILES)
    ]


def _rgb(colour: npt.NDArray[np.float64]) -> Colour:
    red, green, blue = (round(255 * float(part)) for part in colour[:3])
    return red, green, blue


def _write(path: Path, features: list[str], scores: Scores, frame: Frame, provenance: Provenance) -> None:
    own = {
        "format": FORMAT,
        "version": VERSION,
        "score": scores.kind,
        "origin0": list(frame.origin0),
        "provenance": provenance.to_dict(),
    }
    text = ",\n".join(features)
    path.write_text(
        f'{{"type":"FeatureCollection","features":[\n{text}\n],"pathpipe":{_json(own)}}}\n', encoding="utf-8"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
