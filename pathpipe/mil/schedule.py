"""Schedules of a factor over training."""

from __future__ import annotations

import math


def cosine(start: float, end: float, at: int, total: int) -> float:
    """Half a cosine from `start` at 0 towards `end`, which is reached at `total`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(at, total) / max(total, 1))) / 2
