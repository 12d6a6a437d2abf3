"""TransMIL: two layers of Nystrom attention over all tiles, with a convolutional position encoding in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pathpipe.mil.bag import Bags
from pathpipe.mil.grid import Ppeg, square_side, wrapped_to_square
from pathpipe.mil.loop import join_outputs
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule
from pathpipe.mil.nystrom import NystromAttention
from pathpipe.settings import Settings

_TOKENS = 2**14  # of bags that go together


class TransmilOptions(Settings):
    """Options of TransMIL."""

    hidden: int = Field(512, ge=1, description="Width of a token, divisible by the number of heads")
    heads: int = Field(8, ge=1, description="Attention heads")
    landmarks: int = Field(256, ge=1, description="Landmarks of the attention")
    iterations: int = Field(6, ge=1, description="Iterations of the pseudo-inverse")
    zero_tokens: bool = Field(
        True, description="Fill the sequence up with zero tokens to a multiple of the landmarks, as the published code"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the attention's output in training")

    @model_validator(mode="after")
    def _heads_divide(self) -> TransmilOptions:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be divisible by heads ({self.heads})")
        return self


class Transmil(StagedModule):
    """TransMIL.

    The tiles fill a square in the order of the bag, the first ones repeated at its end, so order matters. A bag is
    answered by itself. Nystrom's attention may be negative and need not sum to 1, so it isn't declared as attention:
    `attention_raw` (T, heads) is what the class token takes from each tile in the first layer, without gradient, and
    `scores` its mean over the heads. The weights start as torch draws them, as in the published code.

    Reference: Shao et al., NeurIPS 2021, arXiv:2106.00908.
    """

    card = ModelCard(
        summary="Transformer over all tiles by Nystrom attention, with a convolutional position encoding",
        paper="Shao et al., TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide Image "
        "Classification, NeurIPS 2021, arXiv:2106.00908",
        attention=False,
        permutation_invariant=False,
    )
    Options: ClassVar[type[Settings]] = TransmilOptions

    def __init__(self, dim_in: int, dim_out: int, options: TransmilOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden

        def attention() -> NystromAttention:
            return NystromAttention(
                width, options.heads, options.landmarks, options.iterations, options.zero_tokens, options.dropout
            )

        self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU())
        self.token = nn.Parameter(torch.randn(1, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.first, self.second = attention(), attention()
        self.position = Ppeg(width)
        self.head = nn.Linear(width, dim_out)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits of embedded instances; bags whose squares are of one size go together."""
        bags = hidden.split(hidden.features)
        outputs: dict[int, MILOutput] = {}
        for alike in _of_one_side(hidden.lengths):
            outputs.update(zip(alike, self._together([bags[number] for number in alike]), strict=True))
        return join_outputs([outputs[number] for number in range(len(bags))], hidden)

    def _together(self, bags: list[Tensor]) -> list[MILOutput]:
        """Outputs of bags (N, L) whose squares are of one size."""
        tokens = torch.stack([torch.cat([self.token, wrapped_to_square(bag)]) for bag in bags])  # (B, 1 + side^2, L)
        attended, row = self.first(self.norms[0](tokens))
        tokens = tokens + attended
        tokens = torch.cat([tokens[:, :1], self.position(tokens[:, 1:])], 1)
        embedding = self.norms[2](tokens[:, 0] + self.second.first(self.norms[1](tokens)))
        logits = self.head(embedding)
        raw = [row[number, :, 1 : len(bag) + 1].T for number, bag in enumerate(bags)]  # (N, H) each
        return [
            MILOutput(logits[number, None], embedding[number, None], attention_raw=part, scores=part.mean(1))
            for number, part in enumerate(raw)
        ]


def _of_one_side(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of the bags that go together: squares of one size, up to `_TOKENS` in all."""
    groups: dict[int, list[list[int]]] = {}
    for number, length in enumerate(lengths):
        side = square_side(length)
        sets = groups.setdefault(side, [[]])
        if sets[-1] and (len(sets[-1]) + 1) * side**2 > _TOKENS:
            sets.append([])
        sets[-1].append(number)
    return [numbers for sets in groups.values() for numbers in sets]
