"""INS: its losses, queue, prototypes, soft labels and what moves when."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pathpipe.mil.bag import Bags, Labels
from pathpipe.mil.contrast import KeyQueue, Prototypes, info_nce, supervised_contrast
from pathpipe.mil.model import TrainContext
from pathpipe.mil.models.ins import Ins, candidate_sets, memory, positivity, soft_labels
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag

OPTIONS = {"hidden": 16, "projection": 8, "queue": 32, "tiles": 5}


def test_published_contrast() -> None:
    queries = torch.eye(2, dtype=torch.float64)
    others = torch.tensor([[0.8, 0.6], [0.6, 0.8], [-1, 0], [0, -1]], dtype=torch.float64)
    loss = supervised_contrast(queries, others, torch.tensor([0, 1, 0, 1, 0, 1]), 0.07)
    assert loss.item() == pytest.approx(12.9130073483, abs=1e-9)


def test_unlabelled_keys_are_like_nobody_and_still_in_the_way() -> None:
    queries, keys = torch.eye(2), torch.tensor([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0]])
    loss = supervised_contrast(queries, keys, torch.tensor([0, 1, 0, 1, -1]), 0.5)
    logits = queries @ keys.T * 2
    first = -(logits[0, 0] - torch.stack([torch.tensor(0.0), *logits[0]]).logsumexp(0))
    second = -(logits[1, 1] - torch.stack([torch.tensor(0.0), *logits[1]]).logsumexp(0))
    assert loss.item() == pytest.approx(((first + second) / 2).item())


def test_info_nce_is_the_log_share_of_the_own_key() -> None:
    queries, keys, negatives = torch.eye(2), torch.tensor([[0.8, 0.6], [0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
    expected = [-(torch.tensor(0.8) / 0.5 - torch.tensor([0.8 / 0.5, other / 0.5]).logsumexp(0)) for other in (0, 1)]
    assert info_nce(queries, keys, negatives, 0.5).item() == pytest.approx(float(sum(expected) / 2))


def test_queue_wraps_and_keeps_the_newest() -> None:
    queue = KeyQueue(4, 2)
    assert queue.keys.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert queue.labels.tolist() == [-1] * 4
    keys = torch.arange(6.0)[:, None].expand(6, 2)
    queue.push(keys[:3], torch.tensor([0, 1, 0]))
    queue.push(keys[3:5], torch.tensor([1, 1]))
    assert (queue.keys[:, 0].tolist(), queue.labels.tolist(), int(queue.pointer)) == ([4, 1, 2, 3], [1, 1, 0, 1], 1)
    queue.push(keys, torch.zeros(6, dtype=torch.int64))
    assert sorted(queue.keys[:, 0].tolist()) == [2, 3, 4, 5]


def test_prototypes_follow_instances_one_by_one() -> None:
    prototypes = Prototypes(3, 2, 0.9)
    prototypes.update(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([1, 1]))
    assert prototypes.directions[1].tolist() == pytest.approx([0.882353, 0.470588], abs=1e-6)
    assert not prototypes.directions[[0, 2]].any()
    before, labels = prototypes.directions.clone(), torch.tensor([1, 0, 1, 0, 1])
    embeddings = nn.functional.normalize(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    prototypes.update(embeddings, labels)
    for embedding, label in zip(embeddings, labels.tolist(), strict=True):
        before[label] = 0.9 * before[label] + 0.1 * embedding
    torch.testing.assert_close(prototypes.directions, nn.functional.normalize(before, dim=1))
    assert prototypes.directions[:2].norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    torch.testing.assert_close(prototypes.scores(embeddings), (embeddings @ prototypes.directions.T).softmax(1))


def test_candidates_and_soft_labels() -> None:
    candidates = candidate_sets(torch.tensor([0, 1, 2]), 3)
    assert candidates.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    labels = soft_labels(candidates, torch.tensor([0, 1, 2]), 0.95)
    torch.testing.assert_close(labels, torch.tensor([[1, 0, 0], [0.475, 0.525, 0], [0.475, 0, 0.525]]))


def test_memory_runs_from_095_towards_08() -> None:
    assert memory(0, 40) == pytest.approx(0.95)
    assert memory(20, 40) == pytest.approx(0.875)
    assert memory(40, 40) == pytest.approx(0.8)


def test_epochs_end_warm_up_and_fade_the_even_label() -> None:
    model = build()
    for epoch, warm, share in ((0, False, 1.0), (1, True, memory(1, 10)), (3, True, None)):
        model.on_epoch(context(epoch, 10))
        assert bool(model.warm) == warm
        expected = memory(1, 10) * memory(2, 10) * memory(3, 10) if share is None else share
        assert float(model.uniform_share) == pytest.approx(expected)


@pytest.mark.parametrize("warm", [False, True])
def test_losses_of_a_step(warm: bool) -> None:
    """Dropout and noise off, all tiles drawn: both losses written out."""
    still = {"dropout": 0, "weak_dropout": 0, "strong_dropout": 0, "strong_noise": 0, "tiles": 100}
    model = build(**still).train()
    model.warm.fill_(warm)
    model.uniform_share.fill_(0.6)
    model.prototypes.directions.copy_(nn.functional.normalize(torch.randn(3, 8), dim=1))
    batch, of_tile = batch_of([0, 2]), torch.tensor([0] * 4 + [2] * 7)
    losses = model(batch).losses
    hidden = model.embed(batch.features)
    logits, queries = model.head(hidden), nn.functional.normalize(model.project(hidden), dim=1)
    candidates = candidate_sets(of_tile, 3)
    chosen = (queries @ model.prototypes.directions.T).masked_fill(candidates == 0, -9).argmax(1)
    targets = soft_labels(candidates, chosen, 0.6)
    assert targets[:4].tolist() == [[1, 0, 0]] * 4
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses["instance"], expected)
    labels = logits.masked_fill(candidates == 0, -99).argmax(1)
    assert (candidates.gather(1, labels[:, None]) == 1).all()
    if warm:
        everyone = torch.cat([labels, labels, model.queue.labels])
        contrast = supervised_contrast(queries, torch.cat([queries, model.queue.keys]), everyone, 0.07)
    else:
        contrast = info_nce(queries, queries, model.queue.keys, 0.07)
    torch.testing.assert_close(losses["contrast"], contrast, rtol=1e-4, atol=1e-5)


def test_step_moves_momentum_queue_and_prototypes_and_only_in_training() -> None:
    model = build().train()
    batch, where = batch_of([0, 1]), context(0, 10)
    assert all(not p.requires_grad for p in model.key_encoder.parameters())
    model(batch)
    assert int(model.queue.pointer) == 0
    slow, fast = model.get_parameter("key_encoder.0.0.weight"), model.get_parameter("embed.0.weight")
    with torch.no_grad():
        fast.add_(1.0)
    before = slow.clone()
    model.post_step(batch, where)
    torch.testing.assert_close(slow, 0.999 * before + 0.001 * fast)
    assert int(model.queue.pointer) == 4 + 5  # all four tiles of one bag, five drawn of the other
    assert set(model.queue.labels[:9].tolist()) <= {0, 1}
    assert model.prototypes.directions[0].norm().item() == pytest.approx(1.0)
    model.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert model(batch).losses == {}
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_bags_of_unknown_class_have_no_instance_losses() -> None:
    model = build().train()
    losses = model(batch_of([-1, -1])).losses
    assert [value.item() for value in losses.values()] == [0, 0]
    some = build(tiles=100).train()
    some(batch_of([-1, 1]))
    some.post_step(batch_of([-1, 1]), context(0, 10))
    assert int(some.queue.pointer) == 7


def test_bag_is_its_most_positive_tile_or_the_mean() -> None:
    batch = batch_of([0, 1])
    output = build().eval()(batch)
    for logits, tiles in zip(output.logits, batch.split(output.instance_logits), strict=True):
        assert torch.equal(logits, tiles[positivity(tiles).argmax()])
    torch.testing.assert_close(positivity(torch.tensor([[1.0, 3.0, 2.0]])), torch.tensor([2.0]))
    mean = build(pool="mean").eval()(batch)
    torch.testing.assert_close(mean.logits[1], batch.split(mean.instance_logits)[1].mean(0))
    two = build_model(Recipe("ins", OPTIONS), 6, 2).eval()(batch)
    largest = [part.softmax(1)[:, 1].max() for part in batch.split(two.instance_logits)]
    torch.testing.assert_close(two.logits.softmax(1)[:, 1], torch.stack(largest))


def build(**options: object) -> Ins:
    torch.manual_seed(0)
    model = build_model(Recipe("ins", {**OPTIONS, **options}), 6, 3)
    assert isinstance(model, Ins)
    return model


def batch_of(classes: list[int]) -> Bags:
    batch = Bags.pack([random_bag(4, 6), random_bag(7, 6)])
    return replace(batch, labels=Labels("classification", torch.tensor(classes)))


def context(epoch: int, epochs: int) -> TrainContext:
    return TrainContext(epoch, epochs, epoch, epochs, torch.Generator())
