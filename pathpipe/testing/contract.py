"""The contract of a MIL model, as a pytest class: derive from it, name the model, and its tests run on yours.

class TestMeanMax(ModelContract):
    model = "meanmax"
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pathpipe.mil.bag import Bag, Bags, Labels
from pathpipe.mil.model import MILModule, MILOutput, TrainContext
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag, witness_bags

DIM = 32
SIZES = (5, 1, 2, 17)
TOLERANCE = 1e-5  # relative and absolute, float32
CONTEXT = TrainContext(epoch=0, epochs=40, step=0, total_steps=40, generator=torch.Generator())


class ModelContract:
    """What every registered model must do, at its default options unless a subclass gives others."""

    model: str
    options: Mapping[str, Any] = MappingProxyType({})
    wrappers: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def fresh(self, outputs: int = 2) -> MILModule:
        """The model as it is initialised."""
        return build_model(Recipe(self.model, self.options, self.wrappers), DIM, outputs)

    def build(self, outputs: int = 2, seed: int = 0) -> MILModule:
        """The model in evaluation mode, its biases random too: zeros hide what is left out."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.fresh(outputs)
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    torch.nn.init.normal_(parameter, std=0.1)
        return model.eval()

    def bags(self) -> list[Bag]:
        """Bags of different sizes, one and two instances included."""
        return [random_bag(size, DIM, seed=1, name=f"bag-{size}") for size in SIZES]

    def test_padding_with_garbage_changes_nothing(self) -> None:
        model, bags = self.build(), Bags.pad(self.bags())
        assert bags.mask is not None
        plain = _run(model, bags)
        for extra in (1, 64):
            garbage = torch.full((len(bags), extra, DIM), 1e3)
            features = torch.where(bags.mask[..., None], bags.features, torch.tensor(1e3))
            mask = torch.cat([bags.mask, torch.zeros(len(bags), extra, dtype=torch.bool)], dim=1)
            assert bags.xy0 is not None
            xy0 = torch.where(bags.mask[..., None], bags.xy0, -7)
            xy0 = torch.cat([xy0, torch.full((len(bags), extra, 2), 10**9)], dim=1)
            worse = replace(bags, features=torch.cat([features, garbage], 1), mask=mask, xy0=xy0)
            output = _run(model, worse)
            _assert_close(output.logits, plain.logits)
            if output.attention is not None and plain.attention is not None:
                assert (output.attention[~mask] == 0).all()
                _assert_all_close(output.attention_per_bag(worse), plain.attention_per_bag(bags))

    def test_packed_padded_and_one_by_one_agree(self) -> None:
        model, bags = self.build(), self.bags()
        packed, padded = Bags.pack(bags), Bags.pad(bags)
        singles = [_run(model, Bags.pack([bag])) for bag in bags]
        expected = torch.cat([single.logits for single in singles])
        for batch in (packed, padded):
            output = _run(model, batch)
            _assert_close(output.logits, expected)
            for name in ("attention", "attention_raw", "instance_logits", "scores"):
                values = getattr(output, name)
                if values is not None:
                    _assert_all_close(batch.split(values), [getattr(single, name) for single in singles])

    def test_attention_is_as_the_card_says_and_sums_to_one(self) -> None:
        model, bags = self.build(), Bags.pack(self.bags())
        output = _run(model, bags)
        assert (output.attention is not None) == model.card.attention
        if output.attention is None:
            with pytest.raises(ValueError, match="no attention"):
                output.attention_per_bag(bags)
            return
        for weights in output.attention_per_bag(bags):
            assert (weights >= 0).all()
            torch.testing.assert_close(weights.sum(0), torch.ones(weights.shape[1]), rtol=0, atol=1e-6)

    def test_order_of_instances_matters_only_if_the_card_says_so(self) -> None:
        model, bag = self.build(), random_bag(37, DIM)
        order = np.random.default_rng(3).permutation(len(bag))
        plain, shuffled = (_run(model, Bags.pack([one])) for one in (bag, bag.take(order)))
        same = torch.allclose(plain.logits, shuffled.logits, TOLERANCE, TOLERANCE)
        assert same == model.card.permutation_invariant
        if same and plain.attention is not None:
            _assert_close(shuffled.attention, plain.attention[order])

    @pytest.mark.parametrize("instances", [1, 2, 13, 50_000])
    def test_any_number_of_instances(self, instances: int) -> None:
        output = _run(self.build(), Bags.pack([random_bag(instances, DIM)]))
        assert output.logits.shape == (1, 2)
        assert torch.isfinite(output.logits).all()

    def test_gradient_reaches_every_parameter_and_no_padding(self) -> None:
        model, bags = self.build().train(), labelled(Bags.pad(self.bags()), torch.tensor([1, 0, 0, 1]))
        features = bags.features.clone().requires_grad_()
        bags = replace(bags, features=features)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model.setup(CONTEXT)
            model.pre_step(bags, CONTEXT)
            _loss(model(bags), torch.tensor([1, 0, 0, 1])).backward()
        dead = [
            name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        # A score's bias moves all scores of a bag alike, so that a softmax must not feel it.
        assert [name for name in dead if not _is_shift_of_scores(model, name)] == []
        assert features.grad is not None and torch.isfinite(features.grad).all()
        assert bags.mask is not None and not features.grad[~bags.mask].any()

    def test_same_seed_same_bits_and_evaluation_draws_nothing(self) -> None:
        batch = Bags.pack(self.bags())
        batch = labelled(batch, torch.tensor([1, 0, 0, 1]))
        first, second = (_train_loss(self.build(), batch, seed=5) for _ in range(2))
        assert torch.equal(first, second)
        before = torch.get_rng_state()
        _run(self.build(), batch)
        assert torch.equal(before, torch.get_rng_state())

    def test_bfloat16_stays_finite(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = _run(self.build(), Bags.pack([random_bag(50_000, DIM)]))
        assert torch.isfinite(output.logits).all()
        if output.attention is not None:
            sums = output.attention.float().sum(0)
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-2)

    def test_weights_round_trip(self) -> None:
        model, other, batch = self.build(seed=0), self.build(seed=1), Bags.pack(self.bags())
        assert not torch.equal(_run(model, batch).logits, _run(other, batch).logits)
        other.load_state_dict(model.state_dict())
        assert torch.equal(_run(model, batch).logits, _run(other, batch).logits)

    def test_an_interrupted_training_goes_on_to_the_same_bits(self) -> None:
        """What a model remembers between steps (a teacher, a queue, prototypes) is in its state."""
        bags = labelled(Bags.pack(self.bags()), torch.tensor([1, 0, 0, 1]))
        with torch.random.fork_rng(devices=[]):
            model, optimiser = self._beginning()
            for step in range(3):
                _advance(model, optimiser, bags, step)
            kept = deepcopy((model.state_dict(), optimiser.state_dict()))
            losses = [_advance(model, optimiser, bags, step) for step in range(3, 6)]
            again, optimiser = self._beginning()
            again.on_epoch(_moment(3))  # as the trainer does where it goes on within an epoch
            again.load_state_dict(kept[0])
            optimiser.load_state_dict(kept[1])
            assert [_advance(again, optimiser, bags, step) for step in range(3, 6)] == losses
        for name, value in again.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name

    def _beginning(self) -> tuple[MILModule, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = self.fresh().train()
        model.setup(_moment(0))
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    @pytest.mark.parametrize("outputs", [1, 2, 3, 4])
    def test_any_number_of_outputs(self, outputs: int) -> None:
        output = _run(self.build(outputs), Bags.pack(self.bags()))
        assert output.logits.shape == (len(SIZES), outputs)
        if output.instance_logits is not None:
            assert output.instance_logits.shape == (sum(SIZES), outputs)

    def test_overfits_needles_and_points_at_them(self) -> None:
        """16 bags of 200 instances, one of which decides: AUROC 1 and the witness ranks first."""
        data = witness_bags(dim=DIM)
        batch, labels = Bags.pack(data.bags), torch.tensor(data.labels)
        model = self.fit(batch, labels, steps=40)
        output = _run(model, batch)
        margin = output.logits[:, 1] - output.logits[:, 0]
        assert margin[labels == 1].min() > margin[labels == 0].max()
        for scores, label, witness in zip(batch.split(_scores(output)), data.labels, data.witness, strict=True):
            if label == 1:
                assert int(scores.argmax()) == witness

    def fit(self, batch: Bags, labels: Tensor, steps: int) -> MILModule:
        """Full-batch training with the model's defaults."""
        batch = labelled(batch, labels)
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.fresh().train()
            model.setup(replace(CONTEXT, total_steps=steps, epochs=steps, generator=generator))
            optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
            for step in range(steps):
                context = TrainContext(step, steps, step, steps, generator)
                model.on_epoch(context)
                model.pre_step(batch, context)
                optimiser.zero_grad()
                _loss(model(batch), labels).backward()
                optimiser.step()
                model.post_step(batch, context)
        return model.deployed().eval()


def labelled(bags: Bags, classes: Tensor) -> Bags:
    """A batch as training has it, with the class of each bag."""
    return replace(bags, labels=Labels("classification", classes))


def _moment(step: int) -> TrainContext:
    """Two steps an epoch, six in all."""
    return TrainContext(step // 2, 3, step, 6, torch.Generator().manual_seed(step))


def _advance(model: MILModule, optimiser: torch.optim.Optimizer, bags: Bags, step: int) -> float:
    """The loss of a training step, done as the trainer does it."""
    assert bags.labels is not None and bags.labels.classes is not None
    torch.manual_seed(step)
    if step % 2 == 0:
        model.on_epoch(_moment(step))
    model.pre_step(bags, _moment(step))
    optimiser.zero_grad()
    loss = _loss(model(bags), bags.labels.classes)
    loss.backward()
    optimiser.step()
    model.post_step(bags, _moment(step))
    return loss.item()


def _assert_close(actual: Tensor | None, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


def _assert_all_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        _assert_close(one, other)


def _run(model: MILModule, bags: Bags) -> MILOutput:
    with torch.no_grad():
        return model(bags)


def _train_loss(model: MILModule, bags: Bags, seed: int) -> Tensor:
    assert bags.labels is not None and bags.labels.classes is not None
    context = replace(CONTEXT, generator=torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.train()
        model.setup(context)
        model.pre_step(bags, context)
        return _loss(model(bags), bags.labels.classes)


def _loss(output: MILOutput, classes: Tensor) -> Tensor:
    def criterion(logits: Tensor, bag: Tensor | None, share: Tensor | None) -> Tensor:
        losses = cross_entropy(logits, classes if bag is None else classes[bag], reduction="none")
        return losses.mean() if share is None else (share * losses).sum() / share.sum()

    return output.total_loss(criterion)


def _scores(output: MILOutput) -> Tensor:
    """What a heatmap would show: scores, else attention, else how much an instance speaks for the second class."""
    if output.scores is not None:
        return output.scores
    if output.attention is not None:
        return output.attention.mean(-1)
    assert output.instance_logits is not None
    return output.instance_logits[:, 1] - output.instance_logits[:, 0]


def _is_shift_of_scores(model: MILModule, name: str) -> bool:
    """Whether a parameter is a bias that a softmax doesn't feel, found by moving it; its weights must be alive."""
    weight = name.removesuffix("bias") + "weight"
    parameters = dict(model.named_parameters())
    if not name.endswith("bias") or weight not in parameters or not _alive(parameters[weight]):
        return False
    bags = Bags.pack([random_bag(9, DIM)])
    before = _run(model.eval(), bags)
    with torch.no_grad():
        parameter = model.get_parameter(name)
        parameter.add_(1.0)
        after = _run(model, bags)
        parameter.sub_(1.0)
    return torch.allclose(before.logits, after.logits, TOLERANCE, TOLERANCE)


def _alive(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())
