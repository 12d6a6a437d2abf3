"""WiKG and its graph against a dense reference written out from the paper's equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from pathpipe.mil import graph
from pathpipe.mil.bag import Bags
from pathpipe.mil.graph import top_neighbours
from pathpipe.mil.models import wikg
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag


def test_parameter_count() -> None:
    """1,775,619 of the published code at width 384, without its three gate layers that nothing uses."""
    unused = 2 * (512 * 256 + 256) + 256 * 512 + 512
    parameters = sum(p.numel() for p in build_model(Recipe("wikg"), 384, 2).parameters())
    assert parameters == 1_775_619 - unused == 1_381_379


@pytest.mark.parametrize("keys", [1, 3, 6, 63, 64, 65, 1000])
def test_neighbours_are_those_of_a_full_sort(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(keys)
    many = torch.randn(keys, 5, generator=generator)
    some = torch.randn(17, 5, generator=generator)
    for held in (1, 300, 2**24):
        monkeypatch.setattr(graph, "_SCORES", held)
        chosen = top_neighbours(some, many, 6)
        assert chosen.tolist() == (some @ many.T).argsort(1, descending=True)[:, :6].tolist()


def _dense(model: wikg.Wikg, features: Tensor, knowledge: str) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, attention and flow with every (N, N) and (N, k, L) array held."""
    tiles = leaky_relu(model.embed[0](features))
    tiles = (tiles + tiles.mean(0)) / 2
    head, tail = model.to_head(tiles), model.to_tail(tiles)
    weight, chosen = (head @ tail.T / head.shape[1] ** 0.5).topk(6)
    share = weight.softmax(1)[..., None]
    near = tail[chosen]
    gate = torch.tanh(head[:, None] + share * near + (1 - share) * head[:, None])
    equation = {"dot": "nkl,nkl->nk", "sums": "nkl,nkm->nk"}[knowledge]
    edges = torch.einsum(equation, near, gate).softmax(1)
    drawn = (edges[..., None] * near).sum(1)
    message = leaky_relu(model.of_sum[0](head + drawn)) + leaky_relu(model.of_product[0](head * drawn))
    attention = model.score(message).softmax(0)
    adjacency = torch.zeros(len(tiles), len(tiles)).scatter(1, chosen, edges)
    return model.head(model.norm(attention.T @ message)), attention, attention[:, 0] @ adjacency


@pytest.mark.parametrize("knowledge", ["dot", "sums"])
@pytest.mark.parametrize("values", [1, 500, 2**22])
def test_in_pieces_it_is_the_dense_computation(knowledge: str, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikg, "_VALUES", values)
    monkeypatch.setattr(graph, "_SCORES", values)
    model, batch = _random(knowledge), Bags.pack([random_bag(40, 6)])
    features = batch.features.requires_grad_()
    logits, attention, flow = _dense(model, features, knowledge)
    expected = torch.autograd.grad(logits[0, 1], [features, *model.parameters()], allow_unused=True)
    output = model(batch)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.attention, attention)
    torch.testing.assert_close(output.scores, flow)
    got = torch.autograd.grad(output.logits[0, 1], [features, *model.parameters()], allow_unused=True)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_two_scores_of_a_neighbour_differ() -> None:
    batch = Bags.pack([random_bag(40, 6)])
    assert not torch.allclose(_random("dot")(batch).logits, _random("sums")(batch).logits, atol=1e-4)


def test_flow_sums_to_one() -> None:
    batch = Bags.pack([random_bag(40, 6), random_bag(3, 6)])
    for scores in batch.split(_random("dot")(batch).scores):
        torch.testing.assert_close(scores.sum(), torch.tensor(1.0))


def _random(knowledge: str) -> wikg.Wikg:
    torch.manual_seed(0)
    model = build_model(Recipe("wikg", {"hidden": 16, "knowledge": knowledge}), 6, 2).eval()
    assert isinstance(model, wikg.Wikg)
    return model
