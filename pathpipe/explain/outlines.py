"""Outlines: cells of equal value merged into polygons whose edges are the cells' own."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.tissue.geojson import Polygon

Ints = npt.NDArray[np.int64]
_STEP = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # right, down, left, up: what is inside lies on the right hand
_START = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])  # of a cell's edge in that direction
_BEYOND = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])  # (row, column) of the cell across the edge


def merge_cells(values: Ints) -> dict[int, list[Polygon]]:
    """Polygons of each value, a polygon a piece; pieces that touch at a corner alone are two.

    Every ring is simple and rings meet in points at most, as the GeoJSON and OGC models ask for.

    Args:
        values: (H, W) at least 0, or -1 where there is nothing.

    Returns:
        Value -> polygons, each its outer ring followed by its holes; corners (x, y) in whole cells.
    """
    pieces = _pieces(values)
    start, direction, piece, following = _edges(pieces)
    if not len(start):
        return {}
    ring, place = _walk(following)
    before = np.empty_like(direction)
    before[following] = direction
    corner = direction != before
    order = np.lexsort((place, ring))
    order = order[corner[order]]
    cuts = np.flatnonzero(np.diff(ring[order])) + 1
    rings = np.split(start[order], cuts)
    owners = piece[order][np.r_[0, cuts]]
    polygons: dict[int, Polygon] = {}
    for owner, corners in zip(owners.tolist(), rings, strict=True):
        whole = corners.astype(np.float64)
        place_in = polygons.setdefault(owner, [])
        if _area(whole) > 0:
            place_in.insert(0, whole)
        else:
            place_in.append(whole)
    found: dict[int, list[Polygon]] = {}
    for owner, value in zip(*_first_values(pieces, values), strict=True):
        found.setdefault(value, []).append(polygons[owner])
    return found


def _pieces(values: Ints) -> Ints:
    """(H, W) number of the piece a cell belongs to, from 0; -1 where there is nothing."""
    pieces, count = np.full(values.shape, -1, np.int64), 0
    for value in np.unique(values[values >= 0]):
        parts, labels = cv2.connectedComponents((values == value).astype(np.uint8), connectivity=4)
        inside = labels > 0
        pieces[inside] = labels[inside] - 1 + count
        count += parts - 1
    return pieces


def _first_values(pieces: Ints, values: Ints) -> tuple[list[int], list[int]]:
    known, first = np.unique(pieces.ravel(), return_index=True)
    kept = known >= 0
    return known[kept].tolist(), values.ravel()[first[kept]].tolist()


def _edges(pieces: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Edges between pieces: corner (x, y) they start at, direction, piece inside, and the edge that follows each."""
    height, width = pieces.shape
    padded = np.pad(pieces, 1, constant_values=-1)
    starts, directions, owners = [], [], []
    for direction in range(4):
        down, along = _BEYOND[direction]
        beyond = padded[1 + down : 1 + down + height, 1 + along : 1 + along + width]
        rows, columns = np.nonzero((pieces >= 0) & (beyond != pieces))
        starts.append(np.column_stack([columns, rows]) + _START[direction])
        directions.append(np.full(len(rows), direction))
        owners.append(pieces[rows, columns])
    start, facing, owner = np.concatenate(starts), np.concatenate(directions), np.concatenate(owners)
    table = np.full(((height + 1) * (width + 1), 4), -1, np.int64)
    table[start[:, 1] * (width + 1) + start[:, 0], facing] = np.arange(len(start))
    end = start + _STEP[facing]
    at = end[:, 1] * (width + 1) + end[:, 0]
    following = np.full(len(start), -1, np.int64)
    for turn in (3, 0, 1):  # left before right: where two cells of a piece meet in a corner, rings only touch there
        edge = table[at, (facing + turn) % 4]
        fits = (following < 0) & (edge >= 0) & (owner[edge] == owner)
        following[fits] = edge[fits]
    return start, facing, owner, following


def _walk(following: Ints) -> tuple[Ints, Ints]:
    """Ring of each edge (its smallest edge) and the edge's place in it, by pointers that double their reach."""
    edges = np.arange(len(following))
    rounds = int(np.ceil(np.log2(max(2, len(edges)))))
    ring, reach = edges.copy(), following.copy()
    for _ in range(rounds):
        ring = np.minimum(ring, ring[reach])
        reach = reach[reach]
    root = ring == edges
    reach, left = np.where(root, edges, following), (~root).astype(np.int64)
    for _ in range(rounds):
        left = left + left[reach]
        reach = reach[reach]
    return ring, np.where(root, 0, len(edges) - left)


def _area(ring: npt.NDArray[np.float64]) -> float:
    x, y = ring.T
    return float(x @ np.roll(y, -1) - np.roll(x, -1) @ y) / 2


def placed(
    polygons: Sequence[Polygon], origin0: tuple[float, float], cell0: tuple[float, float]
) -> list[list[npt.NDArray[np.float64]]]:
    """Polygons in cells as polygons in whole level-0 px."""
    return [[np.round(ring * np.asarray(cell0) + np.asarray(origin0)) for ring in rings] for rings in polygons]
