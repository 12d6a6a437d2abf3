"""Attention-driven downsampling: instances weighted, shuffled and merged r by r, in training.

Reference: PackMIL, arXiv:2509.20923.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Merge = Literal["random", "random-per-token", "max"]


class Downsampler(nn.Module):
    """Weights instances by 1 + attention, passes them through two layers and, in training, merges r of them into one.

    Merging lays r instances side by side and keeps as many of their columns as one has: `random` the same columns of
    all tokens, `random-per-token` others in each; `max` takes the largest of the r. Predicting merges nothing.

    Args:
        dim: Width D of an instance.
        ratio: r.
        floor: Bags of at most `floor * ratio` instances are left whole.
    """

    def __init__(self, dim: int, ratio: int, floor: int = 0, merge: Merge = "random", attention_dim: int = 128) -> None:
        super().__init__()
        self.ratio, self.floor, self.merge = ratio, floor, merge
        self.attend = nn.Sequential(nn.Linear(dim, attention_dim), nn.Tanh(), nn.Linear(attention_dim, 1))
        self.before = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        self.after = nn.Linear(dim, dim)

    def forward(self, instances: Tensor) -> Tensor:
        """(n, D) of one bag -> (n, D), or (ceil(n / r), D) in training."""
        weighted = instances + self.attend(instances).softmax(0) * instances
        if not self.training or len(instances) <= self.floor * self.ratio:
            return self.after(self.before(weighted))
        order = torch.randperm(len(weighted), device=weighted.device)
        return self.after(self._merged(self.before(weighted[order])))

    def _merged(self, tokens: Tensor) -> Tensor:
        """(n, D) -> (ceil(n / r), D)."""
        count, dim = tokens.shape
        groups = -(-count // self.ratio)
        filled = torch.cat([tokens, tokens.new_zeros(groups * self.ratio - count, dim)])
        grouped = filled.view(groups, self.ratio, dim)
        if self.merge == "max":
            return grouped.amax(1)
        wide = grouped.transpose(1, 2).reshape(groups, dim * self.ratio)  # a column's r values side by side
        if self.merge == "random":
            return wide[:, torch.randperm(dim * self.ratio, device=wide.device)[:dim].sort().values]
        chosen = torch.rand(wide.shape, device=wide.device).topk(dim, dim=1).indices.sort(dim=1).values
        return wide.gather(1, chosen)
