"""Attention scores of instances, plain and gated."""

from __future__ import annotations

from torch import Tensor, nn

from pathpipe.mil.dropout import Dropout


class Attention(nn.Module):
    """w^T tanh(V h): one score an instance.

    Reference: Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018, eq. 8.
    """

    def __init__(self, dim: int, attention_dim: int) -> None:
        super().__init__()
        self.content = nn.Linear(dim, attention_dim)
        self.score = nn.Linear(attention_dim, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., L) -> (..., 1)."""
        return self.score(self.content(hidden).tanh())


class GatedAttention(nn.Module):
    """w^T (tanh(V h) * sigmoid(U h)): K scores an instance, one for each map.

    Reference: Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018, eq. 9.

    Args:
        maps: Number of maps K.
        dropout: Of both arms in training.
    """

    def __init__(self, dim: int, attention_dim: int, maps: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.content = nn.Linear(dim, attention_dim)
        self.gate = nn.Linear(dim, attention_dim)
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.score = nn.Linear(attention_dim, maps)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., L) -> (..., K)."""
        return self.score(self.dropout(self.content(hidden).tanh()) * self.dropout(self.gate(hidden).sigmoid()))
