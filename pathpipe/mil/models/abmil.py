"""Attention-based MIL: an attention-weighted mean of the tiles, then a linear classifier."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from pathpipe.mil.attention import Attention, GatedAttention
from pathpipe.mil.bag import Bags
from pathpipe.mil.dropout import Dropout
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.pooling import softmax_over_instances, sum_over_instances
from pathpipe.settings import Settings

_PAPER = "Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018, arXiv:1802.04712"


class AbmilOptions(Settings):
    """Options of ABMIL and gated ABMIL."""

    hidden: int = Field(512, ge=1, description="Width of the tile embedding")
    attention_dim: int = Field(128, ge=1, description="Width of the attention network")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of the tile embedding in training")


class Abmil(StagedModule):
    """Attention-based MIL.

    The head is linear, so a bag's logits are the attention-weighted mean of its `instance_logits`.
    """

    card = ModelCard(
        summary="Attention-weighted mean of the tiles",
        paper=_PAPER,
        attention=True,
        permutation_invariant=True,
    )
    Options: ClassVar[type[Settings]] = AbmilOptions
    scorer: ClassVar[type[Attention] | type[GatedAttention]] = Attention

    def __init__(self, dim_in: int, dim_out: int, options: AbmilOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        self.embed = nn.Sequential(nn.Linear(dim_in, options.hidden), nn.ReLU(), Dropout(options.dropout))
        self.attend = self.scorer(options.hidden, options.attention_dim)
        self.head = nn.Linear(options.hidden, dim_out)
        init_linear(self)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits, attention and instance logits of embedded instances."""
        raw = self.attend(hidden.features)
        attention = softmax_over_instances(raw, hidden)
        embedding = sum_over_instances(attention, hidden.features, hidden).squeeze(1)  # (B, L)
        return MILOutput(
            logits=self.head(embedding),
            embedding=embedding,
            attention=attention,
            attention_raw=raw,
            instance_logits=self.head(hidden.features),
        )


class GatedAbmil(Abmil):
    """Attention-based MIL with a sigmoid gate in the attention network."""

    card = ModelCard(
        summary="Attention-weighted mean of the tiles, with gated attention",
        paper=_PAPER,
        attention=True,
        permutation_invariant=True,
    )
    scorer: ClassVar[type[Attention] | type[GatedAttention]] = GatedAttention
