"""The recycle network: many instances compressed into a few tokens by cross-attention to queries shared by all bags.

Reference: Tang et al., Multiple Instance Learning Framework with Masked Hard Instance Mining for Gigapixel
Histopathology Image Analysis (MHIM-MIL v2), arXiv:2509.11526.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

HEADS, HEAD_DIM = 8, 64


class Recycle(nn.Module):
    """Cross-attention whose queries are a slowly moving mean of what it gave before; they are not trained.

    Args:
        dim: Width L of an instance.
        tokens: k, how many come out.
        momentum: Of the queries: 1 never moves them.
    """

    queries: Tensor

    def __init__(self, dim: int, tokens: int, momentum: float, dropout: float = 0.1) -> None:
        super().__init__()
        inner = HEADS * HEAD_DIM
        self.momentum = momentum
        self.norm = nn.LayerNorm(dim)
        self.to_query = nn.Linear(dim, inner, bias=False)
        self.to_key_value = nn.Linear(dim, 2 * inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(dropout))
        bound = math.sqrt(6 / (3 * dim / 2 + dim))  # 768 + 512 where dim is 512
        self.register_buffer("queries", torch.empty(tokens, dim).uniform_(-bound, bound))

    def forward(self, instances: Tensor) -> Tensor:
        """(n, L) -> (k, L)."""
        keys, values = self.to_key_value(self.norm(instances)).chunk(2, dim=-1)
        query = self.to_query(self.norm(self.queries))
        parts = (part.unflatten(-1, (HEADS, HEAD_DIM)).transpose(0, 1) for part in (query, keys, values))
        mixed = scaled_dot_product_attention(*parts)  # (heads, k, 64)
        return self.out(mixed.transpose(0, 1).flatten(1))

    @torch.no_grad()
    def follow(self, tokens: Tensor) -> None:
        """Move the queries towards tokens (k, L) that were given."""
        self.queries.mul_(self.momentum).add_(tokens, alpha=1 - self.momentum)
