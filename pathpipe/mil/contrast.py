"""Contrastive learning of instances: its two losses, a queue of keys, and class prototypes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each query's own key among the negatives.

    Args:
        queries: (n, d), of length 1 as all others.
        keys: (n, d).
        negatives: (Q, d).

    Reference: He et al., Momentum Contrast, CVPR 2020, arXiv:1911.05722, eq. 1.
    """
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ negatives.T], dim=1) / temperature
    return cross_entropy(logits, torch.zeros(len(queries), dtype=torch.int64, device=queries.device))


def supervised_contrast(anchors: Tensor, others: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over anchors of the mean -log probability of those that share the anchor's label.

    Args:
        anchors: (n, d), of length 1 as all others.
        others: (m, d).
        labels: (n + m,) int64 of anchors and others; -1 is nobody's like. Each anchor has another of its label.

    Reference: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv:2004.11362, eq. 2.
    """
    count = len(anchors)
    logits = anchors @ torch.cat([anchors, others]).T / temperature
    itself = torch.eye(count, len(labels), dtype=torch.bool, device=logits.device)
    log_probability = logits - logits.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True)
    alike = (labels[:count, None] == labels[None]) & ~itself & (labels >= 0)
    return -((log_probability * alike).sum(1) / alike.sum(1)).mean()


class KeyQueue(nn.Module):
    """The last keys and their labels, oldest overwritten first; random directions of no label until it is full.

    The published code normalises its first keys along the wrong axis and gives them random labels, which makes random
    pairs alike until they are gone.

    Args:
        size: Keys kept.
        dim: Width of a key.
    """

    keys: Tensor
    labels: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor, labels: Tensor) -> None:
        """Add (n, d) keys with (n,) labels in their order; of more than fit, the last."""
        size = len(self.keys)
        keys, labels = keys[-size:], labels[-size:]
        rows = (self.pointer + torch.arange(len(keys), device=self.keys.device)) % size
        self.keys[rows] = keys.to(self.keys.dtype)
        self.labels[rows] = labels
        self.pointer.copy_((self.pointer + len(keys)) % size)


class Prototypes(nn.Module):
    """A direction for each class: the moving average of its instances' embeddings, of length 1 (0 until one came).

    Args:
        classes: Their number C.
        dim: Width of an embedding.
        momentum: What remains of a prototype after one more instance.
    """

    directions: Tensor

    def __init__(self, classes: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("directions", torch.zeros(classes, dim))

    def scores(self, embeddings: Tensor) -> Tensor:
        """(n, C) softmax of the cosines with (n, d) embeddings."""
        return (embeddings @ self.directions.T).softmax(1)

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Take in (n, d) embeddings of (n,) classes one after the other, then make the directions 1 long."""
        moved = self.directions.clone()
        for number in labels.unique().tolist():
            mine = embeddings[labels == number].to(moved.dtype)
            powers = self.momentum ** torch.arange(len(mine), -1, -1, device=moved.device, dtype=moved.dtype)
            moved[number] = powers[0] * moved[number] + (1 - self.momentum) * (powers[1:] @ mine)
        self.directions.copy_(normalize(moved, dim=1))
