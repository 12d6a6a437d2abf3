"""Outlines: cells of equal value merged into polygons whose edges are the cells' own."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.tissue.geojson import Polygon

Ints = npt.NDArray[np.int64]
_STEP = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # right, down, left, up: what is inside lies on the right hand
_START = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])  # of a cell's edge in that direction
_BEYOND = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])  # (row, column) of the cell across the edge


def merge_cells(
    values: Ints, origin0: tuple[float, float] = (0.0, 0.0), cell0: tuple[float, float] = (1.0, 1.0)
) -> dict[int, list[Polygon]]:
    """Polygons of each value, a polygon a piece; pieces that touch at a corner alone are two.

    Every ring is simple and rings meet in points at most, as the GeoJSON and OGC models ask for.

    Args:
        values: (H, W) at least 0, or -1 where there is nothing.
        origin0: Upper left corner of the cells, level-0 px.
        cell0: (width, height) of a cell, level-0 px.

    Returns:
        Value -> polygons, each its outer ring followed by its holes; corners (x, y) in whole level-0 px.
    """
    pieces = _pieces(values)
    start, direction, piece, following = _edges(pieces)
    if not len(start):
        return {}
    ring, place = _walk(following)
    before = np.empty_like(direction)
    before[following] = direction
    order = np.lexsort((place, ring))
    order = order[(direction != before)[order]]  # corners alone
    cuts = np.r_[0, np.flatnonzero(np.diff(ring[order])) + 1, len(order)]
    is_hole = _areas(start[order], cuts) < 0
    corners = np.round(start[order] * np.asarray(cell0) + np.asarray(origin0))
    polygons: list[Polygon] = [[] for _ in range(int(pieces.max()) + 1)]
    owners = piece[order][cuts[:-1]]
    for number in np.argsort(is_hole, kind="stable").tolist():  # outer rings first
        polygons[owners[number]].append(corners[cuts[number] : cuts[number + 1]])
    found: dict[int, list[Polygon]] = {}
    known, first = np.unique(pieces.ravel(), return_index=True)
    for owner, value in zip(known.tolist(), values.ravel()[first].tolist(), strict=True):
        if owner >= 0:
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


def _areas(corners: Ints, cuts: Ints) -> Ints:
    """Twice the signed area of each ring: below 0 where what is inside lies around it."""
    following = np.arange(1, len(corners) + 1)
    following[cuts[1:] - 1] = cuts[:-1]
    x, y = corners.T
    return np.add.reduceat(x * y[following] - x[following] * y, cuts[:-1])
