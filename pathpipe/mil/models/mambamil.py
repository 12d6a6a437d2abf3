"""MambaMIL: Mamba blocks over the sequence of tiles, then attention pooling."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from pathpipe.mil.attention import Attention
from pathpipe.mil.bag import Bags
from pathpipe.mil.mamba import Kind, MambaBlock, SelectivePath
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule, init_linear
from pathpipe.mil.pooling import softmax_over_instances, sum_over_instances
from pathpipe.settings import Settings

_PAPER = (
    "Yang et al., MambaMIL: Enhancing Long Sequence Modeling with Sequence Reordering in Computational Pathology, "
    "MICCAI 2024, arXiv:2403.06800"
)


class MambaMILOptions(Settings):
    """Options of MambaMIL."""

    hidden: int = Field(512, ge=1, description="Width of the tile embedding")
    type: Kind = Field("srmamba", description="Second path of a block: none, backwards, or in strided order")
    rate: int = Field(10, ge=1, description="Stride of srmamba's second order; the authors' scripts use 5")
    layers: int = Field(2, ge=1, description="Mamba blocks")
    state: int = Field(16, ge=1, description="States of each channel")
    attention_dim: int = Field(128, ge=1, description="Width of the attention network")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of the tile embedding in training")
    zero_dt_bias: bool = Field(
        False, description="Start the step sizes near 0.69 instead of 0.001 to 0.1, as the published code does"
    )


class MambaMIL(StagedModule):
    """MambaMIL with Mamba, BiMamba or SR-Mamba blocks.

    The order of the tiles matters: it is that of the feature file. A bag is filled with zeros up to a multiple of the
    rate before SR-Mamba reorders it; as in the published code those places pass the convolution's bias on and decay
    the state. That code re-initialises all linear layers, the step sizes' among them, which undoes Mamba's start;
    `zero_dt_bias` does the same.
    """

    card = ModelCard(
        summary="Mamba blocks over the sequence of tiles, then attention",
        paper=_PAPER,
        attention=True,
        permutation_invariant=False,
    )
    Options: ClassVar[type[Settings]] = MambaMILOptions

    def __init__(self, dim_in: int, dim_out: int, options: MambaMILOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden
        self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU(), nn.Dropout(options.dropout))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(options.layers))
        self.blocks = nn.ModuleList(
            MambaBlock(width, options.type, options.state, options.rate) for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.attend = Attention(width, options.attention_dim)
        self.head = nn.Linear(width, dim_out)
        init_mamba(self, options.zero_dt_bias)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits, attention and instance logits of embedded instances."""
        packed = hidden.to_packed()
        tokens = packed.features
        for norm, block in zip(self.norms, self.blocks, strict=True):
            tokens = tokens + block(norm(tokens), packed.lengths)
        tokens = self.norm(tokens)
        raw = self.attend(tokens)
        attention = softmax_over_instances(raw, packed)
        embedding = sum_over_instances(attention, tokens, packed).squeeze(1)
        return MILOutput(
            logits=self.head(embedding),
            embedding=embedding,
            attention=hidden.join(packed.split(attention)),
            attention_raw=hidden.join(packed.split(raw)),
            instance_logits=hidden.join(packed.split(self.head(tokens))),
        )


def init_mamba(model: nn.Module, zero_dt_bias: bool) -> None:
    """Xavier weights and zero biases for all linear layers, then Mamba's own start of the step sizes unless told."""
    init_linear(model)
    for module in model.modules():
        if isinstance(module, SelectivePath) and not zero_dt_bias:
            module.init_step()
