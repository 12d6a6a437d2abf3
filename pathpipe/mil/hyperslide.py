"""Hyperslides: what several slides left over, packed into one bag, and what it is labelled.

Reference: PackMIL, arXiv:2509.20923, and its published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

# ISUP grade -> Gleason pattern (most, second most), as the published code has it: no cancer counts as 2 + 2.
_GLEASON = ((2.0, 2.0), (3.0, 3.0), (3.0, 4.0), (4.0, 3.0), (4.0, 4.0), (5.0, 5.0))


def packs(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Bags into packs in their order: a new pack begins where the next bag would be too much for the last one."""
    found: list[list[int]] = []
    filled = 0
    for bag, length in enumerate(lengths):
        if not found or filled + length > room:
            found.append([])
            filled = 0
        found[-1].append(bag)
        filled += length
    return found


def class_mixture(classes: Tensor, counts: Tensor, outputs: int) -> Tensor:
    """(C,) targets of a hyperslide of several classes: tiles of each, the most frequent 1.

    Args:
        classes: (S,) int64 of its slides.
        counts: (S,) tiles of each, or ones.
    """
    summed = (one_hot(classes, outputs) * counts[:, None].to(torch.float32)).sum(0)
    return summed / summed.max()


def focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of (..., C) independent classes; alpha weighs both signs alike, as in the published code."""
    losses = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (alpha * (1 - (-losses).exp()) ** gamma * losses).mean()


def isup_mixture(grades: Tensor, counts: Tensor) -> Tensor:
    """(6,) soft ISUP grade of a hyperslide: tile-weighted mean Gleason patterns, read as a grade again.

    Two slides without cancer (grade 0, here 2 + 2) give a third of grade 0 and two thirds of grade 1: a property of the
    published table that is kept.

    Args:
        grades: (S,) int64 in 0 to 5.
        counts: (S,) tiles of each.
    """
    share = counts.double() / counts.sum()
    patterns = torch.tensor(_GLEASON, dtype=torch.float64, device=grades.device)[grades]
    major, minor = (float(value) for value in share @ patterns)
    grade = _grade(major, minor)
    low = min(int(grade), 4)
    soft = torch.zeros(6, device=grades.device)
    soft[low], soft[low + 1] = 1 - (grade - low), grade - low
    return soft


def _grade(major: float, minor: float) -> float:
    """Continuous ISUP grade of mean Gleason patterns."""
    total = major + minor
    if total < 6:
        return total / 6
    if total < 7:
        return 1 + (total - 6) * ((2 if minor >= major else 3) - 1)
    if total < 8:
        start = 2 if minor >= major else 3
        return start + (total - 7) * (4 - start)
    return min(4 + (total - 8), 5.0)


def asymmetric(logits: Tensor, target: Tensor, focus: float = 1.0) -> Tensor:
    """Asymmetric single-label loss of one row of logits (C,) whose class is the target's largest: -(1 - p)^focus log p.

    The negative classes' focus of the published loss has no effect on a label that isn't smoothed.

    Reference: Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021, single-label form.
    """
    log_share = logits.log_softmax(-1)[target.argmax()]
    return -((1 - log_share.exp()) ** focus) * log_share
