"""Attribution: how much each tile moved what a model says, by gradients or by leaving tiles out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from heapq import heapify, heappush, heapreplace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pathpipe.errors import StoreError
from pathpipe.explain.aims import Aim
from pathpipe.explain.probing import Member, Probe, Rows
from pathpipe.mil.bag import Bags

Floats = npt.NDArray[np.float64]
STEPS = 32  # of integrated gradients


def gradient_norm(member: Member, aims: Sequence[Aim]) -> Floats:
    """(A, N) length of gradient x features of each tile: how much it matters, not which way.

    Reference: Shrikumar et al., Not just a black box: learning important features through propagating activation
    differences, 2016, arXiv:1605.01713 (gradient x input).
    """
    bags = Bags.pack([member.bag])
    rows = []
    for aim in aims:
        gradient = _gradient(member, aim, bags, bags.features)
        rows.append((gradient * bags.features).double().norm(dim=1).numpy())
    return np.stack(rows)


def integrated_gradients(member: Member, aims: Sequence[Aim], steps: int = STEPS) -> Floats:
    """(A, N) integrated gradients of each tile, summed over its features; positive speaks for the aim.

    The path begins where every tile is the mean tile of the training patients. The scores of a bag sum to the
    difference between its margin and that one's, up to the error of a midpoint rule of so many steps.

    Reference: Sundararajan, Taly & Yan, Axiomatic attribution for deep networks, ICML 2017, eq. 1, arXiv:1703.01365.
    """
    bags = Bags.pack([member.bag])
    step = bags.features - member.feature_mean
    rows = []
    for aim in aims:
        total = torch.zeros(len(step), dtype=torch.float64)
        for number in range(steps):
            at = member.feature_mean + step * ((number + 0.5) / steps)
            total += (_gradient(member, aim, bags, at) * step).double().sum(1)
        rows.append((total / steps).numpy())
    return np.stack(rows)


def _gradient(member: Member, aim: Aim, bags: Bags, features: Tensor) -> Tensor:
    """(N, D) of the margin with respect to the features; the model's own weights get none.

    Raises:
        StoreError: The model lets no gradient through.
    """
    at = features.detach().clone().requires_grad_(True)
    member.model.requires_grad_(False)
    margin = aim.margin(member.model(replace(bags, features=at)).logits).sum()
    if not margin.requires_grad:
        raise StoreError(
            f"model `{member.model.name}` lets no gradient through to its tiles", hint="use `--score occlusion`"
        )
    (gradient,) = torch.autograd.grad(margin, at)
    return gradient


def occlusion(member: Member, aims: Sequence[Aim], groups: Rows) -> Floats:
    """(A, N) drop of the margin when a tile's group is left out, shared equally among the group's tiles.

    Args:
        groups: (N,) group of each tile, from 0. A bag that is all one group has no rest, and its tiles score 0.
    """
    count = int(groups.max()) + 1
    if count == 1:
        return np.zeros((len(aims), len(groups)))
    probe = Probe(member)
    every = np.arange(len(groups))
    whole = probe.logits([every])
    sizes = np.bincount(groups, minlength=count)
    rest = probe.logits(every[groups != group] for group in range(count))
    drops = [(aim.margin(whole) - aim.margin(rest)).numpy() / sizes for aim in aims]
    return np.stack([drop[groups] for drop in drops])


def neighbours(xy0: npt.NDArray[np.int64], slide: npt.NDArray[np.int32] | None, most: int) -> Rows:
    """(N,) groups of neighbouring tiles, from 0: each tile its own where `most` groups suffice.

    Slides are halved, always the largest part at its longer side, until there are `most` parts: no group reaches from
    one slide to another, so there are at least as many as slides.

    Args:
        xy0: (N, 2) level-0 px.
        slide: (N,) each tile's slide.
    """
    if len(xy0) <= most:
        return np.arange(len(xy0))
    slides = np.zeros(len(xy0), np.int32) if slide is None else slide
    heap = [_part(np.flatnonzero(slides == one)) for one in np.unique(slides)]
    heapify(heap)
    while len(heap) < most:
        _, _, largest = heap[0]
        axis = int(np.argmax(np.ptp(xy0[largest], axis=0)))
        ordered = largest[np.argsort(xy0[largest, axis], kind="stable")]
        heapreplace(heap, _part(ordered[: len(ordered) // 2]))
        heappush(heap, _part(ordered[len(ordered) // 2 :]))
    groups = np.empty(len(xy0), np.int64)
    for number, (_, _, part) in enumerate(sorted(heap, key=lambda one: one[1])):
        groups[part] = number
    return groups


def _part(rows: Rows) -> tuple[int, int, Rows]:
    """Ordered by size, then by its first tile, which no other part has."""
    return -len(rows), int(rows.min()), rows
