"""DTFD-MIL: how bags are split, what is distilled, and who trains which tier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.model import MILOutput
from pathpipe.mil.models.dtfd import Dtfd
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag

DIM = 6


def build(outputs: int = 2, **options: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(Recipe("dtfd", {"hidden": 8, "attention_dim": 4, **options}), DIM, outputs)
    assert isinstance(model, Dtfd)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.3)
    return model.eval()


def gated(layer: Any, hidden: Tensor) -> Tensor:
    """(N,) attention written out."""
    content = torch.tanh(hidden @ layer.content.weight.T + layer.content.bias)
    gate = 1 / (1 + torch.exp(-(hidden @ layer.gate.weight.T + layer.gate.bias)))
    scores = (content * gate) @ layer.score.weight[0] + layer.score.bias
    return scores.exp() / scores.exp().sum()


def plain(model: Any, features: Tensor, distil: str, groups: int, instances: int) -> tuple[Tensor, Tensor]:
    """Logits and attention of one bag, instance by instance; ranks by the last class."""
    hidden = torch.relu(features @ model.embed[0].weight.T)
    count = min(groups, len(hidden))
    rows: list[list[int]] = [list(range(first, len(hidden), count)) for first in range(count)]
    distilled, sources = [], []
    for group in rows:
        weights = gated(model.tier1_attend, hidden[group])
        feature = weights @ hidden[group]
        evidence = (weights[:, None] * hidden[group]) @ model.tier1_head.weight.T
        chance = evidence.softmax(1)[:, -1].tolist()
        order = sorted(range(len(group)), key=lambda row: -chance[row])
        if distil == "afs":
            distilled.append(feature)
            sources.append({row: float(weights[at]) for at, row in enumerate(group)})
            continue
        chosen = order[:instances] if distil == "maxs" else dict.fromkeys(order[:instances] + order[-instances:])
        for at in chosen:
            distilled.append(hidden[group[at]])
            sources.append({group[at]: 1.0})
    second = torch.stack(distilled)
    shares = gated(model.attend, second)
    attention = torch.zeros(len(hidden))
    for share, source in zip(shares, sources, strict=True):
        for row, weight in source.items():
            attention[row] += share * weight
    return (shares @ second) @ model.head.weight.T + model.head.bias, attention


def test_parameter_counts() -> None:
    assert sum(p.numel() for p in build_model(Recipe("dtfd"), 1024, 2).parameters()) == 789_254


@torch.no_grad()
@pytest.mark.parametrize("distil", ["afs", "maxs", "maxmins"])
@pytest.mark.parametrize(("groups", "instances"), [(4, 1), (3, 2), (1, 1)])
def test_prediction_against_a_plain_reading(distil: str, groups: int, instances: int) -> None:
    model = build(distil=distil, groups=groups, instances=instances)
    bags = [random_bag(size, DIM) for size in (17, 16)]
    batch = Bags.pack(bags)
    output = model(batch)
    for number, bag in enumerate(bags):
        logits, attention = plain(model, torch.from_numpy(bag.features), distil, groups, instances)
        torch.testing.assert_close(output.logits[number], logits)
        torch.testing.assert_close(batch.split(output.attention)[number][:, 0], attention)


@torch.no_grad()
def test_attention_is_the_softmax_of_its_raw_scores() -> None:
    batch = Bags.pack([random_bag(11, DIM), random_bag(3, DIM)])
    output = build()(batch)
    for weights, raw in zip(batch.split(output.attention), batch.split(output.attention_raw), strict=True):
        torch.testing.assert_close(weights, raw.softmax(0))


@torch.no_grad()
def test_one_group_hands_its_bag_feature_on() -> None:
    model, bag = build(groups=1), random_bag(9, DIM)
    hidden = torch.relu(torch.from_numpy(bag.features) @ model.embed[0].weight.T)
    torch.testing.assert_close(model(Bags.pack([bag])).embedding[0], gated(model.tier1_attend, hidden) @ hidden)


@pytest.mark.parametrize("training", [False, True])
def test_pseudo_bags_partition_every_bag_evenly(training: bool) -> None:
    model = build(groups=4).train(training)
    batch = Bags.pack([random_bag(size, DIM) for size in (11, 3, 1, 8)])
    torch.manual_seed(1)
    order, groups, owner = model._split(model.encode(batch))
    assert sorted(order.tolist()) == list(range(23))
    assert [owner.tolist().count(bag) for bag in range(4)] == [4, 3, 1, 4]
    starts = [0, 11, 14, 15, 23]
    for rows, bag in zip(groups.split(order), owner.tolist(), strict=True):
        assert all(starts[bag] <= row < starts[bag + 1] for row in rows.tolist())
    for bag in range(4):
        sizes = [size for size, of in zip(groups.lengths, owner.tolist(), strict=True) if of == bag]
        assert max(sizes) - min(sizes) <= 1
    if training:
        again = model._split(model.encode(batch))[0]
        assert not torch.equal(order, again)
        torch.manual_seed(1)
        assert torch.equal(order, model._split(model.encode(batch))[0])
    else:
        assert [rows.tolist() for rows in groups.split(order)][:4] == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7]]


def test_tier_1_is_trained_on_pseudo_bags_with_their_bags_target() -> None:
    model, batch = build(groups=4).train(), Bags.pack([random_bag(12, DIM), random_bag(2, DIM)])
    torch.manual_seed(1)
    output: MILOutput = model(batch)
    rows = output.auxiliary["tier1"]
    assert rows.bag.tolist() == [0, 0, 0, 0, 1, 1] and rows.logits.shape == (6, 2)
    assert rows.share is not None and rows.share.tolist() == [0.25, 0.25, 0.25, 0.25, 0.5, 0.5]
    torch.manual_seed(1)
    _, groups, _ = model._split(model.encode(batch))
    pooled = torch.stack([gated(model.tier1_attend, part) @ part for part in groups.split(groups.features)])
    torch.testing.assert_close(rows.logits, model.tier1_head(pooled))
    assert not model.eval()(batch).auxiliary


@pytest.mark.parametrize("distil", ["afs", "maxs", "maxmins"])
@pytest.mark.parametrize("end_to_end", [False, True])
def test_tier_2_trains_tier_1_only_if_asked(distil: str, end_to_end: bool) -> None:
    model = build(distil=distil, end_to_end=end_to_end).train()
    model(Bags.pack([random_bag(12, DIM)])).logits.sum().backward()
    assert model.head.weight.grad is not None and model.attend.score.weight.grad is not None
    assert (model.embed[0].weight.grad is not None) == end_to_end
    assert model.tier1_head.weight.grad is None
    assert (model.tier1_attend.content.weight.grad is not None) == (end_to_end and distil == "afs")


@torch.no_grad()
@pytest.mark.parametrize(("outputs", "by"), [(2, "auto"), (2, "predicted"), (3, "auto"), (3, "last"), (1, "auto")])
def test_which_class_ranks(outputs: int, by: str) -> None:
    model, bag = build(outputs, distil="maxs", groups=1, rank_by=by), random_bag(9, DIM)
    batch = Bags.pack([bag])
    hidden = model.encode(batch).features
    weights = gated(model.tier1_attend, hidden)
    evidence = (weights[:, None] * hidden) @ model.tier1_head.weight.T
    predicted = int(model.tier1_head(weights @ hidden).argmax())
    column = predicted if by == "predicted" or (by == "auto" and outputs == 3) else outputs - 1
    expected = evidence[:, 0].sigmoid() if outputs == 1 else evidence.softmax(1)[:, column]
    output = model(batch)
    torch.testing.assert_close(output.scores, expected)
    assert int(output.attention[:, 0].argmax()) == int(expected.argmax()) and output.attention.max() == 1.0


@torch.no_grad()
def test_tiles_of_a_long_bag_keep_ranks_of_their_own() -> None:
    model, batch = build(distil="maxs", groups=1), Bags.pack([random_bag(5_000, DIM)])
    full = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(batch)
    best = full.scores.topk(50).indices.tolist()
    assert int(half.attention[:, 0].argmax()) in best  # not merely the first of many equals
    assert half.scores.dtype == half.attention.dtype


def test_ends_of_equal_rank_are_not_taken_twice() -> None:
    model = build(distil="maxmins", groups=1)
    with torch.no_grad():
        model.tier1_head.weight.zero_()
    attention = model(Bags.pack([random_bag(9, DIM)])).attention
    assert int((attention > 0).sum()) == 2 and attention.sum().item() == pytest.approx(1.0)


def test_refuses_to_leave_tier_1_untrained() -> None:
    with pytest.raises(SettingsError, match=r"tier 1 untrained.*end_to_end"):
        build(tier1_weight=0.0)
    assert not build(tier1_weight=0.0, end_to_end=True).train()(Bags.pack([random_bag(9, DIM)])).auxiliary
