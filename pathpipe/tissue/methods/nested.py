"""Pieces of tissue with their holes, pieces in those holes, and so on: kept or filled by area."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.tissue.method import BoolArray

Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]


def filter_areas(tissue: BoolArray, piece_px: float, hole_px: float, most_holes: int) -> BoolArray:
    """Keep pieces of tissue by their area without holes, and of a piece's holes the largest that are large enough.

    A hole's area counts what lies in it. A kept piece covers all that lies inside its outline but its kept holes; what
    is covered by any piece is tissue. Bare ground that reaches the border of the picture is no hole.

    Args:
        tissue: (H, W) bool.
        piece_px: Only larger pieces (8-connected) are kept, px.
        hole_px: Only larger holes (4-connected) are kept, px.
        most_holes: At most as many holes are kept in one piece.

    Returns:
        (H, W) bool.
    """
    padded = np.pad(tissue, 1)  # joins all bare ground at the border to label `outside`
    pieces, piece_areas = _label(padded, 8)
    grounds, ground_areas = _label(~padded, 4)
    outside = int(grounds[0, 0])
    home = _above_first(pieces, len(piece_areas), grounds)  # of each piece: the ground around it
    around = _above_first(grounds, len(ground_areas), pieces)  # of each ground: the piece around it
    around[outside] = 0
    holes = np.flatnonzero(around)
    kept_piece = piece_areas > piece_px
    kept_piece[0] = False
    whole = _with_content(ground_areas, piece_areas, home, around)
    kept_hole = _kept_holes(holes, around, whole, hole_px, most_holes)
    filled = kept_piece[around] & ~kept_hole
    filled[outside] = False
    covered, inside = kept_piece, filled
    while True:  # a round a level of nesting
        covered = kept_piece | inside[home]
        deeper = filled | (inside[home[around]] & (around > 0))
        if (deeper == inside).all():
            break
        inside = deeper
    inside[0] = covered[0] = False
    return np.asarray((covered[pieces] | inside[grounds])[1:-1, 1:-1])


def _label(mask: BoolArray, connectivity: int) -> tuple[Labels, Ints]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=connectivity)
    return np.asarray(labels, np.int32), stats[:count, cv2.CC_STAT_AREA].astype(np.int64)


def _above_first(labels: Labels, count: int, others: Labels) -> Ints:
    """Of each label, what lies right above its first pixel in raster order: that which surrounds it; 0 for label 0."""
    flat = labels.ravel()
    starts = np.flatnonzero((flat[1:] != flat[:-1]) & (flat[1:] > 0)) + 1  # where a run begins: far fewer than pixels
    first = np.full(count, flat.size, np.int64)
    np.minimum.at(first, flat[starts], starts)
    first = np.where((first < flat.size) & (first >= labels.shape[1]), first - labels.shape[1], 0)
    above = others.ravel()[first].astype(np.int64)
    above[0] = 0
    return above


def _with_content(grounds: Ints, pieces: Ints, home: Ints, around: Ints) -> Ints:
    """Areas of grounds with the pieces that lie in them, and with what lies in those."""
    own = pieces.copy()
    own[0] = 0
    whole = grounds
    while True:  # a round a level of nesting
        holes_of_piece = np.bincount(around, np.where(around > 0, whole, 0), len(own))
        deeper = grounds + np.bincount(home, own + holes_of_piece, len(grounds)).astype(np.int64)
        if (deeper == whole).all():
            return whole
        whole = deeper


def _kept_holes(holes: Ints, around: Ints, areas: Ints, hole_px: float, most: int) -> BoolArray:
    """Which grounds are holes that stay: large enough, and among the largest of their piece."""
    kept = np.zeros(len(areas), bool)
    if not len(holes):
        return kept
    order = holes[np.lexsort((holes, -areas[holes], around[holes]))]
    pieces = around[order]
    begins = np.flatnonzero(np.r_[True, pieces[1:] != pieces[:-1]])
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(order)]))
    kept[order] = (rank < most) & (areas[order] > hole_px)
    return kept
