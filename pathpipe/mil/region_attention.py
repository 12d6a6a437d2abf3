"""Attention within the regions of a bag's square, and across regions through a few tokens of each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention, optionally with a convolutional position encoding of the attention map (EPEG).

    The encoding adds to the scores q_i k_j their depthwise convolution along i. That is linear in q, so the queries are
    convolved instead and the map is never held: the same numbers, in memory linear in the tokens. The convolution's
    bias, which a softmax can't feel, is left out.

    Args:
        kernel: Odd length of the convolution; None for none.

    Reference: Tang et al., Feature Re-Embedding, CVPR 2024, arXiv:2402.17228.
    """

    def __init__(self, dim: int, heads: int, dropout: float, kernel: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.position = None
        if kernel is not None:
            self.position = nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, L) -> (B, N, L), each of the B sequences by itself."""
        split = self.to_qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, H, d)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if self.position is not None:
            query = query + self.position(query)
        attended = scaled_dot_product_attention(query, key, value)  # (B, H, N, d)
        return self.dropout(self.to_out(attended.transpose(1, 2).flatten(2)))


class CrossRegionAttention(nn.Module):
    """Attention between regions: each gathers `tokens` summaries, these attend to each other, and are handed back.

    A tile gets summary n by how strongly it scored for it, rescaled to 0..1 within its region, times its softmax over
    the summaries. In a region of one tile the rescaled score is 0: nothing is handed back there.

    Reference: Tang et al., Feature Re-Embedding, CVPR 2024, arXiv:2402.17228.
    """

    def __init__(self, dim: int, heads: int, tokens: int, dropout: float) -> None:
        super().__init__()
        self.score = nn.Linear(dim, tokens, bias=False)
        self.attend = MultiHeadAttention(dim, heads, dropout)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, p, L) regions of p tiles -> (R, p, L)."""
        scores = self.score(regions).mT  # (R, n, p)
        summaries = scores.softmax(-1) @ regions  # (R, n, L)
        attended = self.attend(summaries.transpose(0, 1)).transpose(0, 1)  # among the regions, each n by itself
        return self.handed_back(scores).mT.to(attended.dtype) @ attended

    @staticmethod
    def handed_back(scores: Tensor) -> Tensor:
        """(R, n, p) scores -> weights of the n summaries for each tile, in float32 or wider: 1e-8 is 0 in float16."""
        scores = scores if scores.dtype == torch.float64 else scores.float()
        low, high = torch.aminmax(scores, dim=-1, keepdim=True)
        return (scores - low) / (high - low + 1e-8) * scores.softmax(1)
