"""Familiarity: how far a slide's mean feature lies from the slides that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pathpipe.mil.bag import Bag

SHRINKAGE = 0.1  # of each feature's variance towards the mean variance of all
_CUTS = 101  # quantiles kept: minimum, percentiles, maximum
Floats = npt.NDArray[np.float64]
Distances = Mapping[str, Mapping[str, Any]]  # role -> slides (int), quantiles (101,) float32


def feature_moments(bags: Sequence[Bag]) -> tuple[Tensor, Tensor]:
    """(D,) float32 mean and standard deviation of the tiles' features; a bag weighs alike however many tiles it has."""
    mean = np.mean([np.asarray(bag.features).mean(0, dtype=np.float64) for bag in bags], axis=0)
    squares = [np.square(np.asarray(bag.features, np.float32) - mean.astype(np.float32)).mean(0) for bag in bags]
    std = np.sqrt(np.mean(squares, axis=0, dtype=np.float64))
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def slide_means(bag: Bag) -> Floats:
    """(S, D) mean feature of each slide of a bag, in the order of `slide_ids`; one row where it doesn't know slides."""
    features = np.asarray(bag.features)
    if bag.slide is None or len(bag.slide_ids) < 2:
        return np.asarray(features.mean(0, dtype=np.float64))[None]
    return np.stack([features[bag.slide == slide].mean(0, dtype=np.float64) for slide in range(len(bag.slide_ids))])


def slide_distances(means: Floats, centre: Floats, std: Tensor) -> Floats:
    """(S,) distances of mean features (S, D) from a centre: root mean square, over features, of standard deviations.

    It is Mahalanobis' distance over sqrt(D) with a diagonal covariance whose variances are shrunk towards their mean,
    so that a feature that hardly varied in training doesn't decide alone.

    Args:
        centre: (D,), or (S, D) with one for each slide.
        std: (D,) of the training tiles.
    """
    variance = std.double().numpy() ** 2
    shrunk = (1 - SHRINKAGE) * variance + SHRINKAGE * variance.mean()
    return np.sqrt((np.square(means - centre) / np.maximum(shrunk, np.finfo(np.float32).tiny)).mean(1))


def known_distances(train: Sequence[Bag], val: Sequence[Bag], mean: Tensor, std: Tensor) -> dict[str, dict[str, Any]]:
    """What is usual: quantiles of the distances of the training and validation slides.

    A training slide's centre is that of the other patients, or its own part in it would bring it nearer than any new
    slide is.

    Args:
        mean: (D,) mean of the training bags' means, as `feature_moments` gives it.
        std: (D,) likewise.
    """
    centre, count = mean.double().numpy(), len(train)
    parts: dict[str, list[Floats]] = {"train": [], "val": []}
    for bag in train if count > 1 else ():
        own = np.asarray(bag.features).mean(0, dtype=np.float64)
        parts["train"].append(slide_distances(slide_means(bag), (count * centre - own) / (count - 1), std))
    for bag in val:
        parts["val"].append(slide_distances(slide_means(bag), centre, std))
    return {role: _summed_up(np.concatenate(found)) for role, found in parts.items() if found}


def _summed_up(distances: Floats) -> dict[str, Any]:
    quantiles = np.quantile(distances, np.linspace(0, 1, _CUTS))
    return {"slides": len(distances), "quantiles": torch.from_numpy(quantiles).float()}


def percentile_of(distance: float, known: Distances) -> float:
    """Share, in percent, of training and validation slides that lie nearer; NaN where none was kept."""
    slides = [int(one["slides"]) for one in known.values()]
    if not sum(slides):
        return float("nan")
    cuts, steps = [one["quantiles"].double().numpy() for one in known.values()], np.linspace(0, 100, _CUTS)
    return float(np.average([np.interp(distance, cut, steps, left=0.0) for cut in cuts], weights=slides))


def farthest(known: Distances) -> float:
    """Largest distance of a training or validation slide; NaN where none was kept."""
    return max((float(one["quantiles"][-1]) for one in known.values()), default=float("nan"))
