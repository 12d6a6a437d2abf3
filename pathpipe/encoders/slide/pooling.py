"""Slide embeddings that need no training: mean, maximum, mean and standard deviation of the tiles' features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.encoders.slide.slide_encoder import SlideCard, SlideTiles

_ROWS = 8192  # at a time: float64 beside a hundred thousand float16 rows would be four times their size


class MeanPooling:
    """Mean of every feature, summed in float64."""

    card = SlideCard(name="mean", summary="Mean of the tiles' features")
    identity: Mapping[str, Any] = {"name": "mean", "version": 1}

    def __init__(self, device: str) -> None:
        """`device` is of no concern to arithmetic on the host."""

    def embed(self, tiles: SlideTiles) -> npt.NDArray[np.float32]:
        """See `SlideEncoder.embed`; (D,)."""
        return _mean(tiles.features).astype(np.float32)


class MaxPooling:
    """Largest value of every feature."""

    card = SlideCard(name="max", summary="Largest value of every feature")
    identity: Mapping[str, Any] = {"name": "max", "version": 1}

    def __init__(self, device: str) -> None:
        """`device` is of no concern to arithmetic on the host."""

    def embed(self, tiles: SlideTiles) -> npt.NDArray[np.float32]:
        """See `SlideEncoder.embed`; (D,)."""
        return np.asarray(tiles.features.max(axis=0), np.float32)


class MeanStdPooling:
    """Mean, then standard deviation (of the tiles there are, not an estimate): how a slide is, and how varied."""

    card = SlideCard(name="mean-std", summary="Mean and standard deviation, concatenated")
    identity: Mapping[str, Any] = {"name": "mean-std", "version": 1}

    def __init__(self, device: str) -> None:
        """`device` is of no concern to arithmetic on the host."""

    def embed(self, tiles: SlideTiles) -> npt.NDArray[np.float32]:
        """See `SlideEncoder.embed`; (2 D,)."""
        mean = _mean(tiles.features)
        squares = np.zeros_like(mean)
        for start in range(0, len(tiles.features), _ROWS):
            away = tiles.features[start : start + _ROWS].astype(np.float64) - mean
            squares += np.square(away).sum(axis=0)
        return np.concatenate([mean, np.sqrt(squares / len(tiles.features))]).astype(np.float32)


def _mean(features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), _ROWS):
        total += features[start : start + _ROWS].sum(axis=0, dtype=np.float64)
    return total / len(features)
