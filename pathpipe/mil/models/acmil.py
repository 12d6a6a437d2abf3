"""ACMIL: several attention branches that must differ, their strongest instances masked at random in training."""

from __future__ import annotations

from math import sqrt
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pathpipe.errors import SettingsError
from pathpipe.mil.attention import GatedAttention
from pathpipe.mil.bag import Bags
from pathpipe.mil.losses import map_similarity
from pathpipe.mil.model import Auxiliary, MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.pooling import softmax_over_instances, sum_over_instances
from pathpipe.settings import Settings


class AcmilOptions(Settings):
    """Options of ACMIL."""

    hidden: int = Field(512, ge=1, description="Width of the tile embedding")
    attention: Literal["gated", "multi-head"] = Field(
        "gated", description="Gated attention, or multi-head attention of one learned query a branch"
    )
    attention_dim: int = Field(128, ge=1, description="Width of the gated attention network")
    heads: int = Field(8, ge=1, description="Heads of a branch, for multi-head attention")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of a branch's embedding in training, for multi-head")
    branches: int = Field(5, ge=1, description="Attention branches")
    mask_top: int = Field(10, ge=0, description="Strongest tiles of a branch among which training masks some")
    mask_ratio: float = Field(0.6, ge=0, le=1, description="Share of those that is masked; 0 masks none")
    branch_weight: float = Field(1.0, ge=0, description="Weight of the branches' own loss")
    diversity_weight: float = Field(1.0, ge=0, description="Weight of the likeness of the branches' maps")


