"""CLAM: which instances its classifiers learn from, and how their loss joins the bag's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.model import MILOutput
from pathpipe.mil.models.clam import Clam
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag
from pathpipe.testing.contract import labelled

DIM = 6


def build(name: str = "clam-sb", outputs: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(Recipe(name, {"hidden": 8, "attention_dim": 4, "dropout": 0.0, **options}), DIM, outputs)
    assert isinstance(model, Clam)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.3)
    return model


def train(model: Any, bags: list[Bag], classes: list[int]) -> MILOutput:
    output: MILOutput = model.train()(labelled(Bags.pack(bags), torch.tensor(classes)))
    return output


@pytest.mark.parametrize(("name", "parameters"), [("clam-sb", 790_791), ("clam-mb", 791_048)])
def test_parameter_counts(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build_model(Recipe(name), 1024, 2).parameters()) == parameters


@pytest.mark.parametrize("name", ["clam-sb", "clam-mb"])
@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize("loss", ["ce", "svm"])
def test_instance_loss_against_a_plain_reading(name: str, subtyping: bool, loss: str) -> None:
    model = build(name, subtyping=subtyping, instance_loss=loss, instances=3)
    bag = random_bag(20, DIM)
    output = train(model, [bag], [1])
    assert output.attention is not None
    hidden, attention = model.encode(Bags.pack([bag])).features, output.attention.detach()
    total = torch.zeros(())
    for number in range(3):
        column = attention[:, number if name == "clam-mb" else 0]
        order = sorted(range(20), key=lambda row: -float(column[row]))
        if number == 1:
            rows, targets = order[:3] + order[-3:], [1, 1, 1, 0, 0, 0]
        elif subtyping:
            rows, targets = order[:3], [0, 0, 0]
        else:
            continue
        total = total + mean_loss(model.inspect[number](hidden[rows]), torch.tensor(targets), loss)
    expected = total / 3 if subtyping else total
    torch.testing.assert_close(output.losses["instance"], expected)


def mean_loss(logits: Tensor, targets: Tensor, loss: str) -> Tensor:
    if loss == "ce":
        return cross_entropy(logits, targets)
    rows = torch.arange(len(targets))
    gap = 1 + logits[rows, 1 - targets] - logits[rows, targets]
    return torch.log1p(gap.exp()).mean()


def test_the_losses_are_weighed_seven_to_three() -> None:
    output = train(build(), [random_bag(20, DIM), random_bag(5, DIM)], [1, 2])
    total = output.total_loss(lambda logits, bag, share: torch.tensor(10.0))
    assert total.item() == pytest.approx(7.0 + 0.3 * output.losses["instance"].item())


def test_a_batch_has_the_mean_of_its_bags_and_leaves_unknown_classes_out() -> None:
    model, bags = build(subtyping=True), [random_bag(size, DIM) for size in (20, 5, 9)]
    alone = [train(model, [bag], [own]).losses["instance"] for bag, own in zip(bags, (1, 2, 0), strict=True)]
    torch.testing.assert_close(train(model, bags, [1, 2, 0]).losses["instance"], torch.stack(alone).mean())
    torch.testing.assert_close(train(model, bags, [1, -1, 0]).losses["instance"], (alone[0] + alone[2]) / 2)
    assert train(model, bags, [-1, -1, -1]).losses["instance"].item() == 0.0


def test_only_the_own_class_learns_unless_subtyping() -> None:
    for subtyping, expected in ((False, [False, True, False]), (True, [True, True, True])):
        model = build(subtyping=subtyping)
        train(model, [random_bag(20, DIM)], [1]).losses["instance"].backward()
        assert [classifier.weight.grad is not None for classifier in model.inspect] == expected


@pytest.mark.parametrize("instances", [1, 2, 7, 15])
def test_small_bags_give_what_they_have(instances: int) -> None:
    model = build(instances=8)
    output = train(model, [random_bag(instances, DIM)], [1])
    output.losses["instance"].backward()
    assert torch.isfinite(output.losses["instance"])


def test_indices_carry_no_gradient_and_instances_do() -> None:
    model = build()
    train(model, [random_bag(20, DIM)], [1]).losses["instance"].backward()
    assert all(parameter.grad is None for parameter in model.attend.parameters())
    assert model.embed[0].weight.grad.any()


def test_a_row_of_clam_mb_moves_its_own_logit_only() -> None:
    model, batch = build("clam-mb").eval(), Bags.pack([random_bag(20, DIM), random_bag(3, DIM)])
    before = model(batch).logits
    with torch.no_grad():
        model.head.weight[1] += 1.0
        model.attend.score.weight[1] -= 1.0
    moved = (model(batch).logits - before).abs() > 1e-6
    assert moved.tolist() == [[False, True, False]] * 2


def test_a_logit_is_the_weighted_mean_of_instance_logits_by_its_own_map() -> None:
    for name in ("clam-sb", "clam-mb"):
        batch = Bags.pack([random_bag(11, DIM), random_bag(4, DIM)])
        output = build(name).eval()(batch)
        pairs = zip(batch.split(output.attention), batch.split(output.instance_logits), strict=True)
        torch.testing.assert_close(output.logits, torch.stack([(weight * logit).sum(0) for weight, logit in pairs]))


def test_prediction_and_unlabelled_batches_have_no_losses() -> None:
    model, batch = build(), Bags.pack([random_bag(20, DIM)])
    assert model.eval()(labelled(batch, torch.tensor([1]))).losses == {} == model.train()(batch).losses
    assert model.eval()(batch).weight == 1.0
