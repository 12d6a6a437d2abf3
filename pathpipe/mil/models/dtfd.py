"""DTFD-MIL: gated attention over pseudo-bags, and again over the features distilled from each."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pathpipe.mil.attention import GatedAttention
from pathpipe.mil.bag import Bags
from pathpipe.mil.model import Auxiliary, MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.pooling import softmax_over_instances, sum_over_instances
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
    depends on their order. Tier 2's loss stops at the distilled features, as in the official code, where tier 1's
    optimiser drops those gradients. That code ranks instances by the last class's probability; with three classes or more
    that leaves no reason why the last, so `rank_by` has another default then.

    Reference: Zhang et al., arXiv:2203.12081, sections 3.2 to 3.4.
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
    options: DtfdOptions

    def __init__(self, dim_in: int, dim_out: int, options: DtfdOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden
        self.embed = nn.Sequential(nn.Linear(dim_in, width, bias=False), nn.ReLU(), nn.Dropout(options.dropout))
        self.tier1_attend = GatedAttention(width, options.attention_dim)
        self.tier1_head = nn.Linear(width, dim_out)
        self.attend = GatedAttention(width, options.attention_dim)
        self.head = nn.Linear(width, dim_out)
        init_linear(self)

    def encode(self, bags: Bags) -> Bags:
        """Instances embedded: (T, L) or (B, N, L)."""
        return bags.with_features(self.embed(bags.features))

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Both tiers; in training the pseudo-bags' logits for the task's loss.

        `attention` is what an instance weighs in the bag's embedding: for `afs` its weight in its pseudo-bag times the
        pseudo-bag's, else 0 unless it was picked. `scores` are there for the latter: tier 1's probability.
        """
        order, groups, owner = self._split(hidden)  # everything below is in the order of the pseudo-bags
        raw = self.tier1_attend(groups.features)
        weights = softmax_over_instances(raw, groups)
        pooled = sum_over_instances(weights, groups.features, groups).squeeze(1)  # (G, L)
        tier1_logits = self.tier1_head(pooled)
        if self.options.distil == "afs":
            output = self._second(pooled, owner, hidden)
            shares = _repeat(output.attention, groups)
            attention, scores = weights * shares, None
            log_norms = torch.stack([part.logsumexp(0) for part in groups.split(raw)])
            joint_raw = raw - _repeat(log_norms, groups) + _repeat(output.attention_raw, groups)
        else:
            probability = self._probability(weights, tier1_logits, groups)
            rows, counts = self._pick(probability, groups)
            output = self._second(groups.features[rows], owner.repeat_interleave(counts), hidden)
            attention = torch.zeros_like(weights).index_copy(0, rows, output.attention)
            scores, joint_raw = probability, None