class Acmil(StagedModule):
    """Attention-challenging MIL: multiple branch attention and stochastic top-k instance masking.

    A bag is embedded by the mean of the branches' maps. In training each branch has logits of its own, maps are driven
    apart, and some of the strongest instances are masked before the softmax (never all of a bag); the bag's map and the
    likeness of maps see the mask too, as in the official code.
    """

    card = ModelCard(
        summary="Several attention branches kept apart, their strongest tiles masked at random in training",
        paper=(
            "Zhang et al., Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification, "
            "ECCV 2024, arXiv:2311.07125"
        ),
        attention=True,
        permutation_invariant=True,
    )
    Options: ClassVar[type[Settings]] = AcmilOptions
    options: AcmilOptions

    def __init__(self, dim_in: int, dim_out: int, options: AcmilOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        self.embed = nn.Sequential(nn.Linear(dim_in, options.hidden, bias=False), nn.ReLU())
        self.branches = _Gated(options) if options.attention == "gated" else _MultiHead(options)
        # One branch is the bag's own map: nothing to tell apart and nothing more to learn.
        branches = options.branches if options.branches > 1 else 0
        self.branch_heads = nn.ModuleList(nn.Linear(options.hidden, dim_out) for _ in range(branches))
        self.head = nn.Linear(options.hidden, dim_out)
        self.output_layers = ("head", *(f"branch_heads.{number}" for number in range(branches)))
        init_linear(self)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits and the maps of all branches; in training the branches' logits and the likeness of their maps."""
        raw = self.branches.scores(hidden.features)  # (..., H * K), branch k of head h at h * K + k
        if self.training:
            raw = self._masked(raw, hidden)
        attention = softmax_over_instances(raw, hidden)
        pooled = sum_over_instances(attention, hidden.features, hidden)
        pooled = pooled.unflatten(1, (-1, self.options.branches))  # (B, H, K, L)
        embedding = self.branches.bag(pooled.mean(2))
        auxiliary, losses = {}, {}
        if self.training and self.branch_heads:
            own = self.branches.each(pooled)  # (B, K, L)
            logits = torch.stack([head(own[:, number]) for number, head in enumerate(self.branch_heads)], dim=1)
            bag = torch.arange(len(hidden), device=logits.device).repeat_interleave(self.options.branches)
            auxiliary["branches"] = Auxiliary(logits.flatten(0, 1), bag, weight=self.options.branch_weight)
            maps = [part.unflatten(1, (-1, self.options.branches)) for part in hidden.split(attention)]
            losses["diversity"] = torch.stack([map_similarity(part) for part in maps]).mean()
        return MILOutput(
            logits=self.head(embedding),
            embedding=embedding,
            attention=attention,
            attention_raw=raw,
            instance_logits=self.head(hidden.features) if self.options.attention == "gated" else None,
            losses=losses,
            loss_weights={"diversity": self.options.diversity_weight},
            auxiliary=auxiliary,
        )

    def _masked(self, raw: Tensor, bags: Bags) -> Tensor:
        """Scores with a random share of each map's strongest at minus infinity."""
        parts = []
        for part in bags.split(raw):
            strongest = min(self.options.mask_top, len(part))
            count = min(int(strongest * self.options.mask_ratio), len(part) - 1)
            if count:
                rows = part.topk(strongest, dim=0).indices
                drawn = torch.rand(rows.shape, device=rows.device).argsort(0)[:count]
                part = part.scatter(0, rows.gather(0, drawn), float("-inf"))
            parts.append(part)
        return bags.join(parts)


class _Gated(nn.Module):
    """Branches that share a gated attention network but for its last layer."""

    def __init__(self, options: AcmilOptions) -> None:
        super().__init__()
        self.attend = GatedAttention(options.hidden, options.attention_dim, options.branches)

    def scores(self, hidden: Tensor) -> Tensor:
        """(..., L) -> (..., K)."""
        return self.attend(hidden)

    def each(self, pooled: Tensor) -> Tensor:
        """Embeddings (B, K, L) of the branches from what they pooled, (B, 1, K, L)."""
        return pooled.squeeze(1)

    def bag(self, pooled: Tensor) -> Tensor:
        """Embedding (B, L) of the bag from what the mean map pooled, (B, 1, L)."""
        return pooled.squeeze(1)


class _MultiHead(nn.Module):
    """Branches of multi-head attention, each with a learned query and layers of its own.

    Keys and values are never written out: a query's scores are h . (W_k^T q), and the weighted sum of values is the
    value layer of the weighted sum of instances, weights summing to 1. A key's bias would cancel in the softmax.
    """

    def __init__(self, options: AcmilOptions) -> None:
        super().__init__()
        width, branches = options.hidden, options.branches
        if width % options.heads:
            raise SettingsError(f"hidden {width} can't be shared by {options.heads} heads", hint="use a multiple")
        self.probes = nn.ModuleList(_Probe(width, options.heads) for _ in range(branches))
        self.outputs = nn.ModuleList(_Output(options) for _ in range(branches if branches > 1 else 0))
        self.bag_output = _Output(options)

    def scores(self, hidden: Tensor) -> Tensor:
        """(..., L) -> (..., H * K)."""
        return hidden @ torch.stack([probe() for probe in self.probes], dim=1).flatten(0, 1).T

    def each(self, pooled: Tensor) -> Tensor:
        """Embeddings (B, K, L) of the branches from what their heads pooled, (B, H, K, L)."""
        return torch.stack([output(pooled[:, :, number]) for number, output in enumerate(self.outputs)], dim=1)

    def bag(self, pooled: Tensor) -> Tensor:
        """Embedding (B, L) of the bag from what the heads' mean maps pooled, (B, H, L)."""
        return self.bag_output(pooled)


class _Probe(nn.Module):
    """A learned query as instances meet it, through the key layer: a direction a head, whose products are scores."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.shape = (heads, width // heads)
        self.query = nn.Parameter(torch.randn(width) * 1e-6)  # the official code's start: attention is even
        self.query_layer = nn.Linear(width, width)
        self.key_layer = nn.Linear(width, width, bias=False)

    def forward(self) -> Tensor:
        """(H, L)."""
        wanted = self.query_layer(self.query).view(self.shape) / sqrt(self.shape[1])
        return torch.einsum("hd,hdl->hl", wanted, self.key_layer.weight.view(*self.shape, -1))


class _Output(nn.Module):
    """The value and output layers of multi-head attention, after the pooling."""

    def __init__(self, options: AcmilOptions) -> None:
        super().__init__()
        self.value = nn.Linear(options.hidden, options.hidden)
        self.out = nn.Linear(options.hidden, options.hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.norm = nn.LayerNorm(options.hidden, eps=1e-6)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, H, L) -> (B, L): head h makes its own slice of the values."""
        heads = pooled.shape[1]
        values = self.value(pooled).unflatten(2, (heads, -1))  # (B, H, H, L / H), of which the diagonal counts
        return self.norm(self.dropout(self.out(values.diagonal(dim1=1, dim2=2).transpose(1, 2).flatten(1))))
