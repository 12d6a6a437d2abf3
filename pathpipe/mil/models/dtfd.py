"""DTFD-MIL: gated attention over pseudo-bags, and again over the features distilled from each."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pathpipe.errors import SettingsError
from pathpipe.mil.attention import GatedAttention
from pathpipe.mil.bag import Bags
from pathpipe.mil.dropout import Dropout
from pathpipe.mil.model import Auxiliary, MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.pooling import extreme_instances, softmax_over_instances, sum_over_instances
from pathpipe.settings import Settings


class DtfdOptions(Settings):
    """Options of DTFD-MIL."""

    hidden: int = Field(512, ge=1, description="Width of the tile embedding")
    attention_dim: int = Field(128, ge=1, description="Width of both attention networks")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of the tile embedding in training")
    groups: int = Field(4, ge=1, description="Pseudo-bags a bag is split into (5 in the paper)")
    distil: Literal["afs", "maxs", "maxmins"] = Field(
        "afs", description="What tier 2 sees of a pseudo-bag: its feature, its top tiles, or its top and bottom tiles"
    )
    instances: int = Field(1, ge=1, description="Tiles from each end of a pseudo-bag, for maxs and maxmins")
    rank_by: Literal["auto", "last", "predicted"] = Field(
        "auto",
        description="Class whose probability ranks tiles: the last, or the one tier 1 predicts for the pseudo-bag; "
        "auto: the last of two, the predicted of more",
    )
    tier1_weight: float = Field(1.0, ge=0, description="Weight of the pseudo-bags' loss")
    end_to_end: bool = Field(False, description="Train tier 1 by tier 2's loss too")


class Dtfd(StagedModule):
    """Double-tier feature distillation.

    Training splits a bag at random; prediction deals the instances out in turn, so that it draws nothing and its answer
    depends on their order (the official code draws in prediction too). Tier 2's loss stops at the distilled features:
    so it does in the official code, where tier 1's optimiser drops those gradients. That code ranks instances by the
    last class's probability, which means something with two classes only: with more `rank_by` has another default.
    """

    card = ModelCard(
        summary="Gated attention over pseudo-bags, and again over what is distilled from each",
        paper=(
            "Zhang et al., DTFD-MIL: Double-Tier Feature Distillation Multiple Instance Learning for Histopathology "
            "Whole Slide Image Classification, CVPR 2022, arXiv:2203.12081"
        ),
        attention=True,
        permutation_invariant=False,
    )
    Options: ClassVar[type[Settings]] = DtfdOptions
    output_layers = ("tier1_head", "head")
    options: DtfdOptions

    def __init__(self, dim_in: int, dim_out: int, options: DtfdOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        if not (options.tier1_weight or options.end_to_end):
            raise SettingsError("tier1_weight 0 leaves tier 1 untrained", hint="set end_to_end, or a weight above 0")
        width = options.hidden
        self.embed = nn.Sequential(nn.Linear(dim_in, width, bias=False), nn.ReLU(), Dropout(options.dropout))
        self.tier1_attend = GatedAttention(width, options.attention_dim)
        self.tier1_head = nn.Linear(width, dim_out)
        self.attend = GatedAttention(width, options.attention_dim)
        self.head = nn.Linear(width, dim_out)
        init_linear(self)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Both tiers; in training the pseudo-bags' logits for the task's loss.

        `attention` is what an instance weighs in the bag's embedding: for `afs` its weight in its pseudo-bag times the
        pseudo-bag's, else 0 unless it was picked. `scores` are there for the latter: tier 1's probability.
        """
        order, groups, owner = self._split(hidden)
        raw = self.tier1_attend(groups.features)
        weights = softmax_over_instances(raw, groups)
        pooled = sum_over_instances(weights, groups.features, groups).squeeze(1)  # (G, L)
        tier1_logits = self.tier1_head(pooled)
        joint_raw, scores = None, None
        if self.options.distil == "afs":
            tier2, tier2_raw, shares = self._tier2(pooled, owner, len(hidden))
            attention = weights * _repeat(shares, groups)
            log_norms = torch.stack([part.logsumexp(0) for part in groups.split(raw)])
            joint_raw = _unsorted(raw + _repeat(tier2_raw - log_norms, groups), order, hidden)
        else:
            ranks = self._probability(weights.detach(), tier1_logits.detach(), groups)
            rows, picked = self._pick(ranks, groups)
            tier2, _, shares = self._tier2(groups.features[rows], owner.repeat_interleave(picked), len(hidden))
            attention = torch.zeros_like(shares[:1]).expand(len(weights), 1).index_copy(0, rows, shares)
            scores = _unsorted(ranks.to(weights.dtype), order, hidden)
        auxiliary = {}
        if self.training and self.options.tier1_weight:
            share = 1.0 / owner.bincount(minlength=len(hidden))[owner]  # short bags have fewer pseudo-bags
            auxiliary["tier1"] = Auxiliary(tier1_logits, owner, share, self.options.tier1_weight)
        return MILOutput(
            logits=self.head(tier2),
            embedding=tier2,
            attention=_unsorted(attention, order, hidden),
            attention_raw=joint_raw,
            instance_logits=self.tier1_head(hidden.features),
            scores=scores,
            auxiliary=auxiliary,
        )

    def _split(self, hidden: Bags) -> tuple[Tensor, Bags, Tensor]:
        """Instances sorted by pseudo-bag: their packed rows (T,), the G pseudo-bags, and the bag (G,) of each."""
        device = hidden.features.device
        hands, owner, start = [], [], 0
        for number, length in enumerate(hidden.lengths):
            deck = torch.randperm(length, device=device) if self.training else torch.arange(length, device=device)
            count = min(self.options.groups, length)
            hands += [start + deck[first::count] for first in range(count)]
            owner += [number] * count
            start += length
        order = torch.cat(hands)
        features = torch.cat(hidden.split(hidden.features))[order]
        return order, _packed(features, [len(hand) for hand in hands]), torch.tensor(owner, device=device)

    def _tier2(self, distilled: Tensor, owner: Tensor, bags: int) -> tuple[Tensor, Tensor, Tensor]:
        """Attention over the distilled features (R, L) of each bag: embedding (B, L), scores and weights (R, 1)."""
        if not self.options.end_to_end:
            distilled = distilled.detach()
        batch = _packed(distilled, owner.bincount(minlength=bags).tolist())
        raw = self.attend(distilled)
        weights = softmax_over_instances(raw, batch)
        return sum_over_instances(weights, distilled, batch).squeeze(1), raw, weights

    def _probability(self, weights: Tensor, tier1_logits: Tensor, groups: Bags) -> Tensor:
        """(T,) float64 probability of the ranking class, from each instance's own part of its pseudo-bag's logits.

        The classifier's bias is no instance's, and left out, as in the official code. Of a long bag the parts are so
        small that fewer digits would leave many probabilities equal.
        """
        with torch.no_grad():
            evidence = (weights * (groups.features @ self.tier1_head.weight.T)).double()
        if self.dim_out == 1:
            return evidence[:, 0].sigmoid()
        by = self.options.rank_by
        if by == "predicted" or (by == "auto" and self.dim_out > 2):
            column = _repeat(tier1_logits.argmax(1, keepdim=True), groups)
        else:
            column = torch.full_like(evidence[:, :1], self.dim_out - 1, dtype=torch.int64)
        return evidence.softmax(1).gather(1, column)[:, 0]

    def _pick(self, ranks: Tensor, groups: Bags) -> tuple[Tensor, Tensor]:
        """Rows of the instances that tier 2 sees, and how many (G,) each pseudo-bag gives; none is taken twice."""
        rows, start, wanted = [], 0, self.options.instances
        for part in groups.split(ranks):
            if self.options.distil == "maxs":
                chosen = part.topk(min(wanted, len(part))).indices
            else:
                chosen = torch.cat(extreme_instances(part, wanted))
            rows.append(start + chosen)
            start += len(part)
        counts = torch.tensor([len(chosen) for chosen in rows], device=ranks.device)
        return torch.cat(rows), counts


def _packed(features: Tensor, sizes: list[int]) -> Bags:
    return Bags(features, torch.tensor([0, *sizes]).cumsum(0))


def _repeat(values: Tensor, groups: Bags) -> Tensor:
    """(G, K) of the pseudo-bags to (T, K) of their instances; its gradient is summed in one order, on a GPU too."""
    return torch.cat([value.expand(length, -1) for value, length in zip(values, groups.lengths, strict=True)])


def _unsorted(values: Tensor, order: Tensor, bags: Bags) -> Tensor:
    """Values in the order of the pseudo-bags back into the batch's own order and layout."""
    return bags.join(list(torch.zeros_like(values).index_copy(0, order, values).split(bags.lengths)))
