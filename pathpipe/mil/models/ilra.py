"""ILRA: instances refined through a few latent vectors, then pooled by attention of a learned query."""

from __future__ import annotations

from math import sqrt
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.model import MILModule, MILOutput, ModelCard, init_linear
from pathpipe.mil.pooling import softmax_over_instances, sum_over_instances
from pathpipe.settings import Settings


class IlraOptions(Settings):
    """Options of ILRA."""

    hidden: int = Field(256, ge=1, description="Width of the refined tiles")
    layers: int = Field(2, ge=0, description="Refining blocks; 0: pooling alone")
    heads: int = Field(8, ge=1, description="Heads of every attention")
    latents: int = Field(1, ge=1, description="Latent vectors of a block, and queries of the pooling")
    norm: bool = Field(False, description="Layer norm in the blocks and the pooling")


class Ilra(MILModule):
    """Iterative low-rank attention: all-to-all attention by way of a few latents, so that cost grows with N, not N^2.

    As in the official code queries, keys and values go through a layer of their own before multi-head attention's. What
    can't matter is left out: biases of keys, which cancel in a softmax, and the comparison of instances with a single
    latent. With several latents the bag is embedded by the mean of the pooling's answers (the official code then has
    logits for each).

    Reference: Xiang et al., ICLR 2023, eq. 16.
    """

    card = ModelCard(
        summary="Tiles refined by low-rank attention, pooled by a learned query",
        paper=(
            "Xiang et al., Exploring Low-Rank Property in Multiple Instance Learning for Whole Slide Image "
            "Classification, ICLR 2023"
        ),
        attention=True,
        permutation_invariant=True,
    )
    Options: ClassVar[type[Settings]] = IlraOptions

    def __init__(self, dim_in: int, dim_out: int, options: IlraOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        if options.hidden % options.heads:
            raise SettingsError(f"hidden {options.hidden} can't be shared by {options.heads} heads")
        widths = [dim_in, *[options.hidden] * options.layers]
        self.gather = nn.ModuleList(_Gather(width, options, gated=True) for width in widths[:-1])
        self.spread = nn.ModuleList(_Spread(width, options) for width in widths[:-1])
        self.pool = _Gather(widths[-1], options, gated=False)
        self.head = nn.Linear(options.hidden, dim_out)
        init_linear(self)

    def forward(self, bags: Bags) -> MILOutput:
        """Logits, and the pooling's attention: a map a head and query."""
        hidden = bags.to_packed()
        for gather, spread in zip(self.gather, self.spread, strict=True):
            latents, _, _ = gather(hidden)
            hidden = hidden.with_features(spread(hidden, latents))
        pooled, attention, raw = self.pool(hidden)
        embedding = pooled.mean(1)
        return MILOutput(
            logits=self.head(embedding),
            embedding=embedding,
            attention=bags.join(hidden.split(attention)),
            attention_raw=bags.join(hidden.split(raw)),
        )


class _Attention(nn.Module):
    """Layers that both directions share, and what follows the attention: residuals, norms and the gate."""

    def __init__(self, query_dim: int, key_dim: int, options: IlraOptions, gated: bool) -> None:
        super().__init__()
        width = options.hidden
        self.heads = options.heads
        self.query = nn.Linear(query_dim, width)
        self.value = nn.Linear(key_dim, width)
        self.inner_value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if options.norm else nn.Identity() for _ in range(2))
        self.gate = nn.Sequential(nn.Linear(query_dim, width), nn.SiLU()) if gated else None

    def per_head(self, weight: Tensor) -> Tensor:
        """(L, M) -> (H, L / H, M)."""
        return weight.view(self.heads, -1, weight.shape[1])

    def finish(self, source: Tensor, query: Tensor, attended: Tensor) -> Tensor:
        """(..., L) from what the queries were made of, the queries and what they attended to."""
        result = self.norms[0](query + attended)
        result = self.norms[1](result + self.feed(result).relu())
        return result if self.gate is None else result * self.gate(source)


class _Gather(_Attention):
    """Learned queries attend to a bag's instances.

    Neither keys nor values of instances are written out: a query's scores are x . (W^T q), and the weighted sum of
    values is the value layers of the weighted sum of instances, weights summing to 1.
    """

    def __init__(self, dim: int, options: IlraOptions, gated: bool) -> None:
        width = options.hidden
        super().__init__(width, dim, options, gated)
        self.latents = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, options.latents, width))[0])
        self.inner_query = nn.Linear(width, width)
        self.key = nn.Linear(dim, width, bias=False)
        self.inner_key = nn.Linear(width, width, bias=False)

    def forward(self, bags: Bags) -> tuple[Tensor, Tensor, Tensor]:
        """Packed (T, D) -> answers (B, S, L) of the S latents; weights and scores (T, H * S)."""
        query = self.query(self.latents)  # (S, L)
        wanted = self.inner_query(query).unflatten(1, (self.heads, -1))  # (S, H, L / H)
        probes = torch.einsum("shd,hdl->hsl", wanted, self.per_head(self.inner_key.weight)) @ self.key.weight
        raw = bags.features @ probes.flatten(0, 1).T / sqrt(wanted.shape[-1])
        weights = softmax_over_instances(raw, bags)
        pooled = sum_over_instances(weights, bags.features, bags)
        values = self.inner_value(self.value(pooled)).unflatten(1, (self.heads, -1))  # (B, H, S, L)
        own = values.unflatten(3, (self.heads, -1)).diagonal(dim1=1, dim2=3)  # head h: its slice, (B, S, L / H, H)
        attended = self.out(own.transpose(2, 3).flatten(2))
        return self.finish(self.latents, query, attended), weights, raw


class _Spread(_Attention):
    """A bag's instances attend to its latents."""

    def __init__(self, dim: int, options: IlraOptions) -> None:
        width = options.hidden
        super().__init__(dim, width, options, gated=True)
        self.compares = options.latents > 1
        if self.compares:
            self.inner_query = nn.Linear(width, width)
            self.key = nn.Linear(width, width, bias=False)
            self.inner_key = nn.Linear(width, width, bias=False)

    def forward(self, bags: Bags, latents: Tensor) -> Tensor:
        """Packed (T, D) and latents (B, S, L) -> (T, L)."""
        query = self.query(bags.features)
        values = self.inner_value(self.value(latents))
        parts = [self._attended(*part) for part in zip(bags.split(query), latents, values, strict=True)]
        return self.finish(bags.features, query, torch.cat(parts))

    def _attended(self, query: Tensor, latents: Tensor, values: Tensor) -> Tensor:
        """(N, L) for the instances of one bag, its latents and values (S, L)."""
        if not self.compares:
            return self.out(values).expand(query.shape[0], -1)
        keys = self.inner_key(self.key(latents)).unflatten(1, (self.heads, -1))  # (S, H, L / H)
        own = self.inner_query(query).unflatten(1, (self.heads, -1))  # (N, H, L / H)
        weights = torch.einsum("nhd,shd->nhs", own, keys).div(sqrt(keys.shape[-1])).softmax(-1)
        return self.out(torch.einsum("nhs,shd->nhd", weights, values.unflatten(1, (self.heads, -1))).flatten(1))
