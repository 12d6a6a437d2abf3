"""Losses that several models and wrappers share: of instances, and of attention maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot


def smooth_top1_svm(logits: Tensor, classes: Tensor, temperature: float = 1.0, margin: float = 1.0) -> Tensor:
    """Multi-class hinge loss with its maximum smoothed: t log(sum_j exp((s_j + margin [j != y] - s_y) / t)).

    Reference: Berrada et al., Smooth Loss Functions for Deep Top-k Classification, ICLR 2018, with k = 1. Their code
    takes the maximum itself where the best two scores are far apart, which moves the loss by less than 0.001 t.

    Args:
        logits: (R, C).
        classes: (R,) int64.

    Returns:
        (R,) losses.
    """
    other = 1.0 - one_hot(classes, logits.shape[1]).to(logits.dtype)
    gaps = logits + margin * other - logits.gather(1, classes[:, None])
    return temperature * torch.logsumexp(gaps / temperature, dim=1)


def negative_entropy(attention: Tensor) -> Tensor:
    """Sum of a log a over a bag's instances, the mean of its K maps: -log N where attention is even, 0 at its sharpest.

    Args:
        attention: (N, K) of one bag, each column summing to 1.
    """
    tiny = torch.finfo(attention.dtype).tiny  # 0 log 0 is 0, and its gradient must be finite
    return (attention * attention.clamp_min(tiny).log()).sum(0).mean()


def map_similarity(attention: Tensor) -> Tensor:
    """Mean cosine of all pairs of a bag's maps: 1 where they are the same, 0 where no instance is shared.

    Args:
        attention: (N, K) of one bag, or (N, H, K): pairs of the same head H, averaged over heads. K >= 2.
    """
    maps = normalize(attention.movedim(-1, 0), dim=1)  # (K, N) or (K, N, H)
    cosines = torch.einsum("in...,jn...->ij...", maps, maps)
    first, second = torch.triu_indices(len(maps), len(maps), offset=1)
    return cosines[first, second].mean()
