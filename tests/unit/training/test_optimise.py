"""Optimisers, schedules and the moving average, against formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pathpipe.settings import TrainSettings
from pathpipe.training.optimise import Average, clip_gradient, learning_rate, make_optimiser


def test_cosine_after_a_linear_warm_up() -> None:
    rates = [learning_rate(TrainSettings(lr=2.0), step, 4, 12) for step in range(12)]
    cosine = [1 + math.cos(math.pi * step / 8) for step in range(8)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, *cosine])
    assert [learning_rate(TrainSettings(lr=1.0), step, 4, 2) for step in range(2)] == [0.25, 0.5]


def test_linear_and_constant_schedules() -> None:
    line = [learning_rate(TrainSettings(lr=1.0, schedule="linear"), step, 2, 6) for step in range(6)]
    assert line == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    flat = [learning_rate(TrainSettings(lr=3.0, schedule="constant"), step, 2, 6) for step in range(6)]
    assert flat == [1.5, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [  # one parameter of 2, gradient 4, first step, lr 0.1, decay 0.5
        ({"optimiser": "adamw"}, 2 - 0.1 * 0.5 * 2 - 0.1),
        ({"optimiser": "adam"}, 2 - 0.1),
        ({"optimiser": "sgd", "momentum": 0.0}, 2 - 0.1 * (4 + 0.5 * 2)),
        ({"optimiser": "sgd", "momentum": 0.9}, 2 - 0.1 * 1.9 * (4 + 0.5 * 2)),  # Nesterov looks one step ahead
        ({"optimiser": "radam"}, 2 - 0.1 * (4 + 0.5 * 2)),  # not rectified yet: plain momentum
    ],
)
def test_first_step_of_each_optimiser(changes: dict[str, object], expected: float) -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(2.0)
    settings = TrainSettings.model_validate({"lr": 0.1, "weight_decay": 0.5, **changes})
    optimiser = make_optimiser(model, settings)
    model.weight.grad = torch.full((1, 1), 4.0)
    optimiser.step()
    assert model.weight.item() == pytest.approx(expected, abs=1e-5)


def test_average_follows_the_weights_and_can_be_put_in_their_place() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(10.0)
    average = Average(model, 0.2)
    expected, updates = 10.0, 0
    for value in (4.0, 6.0, -2.0, 0.0):
        model.weight.data.fill_(value)
        average.update()
        decay = min(0.2, (1 + updates) / (10 + updates))
        expected, updates = decay * expected + (1 - decay) * value, updates + 1
    with average.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 0.0
    other = Average(model, 0.2)
    other.load_state_dict(average.state_dict())
    with other.applied():
        assert model.weight.item() == pytest.approx(expected)


def test_clipping_keeps_the_direction() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradient(model, None) is None
    norm = clip_gradient(model, 1.0)
    assert norm is not None and norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]))
    clip_gradient(model, 2.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]))
