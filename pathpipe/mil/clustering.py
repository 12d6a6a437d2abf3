"""Deep embedded clustering: soft assignment to centroids, its sharpened target, and where the centroids start."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

_ROUNDS = 20  # of k-means


def soft_assignment(tiles: Tensor, centroids: Tensor) -> Tensor:
    """Student-t kernel with one degree of freedom, 1 / (1 + |z - mu|^2), made to sum to 1: (n, K), in float32 or wider.

    Reference: Xie et al., Unsupervised Deep Embedding for Clustering Analysis, ICML 2016, arXiv:1511.06335, eq. 1.
    """
    kernel = 1 / (1 + _squared_distances(tiles, centroids))
    return kernel / kernel.sum(1, keepdim=True)


@torch.no_grad()
def sharpened(assignment: Tensor) -> Tensor:
    """The target P of an assignment Q (n, K): squared, each cluster by its own size, each row summing to 1.

    Reference: Xie et al., ICML 2016, eq. 3. It is fixed for the loss: no gradient.
    """
    weight = assignment**2 / assignment.sum(0)
    return weight / weight.sum(1, keepdim=True)


def clustering_loss(assignment: Tensor) -> Tensor:
    """Mean over tiles of KL(P || Q), P the sharpened Q: (n, K) -> scalar.

    Reference: Xie et al., ICML 2016, eq. 2.
    """
    target = sharpened(assignment)
    return torch.special.xlogy(target, target / assignment).sum(1).mean()


@torch.no_grad()
def k_means(tiles: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centroids (count, L) of (n, L) tiles, seeded far apart at random; with fewer tiles some are the same.

    Reference: Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007.
    """
    tiles = tiles.float()
    chosen = [int(torch.randint(len(tiles), (), generator=generator))]
    nearest = _squared_distances(tiles, tiles[chosen]).squeeze(1)
    for _ in range(1, count):
        weights = nearest.cpu().double() + torch.finfo(torch.float64).tiny
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        nearest = nearest.minimum(_squared_distances(tiles, tiles[chosen[-1:]]).squeeze(1))
    centroids = tiles[chosen]
    for _ in range(_ROUNDS):
        own = _squared_distances(tiles, centroids).argmin(1)
        sizes = torch.bincount(own, minlength=count)
        sums = one_hot(own, count).to(tiles.dtype).T @ tiles  # in one order, on a GPU too
        centroids = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centroids)
    return centroids


def nearest_others(nodes: Tensor, count: int) -> Tensor:
    """(R, min(count, R - 1)) int64 the other nodes (R, L) of the largest cosine, largest first; no gradient."""
    with torch.no_grad():
        units = torch.nn.functional.normalize(nodes.float(), dim=1)
        cosines = (units @ units.T).fill_diagonal_(float("-inf"))
        return cosines.topk(min(count, len(nodes) - 1)).indices


def _squared_distances(tiles: Tensor, centroids: Tensor) -> Tensor:
    """(n, K) in float32 or wider, whatever the autocast."""
    with torch.autocast(tiles.device.type, enabled=False):
        if tiles.dtype != torch.float64:
            tiles, centroids = tiles.float(), centroids.float()
        products = tiles @ centroids.T
        return ((tiles**2).sum(1, keepdim=True) - 2 * products + (centroids**2).sum(1)).clamp_min(0)
