"""Graphs whose edges come from the tiles' features."""

from __future__ import annotations

import torch
from torch import Tensor

_SCORES = 2**24  # held at once: 64 MiB in float32
_RUN = 64


@torch.no_grad()
def top_neighbours(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """For each query the keys of the largest scalar product, largest first; a tile may be its own neighbour.

    The N x M scores are made a few rows at a time, so memory grows with N + M.

    Args:
        queries: (N, L).
        keys: (M, L).

    Returns:
        (N, min(count, M)) int64 rows of `keys`, without gradient.
    """
    count = min(count, len(keys))
    number = -(-len(keys) // _RUN)
    rows = max(1, _SCORES // (number * _RUN))
    scores = queries.new_full((min(rows, len(queries)), number * _RUN), float("-inf"))
    return torch.cat([_largest(part, keys, count, scores[: len(part)]) for part in queries.split(rows)])


def _largest(queries: Tensor, keys: Tensor, count: int, scores: Tensor) -> Tensor:
    """(n, count) rows of `keys`: sought in the `count` runs of neighbouring keys that have the largest maxima.

    The maxima of runs are far cheaper than sorting all scores, and no other run can hold one of the largest.

    Args:
        scores: Room for them, (n, number of runs times their length), the excess -inf.
    """
    torch.mm(queries, keys.T, out=scores[:, : len(keys)])
    runs = scores.unflatten(1, (-1, _RUN))
    best = runs.amax(2).topk(min(count, runs.shape[1])).indices  # (n, r)
    candidates = runs.gather(1, best[..., None].expand(-1, -1, _RUN)).flatten(1)
    place = candidates.topk(count).indices
    return best.gather(1, place // _RUN) * _RUN + place % _RUN
