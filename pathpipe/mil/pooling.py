"""Pooling over the instances of each bag: one code for packed and padded batches.

A packed batch is reduced bag by bag: the matrix products of the layers already ran over all instances at once, and a
bag's own reduction needs no scatter, no copy of (T, K, L), and gives the same bits on every run, GPUs included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pathpipe.mil.bag import Bags

_LOWEST = float("-inf")


def softmax_over_instances(raw: Tensor, bags: Bags) -> Tensor:
    """Softmax within each bag, each of the K columns by itself.

    Args:
        raw: Scores, packed (T, K) or padded (B, N, K).

    Returns:
        Weights of the same layout: at least 0, summing to 1 over a bag, exactly 0 on padding.
    """
    if bags.mask is None:
        return torch.cat([part.softmax(0) for part in bags.split(raw)])
    return _fill(raw, bags.mask, _LOWEST).softmax(1)


def sum_over_instances(weights: Tensor, values: Tensor, bags: Bags) -> Tensor:
    """Weighted sum of each bag's instances.

    Args:
        weights: Packed (T, K) or padded (B, N, K), 0 on padding.
        values: Packed (T, L) or padded (B, N, L).

    Returns:
        (B, K, L).
    """
    if bags.mask is None:
        pairs = zip(bags.split(weights), bags.split(values), strict=True)
        return torch.stack([weight.T @ value for weight, value in pairs])
    return weights.transpose(1, 2) @ values


def mean_over_instances(values: Tensor, bags: Bags) -> Tensor:
    """Mean of each bag's instances, (B, L) from packed (T, L) or padded (B, N, L)."""
    if bags.mask is None:
        return torch.stack([part.mean(0) for part in bags.split(values)])
    return _fill(values, bags.mask, 0.0).sum(1) / bags.mask.sum(1, keepdim=True)


def max_over_instances(values: Tensor, bags: Bags) -> Tensor:
    """Largest value of each column in each bag, (B, L) from packed (T, L) or padded (B, N, L).

    The gradient goes to one instance a bag and column, also where several are equal.
    """
    if bags.mask is None:
        return torch.stack([part.max(0).values for part in bags.split(values)])
    return _fill(values, bags.mask, _LOWEST).max(1).values


def _fill(values: Tensor, mask: Tensor, value: float) -> Tensor:
    return values.masked_fill(~mask[..., None], value)
