"""WiKG: each tile draws on the tiles it relates to most, found by learned head and tail embeddings."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding as rows_of
from torch.utils.checkpoint import checkpoint

from pathpipe.mil.bag import Bags
from pathpipe.mil.graph import top_neighbours
from pathpipe.mil.loop import join_outputs
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule
from pathpipe.settings import Settings

_VALUES = 2**22  # of one array of neighbours (rows, k, L) held at once: 16 MiB in float32


class WikgOptions(Settings):
    """Options of WiKG."""

    hidden: int = Field(512, ge=1, description="Width of a tile's embedding")
    neighbours: int = Field(6, ge=1, description="Edges that leave each tile")
    knowledge: Literal["dot", "sums"] = Field(
        "dot",
        description="Score of a neighbour: scalar product with its gate, or product of both sums (published code)",
    )
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout of the tiles' messages in training")


class Wikg(StagedModule):
    """WiKG: a directed graph by learned head and tail embeddings, knowledge-aware attention along it, pooling.

    A neighbour t of tile h has the score t . tanh(h + r), as in attention on knowledge graphs; the published code's
    einsum multiplies the sum of t by the sum of the gate instead: `knowledge`. Its three `gate_` layers, which it
    never uses, are left out (394,240 of its 1,775,619 parameters at width 384). The N x N scores and the tiles'
    messages are made in pieces, in training made again for the gradient. `scores` are how much of the attention flows
    from each tile: a tile that all others draw on may itself be attended to little. The weights start as torch draws
    them, as in the published code.

    Reference: Li et al., Dynamic Graph Representation with Knowledge-aware Attention for Histopathology Whole Slide
    Image Analysis, CVPR 2024, arXiv:2403.07719.
    """

    card = ModelCard(
        summary="Graph of the tiles that relate most, with knowledge-aware attention",
        paper="Li et al., Dynamic Graph Representation with Knowledge-aware Attention for Histopathology Whole Slide "
        "Image Analysis, CVPR 2024, arXiv:2403.07719",
        attention=True,
        permutation_invariant=True,
    )
    Options: ClassVar[type[Settings]] = WikgOptions
    embed: nn.Sequential

    def __init__(self, dim_in: int, dim_out: int, options: WikgOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden
        self.neighbours, self.knowledge = options.neighbours, options.knowledge
        self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.LeakyReLU())
        self.to_head, self.to_tail = nn.Linear(width, width), nn.Linear(width, width)
        self.of_sum = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU())
        self.of_product = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU())
        self.dropout = nn.Dropout(options.dropout)
        self.score = nn.Sequential(nn.Linear(width, width // 2), nn.LeakyReLU(), nn.Linear(width // 2, 1))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, dim_out)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits and attention of embedded instances, bag by bag."""
        return join_outputs([self._one(bag.features) for bag in hidden.single()], hidden)

    def _one(self, tiles: Tensor) -> MILOutput:
        """Output of one bag (N, L)."""
        tiles = (tiles + tiles.mean(0)) / 2
        head, tail = self.to_head(tiles), self.to_tail(tiles)
        chosen = top_neighbours(head, tail, self.neighbours)
        message, edges = self._in_pieces(head, tail, chosen)
        raw = self.score(message)
        attention = raw.softmax(0)
        embedding = self.norm(attention.T @ message)
        flow = torch.zeros_like(edges[:, 0]).index_add(0, chosen.flatten(), (attention.detach() * edges).flatten())
        return MILOutput(self.head(embedding), embedding, attention=attention, attention_raw=raw, scores=flow)

    def _in_pieces(self, head: Tensor, tail: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """What `_message` gives for all tiles, a few rows at a time; the second without gradient."""
        rows = max(1, _VALUES // (chosen.shape[1] * tail.shape[1]))
        again = torch.is_grad_enabled() and len(head) > rows
        pieces = []
        for part, edges in zip(head.split(rows), chosen.split(rows), strict=True):
            if again:
                pieces.append(checkpoint(self._message, part, tail, edges, use_reentrant=False))
            else:
                pieces.append(self._message(part, tail, edges))
        messages, shares = zip(*pieces, strict=True)
        return torch.cat(messages), torch.cat(shares).detach()

    def _message(self, head: Tensor, tail: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(n, L) heads, (N, L) tails, (n, k) edges -> (n, L) messages, (n, k) what each tile draws from its tails."""
        near, own = rows_of(chosen, tail), head[:, None]  # (n, k, L), (n, 1, L)
        related = ((own * near).sum(-1, keepdim=True) * head.shape[-1] ** -0.5).softmax(1)  # (n, k, 1)
        relation = related * near + (1 - related) * own
        gate = (own + relation).tanh()
        score = (near * gate).sum(-1) if self.knowledge == "dot" else near.sum(-1) * gate.sum(-1)  # (n, k)
        share = score.softmax(1)
        drawn = (share[..., None] * near).sum(1)  # (n, L)
        return self.dropout(self.of_sum(head + drawn) + self.of_product(head * drawn)), share
