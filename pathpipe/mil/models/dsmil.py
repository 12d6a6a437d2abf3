"""DSMIL: a max-pooled instance classifier, and attention by likeness to its critical instances."""

from __future__ import annotations

from math import sqrt
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from pathpipe.mil.bag import Bags
from pathpipe.mil.dropout import Dropout
from pathpipe.mil.model import Auxiliary, MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.pooling import softmax_over_instances, sum_over_instances
from pathpipe.settings import Settings


class DsmilOptions(Settings):
    """Options of DSMIL."""

    hidden: int | None = Field(
        None, ge=1, description="Width of a tile embedding before both streams; none: the features as they are"
    )
    query_dim: int = Field(128, ge=1, description="Width of the queries")
    value_layer: bool = Field(False, description="Sum values of a linear layer instead of the instances themselves")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of embedding and values in training")
    max_weight: float = Field(0.5, ge=0, lt=1, description="Share of the max stream's loss; the rest is the bag's")
    average: bool = Field(False, description="Predict by the mean of both streams' logits, not the bag stream's alone")


class Dsmil(StagedModule):
    """Dual-stream MIL: C attention maps, each by the likeness of queries to those of a class's critical instance.

    Both streams are trained by the task's own loss, so that every task works; the original has one binary
    cross-entropy an output, which a multi-label target gives. `head` is the instance classifier; the bag's is
    `bag_head`, a linear layer over all C bag vectors (the original writes it as a convolution as wide as they are).
    """

    card = ModelCard(
        summary="Max-pooled instance classifier, and attention by likeness to its critical instances",
        paper=(
            "Li et al., Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification with "
            "Self-supervised Contrastive Learning, CVPR 2021, arXiv:2011.08939"
        ),
        attention=True,
        permutation_invariant=True,
    )
    Options: ClassVar[type[Settings]] = DsmilOptions
    output_layers = ("head", "bag_head")
    options: DsmilOptions

    def __init__(self, dim_in: int, dim_out: int, options: DsmilOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width, drop = options.hidden or dim_in, options.dropout
        self.embed: nn.Module = nn.Identity()
        if options.hidden is not None:
            self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU(), Dropout(drop))
        self.head = nn.Linear(width, dim_out)
        self.query = nn.Sequential(
            nn.Linear(width, options.query_dim), nn.ReLU(), nn.Linear(options.query_dim, options.query_dim), nn.Tanh()
        )
        self.value: nn.Module = nn.Identity()
        if options.value_layer:
            self.value = nn.Sequential(Dropout(drop), nn.Linear(width, width), nn.ReLU())
        self.bag_head = nn.Linear(dim_out * width, dim_out)
        init_linear(self)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits, C attention maps and instance logits; in training the max stream's logits for the task's loss."""
        instance_logits, queries = self.head(hidden.features), self.query(hidden.features)
        critical = [part.argmax(0) for part in hidden.split(instance_logits.detach())]  # (C,) rows of each bag
        raw = hidden.join([part @ part[rows].T for part, rows in zip(hidden.split(queries), critical, strict=True)])
        raw = raw / sqrt(self.options.query_dim)
        attention = softmax_over_instances(raw, hidden)
        embedding = sum_over_instances(attention, self.value(hidden.features), hidden).flatten(1)  # (B, C * L)
        logits = self.bag_head(embedding)
        best = _picked(hidden.split(instance_logits), critical)
        auxiliary = {}
        if self.training:
            rows = torch.arange(len(hidden), device=best.device)
            auxiliary["max"] = Auxiliary(best, rows, weight=self.options.max_weight)
        elif self.options.average:
            logits = (logits + best) / 2
        return MILOutput(
            logits=logits,
            embedding=embedding,
            attention=attention,
            attention_raw=raw,
            instance_logits=instance_logits,
            auxiliary=auxiliary,
            weight=1.0 - self.options.max_weight if self.training else 1.0,
        )


def _picked(values: list[Tensor], rows: list[Tensor]) -> Tensor:
    """(B, C): of each bag and column the value in its row."""
    return torch.stack([part.gather(0, chosen[None])[0] for part, chosen in zip(values, rows, strict=True)])
