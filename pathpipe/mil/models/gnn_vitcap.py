"""GNN-ViTCap's classifier: clusters of tiles, one representative each, a graph of representatives."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding as rows_of
from torch.nn.functional import one_hot

from pathpipe.mil.bag import Bags
from pathpipe.mil.clustering import clustering_loss, k_means, nearest_others, soft_assignment
from pathpipe.mil.model import MILOutput, ModelCard, StagedModule, TrainContext, init_linear
from pathpipe.settings import Settings

_SEEDING = 4096  # tiles that the first centroids are found from


class GnnVitCapOptions(Settings):
    """Options of GNN-ViTCap."""

    hidden: int = Field(512, ge=1, description="Width of the tile embedding and of the graph's nodes")
    clusters: int = Field(10, ge=1, description="Clusters of tiles; those without a tile of the bag are left out")
    representative: Literal["sum", "best"] = Field(
        "sum", description="Node of a cluster: attention-weighted sum of its tiles, or the tile of the most attention"
    )
    neighbours: int = Field(5, ge=1, description="Edges that leave each node")
    layers: int = Field(2, ge=1, description="Graph layers")
    clustering_weight: float = Field(0.1, ge=0, description="Factor of the clustering loss")
    dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of the tile embedding in training")


class GraphLayer(nn.Module):
    """Each node and the mean of its neighbours, each by a matrix, added, ReLU.

    Reference: Hamilton et al., Inductive Representation Learning on Large Graphs, NeurIPS 2017, arXiv:1706.02216.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.near = nn.Linear(width, width, bias=False)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Nodes (R, L) with edges (R, k) to others -> (R, L); a node alone hears only itself."""
        mixed = self.own(nodes)
        if edges.shape[1]:
            mixed = mixed + self.near(rows_of(edges, nodes).mean(1))
        return mixed.relu()


class GnnVitCap(StagedModule):
    """The classifier of GNN-ViTCap, on tile features; its captioning is not here.

    Tiles are assigned to trained centroids; in each cluster attention s_i = z_i . mu / sqrt(L) makes the
    representative; the nearest representatives by cosine are joined, graph layers run, and the mean of the nodes is
    classified. A tile's attention is its share of its representative divided by the number of nodes. There is no
    published code, and the abstract leaves clusters, neighbours, kind of graph layer and weight of the loss open: the
    defaults are choices made here. Centroids start from k-means of the first batch; the clustering target is that of
    the batch, anew every step.

    Reference: Raju et al., GNN-ViTCap, IJCNN 2025, arXiv:2507.07006.
    """

    card = ModelCard(
        summary="Clusters of tiles, a representative each, and a graph of representatives",
        paper="GNN-ViTCap: GNN-Enhanced Multiple Instance Learning with Vision Transformers for Whole Slide Image "
        "Classification and Captioning, IJCNN 2025, arXiv:2507.07006",
        attention=True,
        permutation_invariant=True,
    )
    Options: ClassVar[type[Settings]] = GnnVitCapOptions
    seeded: Tensor
    embed: nn.Sequential

    def __init__(self, dim_in: int, dim_out: int, options: GnnVitCapOptions) -> None:
        super().__init__(dim_in, dim_out, options)
        width = options.hidden
        self.settings = options
        self.embed = nn.Sequential(nn.Linear(dim_in, width), nn.ReLU(), nn.Dropout(options.dropout))
        self.centroids = nn.Parameter(torch.randn(options.clusters, width))
        self.graph = nn.ModuleList(GraphLayer(width) for _ in range(options.layers))
        self.head = nn.Linear(width, dim_out)
        self.register_buffer("seeded", torch.zeros((), dtype=torch.bool))
        init_linear(self)

    @torch.no_grad()
    def pre_step(self, bags: Bags, context: TrainContext) -> None:
        """Before the first step, put the centroids where the tiles are."""
        if self.seeded:
            return
        features = bags.to_packed().features
        chosen = torch.randperm(len(features), generator=context.generator)[:_SEEDING]
        tiles = self.embed[1](self.embed[0](features[chosen.to(features.device)]))  # without dropout
        self.centroids.copy_(k_means(tiles, len(self.centroids), context.generator))
        self.seeded.fill_(True)

    def aggregate(self, hidden: Bags) -> MILOutput:
        """Logits and attention of embedded instances; in training with the clustering loss."""
        packed = hidden.to_packed()
        assignment = soft_assignment(packed.features, self.centroids)
        pairs = zip(packed.split(packed.features), packed.split(assignment), strict=True)
        bags = [self._one(tiles, shares.argmax(1)) for tiles, shares in pairs]
        embedding = torch.stack([node for node, _ in bags])
        return MILOutput(
            logits=self.head(embedding),
            embedding=embedding,
            attention=hidden.join([weights for _, weights in bags]),
            losses={"clustering": clustering_loss(assignment)} if self.training else {},
            loss_weights={"clustering": self.settings.clustering_weight},
        )

    def _one(self, tiles: Tensor, cluster: Tensor) -> tuple[Tensor, Tensor]:
        """Mean node (L,) and attention (N, 1) of one bag's tiles (N, L) with their clusters (N,)."""
        weights = self._shares(tiles, cluster)
        nodes = weights.T @ tiles
        edges = nearest_others(nodes, self.settings.neighbours)
        for layer in self.graph:
            nodes = layer(nodes, edges)
        return nodes.mean(0), weights.sum(1, keepdim=True) / weights.shape[1]

    def _shares(self, tiles: Tensor, cluster: Tensor) -> Tensor:
        """(N, R) share of each tile in the representatives of the bag's R clusters; columns sum to 1."""
        used = cluster.unique()
        own = rows_of(cluster, self.centroids)  # indexing would sum its gradients in another order every time
        scores = (tiles * own).sum(1, keepdim=True) * tiles.shape[1] ** -0.5
        weights = scores.float().masked_fill(cluster[:, None] != used, float("-inf")).softmax(0)
        if self.settings.representative == "sum":
            return weights.to(tiles.dtype)
        return one_hot(weights.argmax(0), len(tiles)).T.to(tiles.dtype)
