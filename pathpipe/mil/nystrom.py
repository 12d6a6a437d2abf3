"""Nystrom attention: softmax attention through a few landmarks, so that its cost grows with the number of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention


def pseudo_inverse(matrix: Tensor, iterations: int) -> Tensor:
    """Moore-Penrose inverse by the third-order iteration, always in float32.

    The first guess is scaled by each sample's own largest row and column sum, over its heads: in the published code it
    is that of the whole batch, so that a sample's result depends on its company.

    Args:
        matrix: (B, H, M, M).

    Reference: Xiong et al., Nystromformer, AAAI 2021, arXiv:2102.03902.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        matrix = matrix.float() if matrix.dtype != torch.float64 else matrix
        sums = [matrix.abs().sum(axis).amax((-2, -1))[:, None, None, None] for axis in (-1, -2)]
        guess = matrix.mT / (sums[0] * sums[1])
        one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        for _ in range(iterations):
            product = matrix @ guess
            guess = 0.25 * guess @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return guess


class NystromAttention(nn.Module):
    """Multi-head Nystrom attention with a depthwise convolution of the values along the sequence added.

    A landmark is the mean of a run of neighbouring tokens. Their number must divide the sequence: the published code
    puts zero tokens before it, which then take part in every softmax (`zero_tokens`); without them the first run is
    shorter, and there are fewer landmarks than asked where the sequence is short.

    Args:
        dim: Width of a token, divisible by `heads`.
        landmarks: Number of runs.
        iterations: Of the pseudo-inverse.
        zero_tokens: Fill the sequence up as the published code does.
        dropout: Of the output, in training.

    Reference: Xiong et al., Nystromformer, AAAI 2021, arXiv:2102.03902.
    """

    def __init__(
        self, dim: int, heads: int, landmarks: int, iterations: int, zero_tokens: bool, dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.landmarks, self.iterations, self.zero_tokens = heads, landmarks, iterations, zero_tokens
        self.scale = (dim // heads) ** -0.5
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.residual = nn.Conv2d(heads, heads, (33, 1), padding=(16, 0), groups=heads, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) -> attended (B, N, L) and (B, H, N), what the first token takes from each token.

        The latter is the first row of the approximated attention matrix: it may be negative and sums to 1 only nearly.
        No gradient flows through it.
        """
        query, key, value, bridge, inner, front = self._prepared(tokens)
        through = scaled_dot_product_attention(query, bridge[1], inner @ self._from_landmarks(bridge[0], key, value))
        attended = through + self.residual(value)
        out = self.dropout(self.to_out(_merged(attended[:, :, front:])))
        return out, self._first_row(query[:, :, front : front + 1], key, bridge, inner)[..., front:]

    def first(self, tokens: Tensor) -> Tensor:
        """The first token of what `forward` gives, (B, N, L) -> (B, L), without the work for the others."""
        query, key, value, bridge, inner, front = self._prepared(tokens)
        query = query[:, :, front : front + 1]
        through = scaled_dot_product_attention(query, bridge[1], inner @ self._from_landmarks(bridge[0], key, value))
        begin = max(0, front - 16)
        near = self.residual(value[:, :, begin : front + 17])[:, :, front - begin : front - begin + 1]
        return self.dropout(self.to_out(_merged(through + near))).squeeze(1)

    def _prepared(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor, int]:
        """Queries, keys and values (B, H, N', d), landmark queries and keys, pseudo-inverse, zero tokens in front."""
        split = self.to_qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, H, d)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        length = query.shape[2]
        run = -(-length // self.landmarks)
        runs = self.landmarks if self.zero_tokens else -(-length // run)
        front = runs * run - length
        filled = [pad(part, (0, 0, front, 0)) for part in (query, key)]
        means = [part.unflatten(2, (runs, run)).mean(3) for part in filled]
        if self.zero_tokens:
            query, key, value = *filled, pad(value, (0, 0, front, 0))
            front_tokens = front
        else:
            means = [torch.cat([part[:, :, :1] * (run / (run - front)), part[:, :, 1:]], 2) for part in means]
            front_tokens = 0
        inner = (means[0] @ means[1].mT * self.scale).softmax(-1)
        return query, key, value, (means[0], means[1]), pseudo_inverse(inner, self.iterations), front_tokens

    def _from_landmarks(self, landmark: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, H, M, d): the values as the landmarks see them, in float32 for the pseudo-inverse."""
        seen = scaled_dot_product_attention(landmark, key, value)
        return seen if seen.dtype == torch.float64 else seen.float()

    @torch.no_grad()
    def _first_row(self, query: Tensor, key: Tensor, bridge: tuple[Tensor, Tensor], inner: Tensor) -> Tensor:
        """(B, H, N'), head by head: the landmarks' attention to all tokens is large."""
        outer = ((query @ bridge[1].mT * self.scale).softmax(-1).to(inner.dtype) @ inner)[:, :, 0]  # (B, H, M)
        rows = []
        for head in range(self.heads):
            seen = (bridge[0][:, head] @ key[:, head].mT * self.scale).softmax(-1)  # (B, M, N')
            rows.append((outer[:, head, None].to(seen.dtype) @ seen)[:, 0])
        return torch.stack(rows, 1)


def _merged(heads: Tensor) -> Tensor:
    """(B, H, N, d) -> (B, N, H d)."""
    return heads.transpose(1, 2).flatten(2)
