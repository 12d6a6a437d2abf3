"""Which instances a student doesn't see: masking by a teacher's scores.

Reference: Tang et al., Multiple Instance Learning Framework with Masked Hard Instance Mining, ICCV 2023,
arXiv:2307.15254.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hiding:
    """Shares of a bag's instances to hide, each of the whole bag; the three sets may overlap.

    Attributes:
        high: Of the highest scored (hard instance mining); they are drawn from `high / pool` of the bag.
        pool: Which part of the highest scored is hidden: 1 hides exactly the top, less draws from more of them.
        low: Of the lowest scored.
        random: Of all.
    """

    high: float
    pool: float = 1.0
    low: float = 0.0
    random: float = 0.0


def kept_rows(scores: Tensor, hiding: Hiding) -> Tensor:
    """Rows of a bag that stay, ascending; at least one.

    Args:
        scores: (n, H) of H heads; the heads vote for what is high and low.

    Returns:
        (k,) int64.
    """
    instances = len(scores)
    hidden = torch.zeros(instances, dtype=torch.bool, device=scores.device)
    if hiding.random > 0:
        hidden[_drawn(torch.arange(instances, device=scores.device), math.ceil(instances * hiding.random))] = True
    if hiding.low > 0:
        hidden[voted(-scores, math.ceil(instances * hiding.low))] = True
    if hiding.high > 0:
        candidates = voted(scores, min(instances, math.ceil(instances * hiding.high / hiding.pool)))
        hidden[_drawn(candidates, math.ceil(len(candidates) * hiding.pool))] = True
    if hidden.all():  # a bag of few instances: what is scored highest is the least that must be seen
        hidden[scores.mean(1).argmax()] = False
    return (~hidden).nonzero().squeeze(1)


def voted(scores: Tensor, count: int) -> Tensor:
    """(count,) rows with the most votes, each head voting for its `count` highest; ties go to the higher mean score."""
    votes = torch.zeros(len(scores), dtype=scores.dtype, device=scores.device)
    for head in scores.unbind(1):
        votes[head.topk(count).indices] += 1
    by_score = scores.mean(1).argsort(descending=True, stable=True)
    return by_score[votes[by_score].argsort(descending=True, stable=True)][:count]


def _drawn(rows: Tensor, count: int) -> Tensor:
    """`count` of the rows at random."""
    if count >= len(rows):
        return rows
    return rows[torch.randperm(len(rows), device=rows.device)[:count]]
