"""GNN-ViTCap: clustering, representatives and their graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pathpipe.mil.bag import Bags
from pathpipe.mil.clustering import clustering_loss, k_means, nearest_others, sharpened, soft_assignment
from pathpipe.mil.model import TrainContext
from pathpipe.mil.models.gnn_vitcap import GnnVitCap, GraphLayer
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag

TILES = torch.tensor([[0.0, 0], [1, 0], [4, 4], [4, 5]], dtype=torch.float64)
CENTROIDS = torch.tensor([[0.5, 0], [4, 4.5]], dtype=torch.float64)


def test_published_clustering() -> None:
    shares = soft_assignment(TILES, CENTROIDS)
    assert shares[0].tolist() == pytest.approx([0.96753247, 0.03246753], abs=1e-8)
    assert shares[2].tolist() == pytest.approx([0.04098361, 0.95901639], abs=1e-8)
    assert sharpened(shares)[0].tolist() == pytest.approx([0.99887465, 0.00112535], abs=1e-8)
    assert clustering_loss(shares).item() == pytest.approx(0.0307829515, abs=1e-9)


def test_shares_sum_to_one_and_the_target_has_no_gradient() -> None:
    tiles = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    shares = soft_assignment(tiles, tiles[:4].detach())
    target = sharpened(shares)
    assert not target.requires_grad
    torch.testing.assert_close(shares.sum(1), torch.ones(20))
    torch.testing.assert_close(target.sum(1), torch.ones(20))
    clustering_loss(shares).backward()
    gradient, tiles.grad = tiles.grad, None
    assert gradient is not None
    fixed = (target * (target.log() - soft_assignment(tiles, tiles[:4].detach()).log())).sum(1).mean()
    fixed.backward()
    torch.testing.assert_close(gradient, tiles.grad, rtol=1e-4, atol=1e-6)


def test_autocast_does_not_narrow_distances() -> None:
    tiles = TILES.float() + 100
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = soft_assignment(tiles, CENTROIDS.float() + 100)
    torch.testing.assert_close(narrow.double(), soft_assignment(TILES, CENTROIDS), rtol=1e-2, atol=1e-2)


def test_k_means_finds_what_lies_apart() -> None:
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0], [20, 0], [0, 20], [20, 20]])
    tiles = (centres[:, None] + 0.1 * torch.randn(4, 25, 2, generator=random)).flatten(0, 1)
    found = k_means(tiles, 4, random)
    expected = tiles.view(4, 25, 2).mean(1)
    torch.testing.assert_close(found[torch.cdist(expected, found).argmin(1)], expected)
    assert k_means(tiles[:2], 5, random).shape == (5, 2)


def test_nearest_others_leave_out_the_node_itself() -> None:
    nodes = torch.tensor([[1.0, 0], [2.0, 0.1], [0, 3.0], [0.1, 1]])
    assert nearest_others(nodes, 1).tolist() == [[1], [0], [3], [2]]
    edges = nearest_others(nodes, 9)
    assert edges.shape == (4, 3)
    assert all(row not in others for row, others in enumerate(edges.tolist()))


def test_graph_layer_adds_the_mean_of_its_neighbours() -> None:
    torch.manual_seed(0)
    layer, nodes = GraphLayer(4), torch.randn(3, 4)
    edges = torch.tensor([[1, 2], [0, 2], [1, 0]])
    expected = layer.own(nodes[0]) + layer.near((nodes[1] + nodes[2]) / 2)
    torch.testing.assert_close(layer(nodes, edges)[0], expected.relu())


@pytest.mark.parametrize("representative", ["sum", "best"])
def test_forward_written_out(representative: str) -> None:
    model, batch = build(representative=representative), Bags.pack([random_bag(40, 6)])
    output = model(batch)
    tiles = model.embed(batch.features)
    cluster = soft_assignment(tiles, model.centroids).argmax(1)
    nodes, attention = [], torch.zeros(40)
    used = sorted(set(cluster.tolist()))
    for number in used:
        rows = (cluster == number).nonzero().squeeze(1)
        weights = (tiles[rows] @ model.centroids[number] / 4).softmax(0)
        if representative == "best":
            weights = (weights == weights.max()).float()
        torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
        nodes.append(weights @ tiles[rows])
        attention[rows] = weights / len(used)
    assert len(used) > 2
    mixed = torch.stack(nodes)
    edges = nearest_others(mixed, 2)
    for layer in model.graph:
        mixed = layer(mixed, edges)
    torch.testing.assert_close(output.logits[0], model.head(mixed.mean(0)))
    torch.testing.assert_close(output.attention[:, 0], attention)


def test_gradients_have_the_same_bits_in_several_threads() -> None:
    model, batch = build(hidden=64, clusters=4).train(), Bags.pack([random_bag(3_000, 6)])
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for _ in range(6):
            model.zero_grad()
            torch.manual_seed(1)
            model(batch).logits.square().sum().backward()
            assert model.centroids.grad is not None
            found.append(model.centroids.grad.clone())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, found[0]) for one in found)


def test_twins_add_no_node() -> None:
    """A tile twice stays in its cluster: the best tile, the nodes and the logits are the same."""
    model, bag = build(representative="best"), random_bag(40, 6)
    twins = bag.take(torch.cat([torch.arange(40), torch.tensor([7])]).numpy())
    torch.testing.assert_close(model(Bags.pack([twins])).logits, model(Bags.pack([bag])).logits)


def test_centroids_start_at_the_tiles_once() -> None:
    model, batch = build().train(), Bags.pack([random_bag(60, 6), random_bag(30, 6)])
    before = model.centroids.detach().clone()
    model.pre_step(batch, context())
    started = model.centroids.detach().clone()
    assert not torch.equal(before, started)
    tiles = model.eval().embed(batch.features)
    torch.testing.assert_close(started, k_means_again(tiles))
    model.train().pre_step(batch, context())
    assert torch.equal(model.centroids, started)


def k_means_again(tiles: Tensor) -> Tensor:
    generator = context().generator
    return k_means(tiles[torch.randperm(len(tiles), generator=generator)].detach(), 4, generator)


def test_clustering_loss_only_in_training_with_its_weight() -> None:
    model, batch = build(dropout=0, clustering_weight=0.3), Bags.pack([random_bag(40, 6), random_bag(9, 6)])
    assert model(batch).losses == {}
    output = model.train()(batch)
    expected = clustering_loss(soft_assignment(model.embed(batch.features), model.centroids))
    torch.testing.assert_close(output.losses["clustering"], expected)
    assert output.loss_weights["clustering"] == 0.3


def test_parameter_count() -> None:
    """1024 -> 512, ten centroids, two graph layers of 2 x 512 x 512 + 512, head."""
    expected = 1024 * 512 + 512 + 10 * 512 + 2 * (2 * 512 * 512 + 512) + 512 * 2 + 2
    assert sum(p.numel() for p in build_model(Recipe("gnn-vitcap"), 1024, 2).parameters()) == expected


def build(**options: object) -> GnnVitCap:
    torch.manual_seed(0)
    chosen = {"hidden": 16, "clusters": 4, "neighbours": 2, **options}
    model = build_model(Recipe("gnn-vitcap", chosen), 6, 2).eval()
    assert isinstance(model, GnnVitCap)
    with torch.no_grad():
        model.centroids.copy_(model.embed(torch.from_numpy(random_bag(4, 6, seed=9).features)))
    return model


def context() -> TrainContext:
    return TrainContext(0, 1, 0, 1, torch.Generator().manual_seed(3))
