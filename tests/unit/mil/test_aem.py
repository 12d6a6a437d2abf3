"""AEM: one more loss on any model with attention, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.model import MILModule, TrainContext
from pathpipe.mil.registry import MODELS, Recipe, build_model, model_class
from pathpipe.mil.wrappers.aem import Aem
from pathpipe.testing.bags import random_bag
from pathpipe.testing.contract import labelled

DIM = 8
CONTEXT = TrainContext(epoch=0, epochs=4, step=0, total_steps=8, generator=torch.Generator())
ATTENTION = [name for name in MODELS.names() if model_class(name).card.attention]


def build(model: str = "abmil", options: Any = None, **aem: Any) -> MILModule:
    torch.manual_seed(0)
    return build_model(Recipe(model, options or {}, {"aem": aem}), DIM, 2)


def batch() -> Bags:
    return labelled(Bags.pack([random_bag(9, DIM), random_bag(4, DIM)]), torch.tensor([1, 0]))


def loss_of(model: MILModule, bags: Bags) -> torch.Tensor:
    def criterion(logits: torch.Tensor, bag: Any, share: Any) -> torch.Tensor:
        assert bags.labels is not None
        target = bags.labels.values if bag is None else bags.labels.values[bag]
        return cross_entropy(logits, target)

    torch.manual_seed(3)
    loss: torch.Tensor = model(bags).total_loss(criterion)
    return loss


@pytest.mark.parametrize("model", ["gated-abmil", "clam-mb", "dsmil", "dtfd", "acmil", "ilra"])
def test_the_loss_is_the_mean_negative_entropy_of_all_maps(model: str) -> None:
    options = {"mask_top": 0} if model == "acmil" else {}
    wrapped = build(model, options, weight=0.2).train()
    torch.manual_seed(1)
    output = wrapped(batch())
    assert output.attention is not None
    total = 0.0
    for weights in batch().split(output.attention.detach().double()):
        total += float((weights * weights.log()).sum()) / weights.shape[1]
    assert output.losses["negative_entropy"].item() == pytest.approx(total / 2, rel=1e-5)
    assert output.loss_weights["negative_entropy"] == 0.2


def test_even_attention_gives_minus_log_n_in_both_layouts() -> None:
    model = build(weight=1.0).train()
    with torch.no_grad():
        model.get_parameter("base.attend.score.weight").zero_()
    expected = -(math.log(9) + math.log(4)) / 2
    for bags in (batch(), batch().to_padded()):
        loss = model(bags).losses["negative_entropy"]
        assert loss.item() == pytest.approx(expected)
        loss.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", ATTENTION)
def test_weight_0_is_the_model_itself_and_prediction_always_is(name: str) -> None:
    plain, none, some = (build_model(Recipe(name), DIM, 2), build(name, weight=0.0), build(name, weight=0.5))
    for wrapped in (none, some):
        wrapped.load_state_dict({f"base.{key}": value for key, value in plain.state_dict().items()})
        assert torch.equal(wrapped.eval()(batch()).logits, plain.eval()(batch()).logits)
        assert not wrapped(batch()).losses
    before = loss_of(plain.train(), batch())
    assert torch.equal(loss_of(none.train(), batch()), before)
    assert loss_of(some.train(), batch()) < before  # entropy is positive, and rewarded


def test_training_on_it_spreads_attention() -> None:
    model = build(options={"dropout": 0.0}).train()
    with torch.no_grad():
        model.get_parameter("base.attend.score.weight").mul_(8)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001)
    entropies = []
    for _ in range(10):
        optimiser.zero_grad()
        output = model(batch())
        output.losses["negative_entropy"].backward()
        entropies.append(-output.losses["negative_entropy"].item())
        optimiser.step()
    assert entropies == sorted(entropies) and entropies[-1] > entropies[0]


def test_schedules() -> None:
    def weights(schedule: str) -> list[float]:
        model = build(weight=0.2, schedule=schedule).train()
        values = []
        for step in range(9):
            model.pre_step(batch(), replace(CONTEXT, step=step))
            values.append(model(batch()).loss_weights["negative_entropy"])
        return values

    assert weights("constant") == [0.2] * 9
    expected = [0.1 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]
    assert weights("annealed") == pytest.approx(expected) and weights("annealed")[-1] == pytest.approx(0.0)


def test_options_and_what_is_deployed() -> None:
    model = build_model(Recipe("abmil", {}, {"aem": {"value": 0.05}}), DIM, 2)
    assert isinstance(model, Aem) and model.options.weight == 0.05
    assert model.deployed() is model.base and model.card == model.base.card


@pytest.mark.parametrize("name", ["mean", "max"])
def test_refuses_models_without_attention(name: str) -> None:
    with pytest.raises(SettingsError, match=f"`aem` can't work on `{name}`: it has no attention.*pathpipe models"):
        build(name)
