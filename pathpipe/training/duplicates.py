"""Near-duplicates: slides whose mean features are closer than other slides of different patients ever are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_BLOCK = 2048  # slides a side: 16 MiB of similarities at a time
_CLOSEST = 1e-7  # what float32 can tell from 0
_Z = 4.0
_NO_SPREAD = 0.25  # of log distances: cohorts whose slides are all alike
MOST = 1000


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs of slides of different patients that are too close.

    Attributes:
        pairs: (N, 2) rows of the slides, the closest first; at most 1000.
        cosine: (N,) of each pair.
        count: How many there are altogether.
        threshold: Cosine from which a pair counts, in this cohort.
        typical: Median over slides of the cosine to the second nearest slide of another patient.
    """

    pairs: Ints
    cosine: npt.NDArray[np.float64]
    count: int
    threshold: float
    typical: float


def near_duplicates(means: Floats, patients: Ints, least: float) -> Duplicates:
    """Pairs of slides of different patients, far closer than this cohort's slides are to others.

    Features of one encoder point in similar directions, and those of one stain more so: 0.999 is much in one cohort
    and usual in another. A pair counts when its cosine is at least `least` and its distance, 1 - cosine, lies four
    robust standard deviations (of log distance, by median and MAD) below the median distance to the second nearest
    slide of another patient: the nearest is its duplicate, where most slides of a cohort have one. Memory is that of
    one block of similarities, whatever the number of slides.

    Args:
        means: (S, D) mean features of the slides.
        patients: (S,) number of each slide's patient.
        least: Smallest cosine that can count.

    Reference: Iglewicz & Hoaglin (1993), How to Detect and Handle Outliers (median and MAD).
    """
    size = np.linalg.norm(means, axis=1, keepdims=True)
    unit = np.divide(means, size, out=np.zeros(means.shape, np.float32), where=size > 0, dtype=np.float32)
    two = np.full((len(unit), 2), -1.0, np.float32)  # second nearest, nearest
    for rows, columns, cosine in _blocks(unit, patients):
        two[rows] = _largest_two(np.column_stack([two[rows], cosine]))
        two[columns] = _largest_two(np.column_stack([two[columns], cosine.T]))
    second, nearest = np.where(two[:, :1] > -1, two, two[:, 1:]).T  # of two slides each has one other only
    known = second[second > -1].astype(np.float64)
    if not len(known):
        return Duplicates(np.empty((0, 2), np.int64), np.empty(0), 0, float("nan"), float("nan"))
    threshold = max(least, 1 - _outlying(1 - known))
    near = np.flatnonzero(nearest >= threshold)
    pairs, cosines, count = np.empty((0, 2), np.int64), np.empty(0), 0
    for rows, columns, cosine in _blocks(unit[near], patients[near]):
        first, second = np.nonzero(cosine >= threshold)
        count += len(first)
        found = np.column_stack([near[rows][first], near[columns][second]])
        pairs = np.concatenate([pairs, found])
        cosines = np.concatenate([cosines, cosine[first, second].astype(np.float64)])
        order = np.lexsort((pairs[:, 1], pairs[:, 0], -cosines))[:MOST]
        pairs, cosines = pairs[order], cosines[order]
    return Duplicates(pairs, np.minimum(cosines, 1.0), count, threshold, float(np.median(known)))


def _largest_two(values: Floats) -> Floats:
    """(N, 2) largest of each row, in ascending order."""
    return np.sort(np.partition(values, -2, axis=1)[:, -2:], axis=1)


def _outlying(distances: npt.NDArray[np.float64]) -> float:
    """Distance below which two slides are closer than slides are."""
    logs = np.log(np.maximum(distances, _CLOSEST))
    middle = float(np.median(logs))
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), _NO_SPREAD)
    return float(np.exp(middle - _Z * spread))


def _blocks(unit: Floats, patients: Ints) -> Iterator[tuple[slice, slice, Floats]]:
    """Cosines of every pair of slides once, a block at a time; -1 for slides of one patient."""
    for top in range(0, len(unit), _BLOCK):
        rows = slice(top, min(top + _BLOCK, len(unit)))
        for left in range(top, len(unit), _BLOCK):
            columns = slice(left, min(left + _BLOCK, len(unit)))
            cosine = unit[rows] @ unit[columns].T
            cosine[patients[rows, None] == patients[None, columns]] = -1
            if left == top:  # each pair once: the upper triangle, which a slide's own patient is not in
                cosine[np.tril_indices(len(cosine))] = -1
            yield rows, columns, cosine
