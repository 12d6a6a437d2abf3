"""Pooling over the instances of each bag: one code for packed and padded batches.

A packed batch is reduced in one of two ways with the same result to rounding. Bag by bag: the matrix products of the
layers already ran over all instances at once, and a bag's own reduction needs no copy of (T, K, L). Or all bags at
once, as matrices (B, K, T) that are zero outside a bag: a handful of kernels however many bags there are, which wins
where starting a kernel costs more than its arithmetic: on a GPU, and for many short bags on a CPU. Neither scatters, so
both give the same bits on every run, GPUs included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pathpipe.mil.bag import Bags

_LOWEST = float("-inf")
# Largest B x K x T that is reduced at once; measured on a CPU, where the products with zeros count. On a GPU they are a
# thousandth of the layers' arithmetic, and memory is the limit.
_AT_ONCE = {"cpu": 1 << 14, "cuda": 1 << 26}
_FEWEST_BAGS = {"cpu": 8, "cuda": 2}
_ROOM = 2.0  # padding a packed batch may take, in lengths of the batch


def softmax_over_instances(raw: Tensor, bags: Bags) -> Tensor:
    """Softmax within each bag, each of the K columns by itself.

    Args:
        raw: Scores, packed (T, K) or padded (B, N, K).

    Returns:
        Weights of the same layout: at least 0, summing to 1 over a bag, exactly 0 on padding.
    """
    if bags.mask is not None:
        return _fill(raw, bags.mask, _LOWEST).softmax(1)
    if not _all_at_once(bags, raw):
        return torch.cat([part.softmax(0) for part in bags.split(raw)])
    outside = ~_membership(bags, raw.device)[:, None]  # (B, 1, T)
    return raw.T[None].masked_fill(outside, _LOWEST).softmax(2).sum(0).T


def sum_over_instances(weights: Tensor, values: Tensor, bags: Bags) -> Tensor:
    """Weighted sum of each bag's instances.

    Args:
        weights: Packed (T, K) or padded (B, N, K), 0 on padding.
        values: Packed (T, L) or padded (B, N, L).

    Returns:
        (B, K, L).
    """
    if bags.mask is not None:
        return weights.transpose(1, 2) @ values
    if not _all_at_once(bags, weights):
        pairs = zip(bags.split(weights), bags.split(values), strict=True)
        return torch.stack([weight.T @ value for weight, value in pairs])
    spread = weights.T[None] * _membership(bags, weights.device)[:, None]  # (B, K, T)
    return (spread.flatten(0, 1) @ values).unflatten(0, spread.shape[:2])


def mean_over_instances(values: Tensor, bags: Bags) -> Tensor:
    """Mean of each bag's instances, (B, L) from packed (T, L) or padded (B, N, L)."""
    wide = torch.promote_types(values.dtype, torch.float32)  # the sum over a long bag is no number of float16
    if bags.mask is not None:
        return (_fill(values, bags.mask, 0.0).sum(1, dtype=wide) / bags.mask.sum(1, keepdim=True)).to(values.dtype)
    if not _all_at_once(bags, values[:, :1]):
        return torch.stack([part.mean(0) for part in bags.split(values)])
    members = _membership(bags, values.device).to(wide)
    with torch.autocast(values.device.type, enabled=False):
        return ((members @ values.to(wide)) / members.sum(1, keepdim=True)).to(values.dtype)


def max_over_instances(values: Tensor, bags: Bags) -> Tensor:
    """Largest value of each column in each bag, (B, L) from packed (T, L) or padded (B, N, L).

    The gradient goes to one instance a bag and column, also where several are equal.
    """
    if bags.mask is not None:
        return _fill(values, bags.mask, _LOWEST).max(1).values
    if _on_cpu(values) or not _fits_padded(bags):
        return torch.stack([part.max(0).values for part in bags.split(values)])
    # short bags repeat their first instance: whichever copy is the largest, the gradient reaches that one
    places = torch.arange(max(bags.lengths), device=values.device)
    lengths, starts = bags.offsets.diff().to(values.device), bags.offsets[:-1].to(values.device)
    rows = starts[:, None] + torch.where(places < lengths[:, None], places, 0)
    return values[rows].max(1).values


def _all_at_once(bags: Bags, columns: Tensor) -> bool:
    """Whether a packed batch is reduced in one go; `columns` is (T, K)."""
    kind = columns.device.type
    return len(bags) >= _FEWEST_BAGS.get(kind, 2) and len(bags) * columns.numel() <= _AT_ONCE.get(kind, 1 << 26)


def _on_cpu(values: Tensor) -> bool:
    return values.device.type == "cpu"


def _fits_padded(bags: Bags) -> bool:
    return max(bags.lengths) * len(bags) <= _ROOM * sum(bags.lengths)


def _membership(bags: Bags, device: torch.device) -> Tensor:
    """(B, T) bool: which instance is whose."""
    edges = bags.offsets.to(device)
    places = torch.arange(sum(bags.lengths), device=device)
    return (places >= edges[:-1, None]) & (places < edges[1:, None])


def extreme_instances(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows of the highest and of the lowest scores of one bag, best and worst first, no instance in both.

    Args:
        scores: (N,).
        count: How many of each; half the bag where that is less, the odd one to the highest.
    """
    top = scores.topk(min(count, (len(scores) + 1) // 2)).indices
    rest = scores.index_fill(0, top, float("inf"))  # equal scores must not be taken twice
    return top, rest.topk(min(count, len(scores) // 2), largest=False).indices


def _fill(values: Tensor, mask: Tensor, value: float) -> Tensor:
    return values.masked_fill(~mask[..., None], value)
