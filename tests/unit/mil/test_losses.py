"""Losses that several models share, and the attention they look at: numbers computed elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.mil.attention import GatedAttention
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.losses import map_similarity, negative_entropy, smooth_top1_svm
from pathpipe.mil.pooling import extreme_instances, softmax_over_instances, sum_over_instances

RAW = [0.70409, -0.599197, 0.696906, -0.581816]
ATTENTION = [0.393565, 0.106907, 0.390747, 0.108781]


def ramp(*shape: int, scale: float, shift: float = 0.0) -> torch.Tensor:
    """scale * sin(1), scale * sin(2), ... + shift, row by row."""
    return (scale * torch.sin(torch.arange(1.0, math.prod(shape) + 1)) + shift).view(shape)


def test_gated_attention_to_six_digits() -> None:
    bag = Bag(ramp(4, 3, scale=1.0))
    layer = GatedAttention(3, 2)
    with torch.no_grad():
        layer.content.weight.copy_(ramp(2, 3, scale=0.5))
        layer.gate.weight.copy_(ramp(2, 3, scale=0.5, shift=0.1))
        layer.score.weight.copy_(torch.tensor([[1.0, -1.0]]))
        for part in (layer.content, layer.gate, layer.score):
            part.bias.zero_()
        batch = Bags.pack([bag])
        raw = layer(batch.features)
        attention = softmax_over_instances(raw, batch)
        pooled = sum_over_instances(attention, batch.features, batch)
    torch.testing.assert_close(raw[:, 0], torch.tensor(RAW), rtol=0, atol=1e-6)
    torch.testing.assert_close(attention[:, 0], torch.tensor(ATTENTION), rtol=0, atol=1e-6)
    torch.testing.assert_close(pooled[0, 0], torch.tensor([0.447802, 0.533161, 0.128334]), rtol=0, atol=1e-6)
    assert negative_entropy(attention).item() == pytest.approx(-1.2145300798, abs=1e-6)


def test_entropy_of_even_and_of_sharp_attention() -> None:
    assert negative_entropy(torch.full((4, 1), 0.25)).item() == pytest.approx(-1.3862943611)
    sharp = torch.tensor([[0.0], [1.0], [0.0]], requires_grad=True)
    loss = negative_entropy(sharp)
    loss.backward()
    assert loss.item() == 0.0
    assert sharp.grad is not None and torch.isfinite(sharp.grad).all()


def test_entropy_is_averaged_over_maps() -> None:
    maps = torch.stack([torch.full((4,), 0.25), torch.tensor([0.0, 0.0, 1.0, 0.0])], dim=1)
    assert negative_entropy(maps).item() == pytest.approx(-math.log(4) / 2)


def test_a_step_along_the_entropy_alone_raises_it() -> None:
    raw = torch.tensor(RAW)[:, None].requires_grad_()
    before = negative_entropy(raw.softmax(0))
    (gradient,) = torch.autograd.grad(before, raw)
    assert negative_entropy((raw - 0.5 * gradient).softmax(0)) < before


def test_likeness_of_three_maps_to_seven_digits() -> None:
    raw = torch.tensor(RAW, dtype=torch.float64)
    maps = torch.stack([raw.softmax(0), (-raw).softmax(0), torch.full((4,), 0.25, dtype=torch.float64)], dim=1)
    assert map_similarity(maps).item() == pytest.approx(0.7499376712, abs=2e-6)  # RAW has six digits
    expected = torch.tensor([0.250339, 0.250825, 0.249658, 0.249178], dtype=torch.float64)
    torch.testing.assert_close(maps.mean(1), expected, rtol=0, atol=1e-6)


def test_likeness_is_1_for_equal_maps_and_0_for_disjoint() -> None:
    one = torch.tensor(ATTENTION)
    assert map_similarity(one[:, None].expand(4, 5)).item() == pytest.approx(1.0)
    assert map_similarity(torch.eye(4)[:, :3]).item() == 0.0


def test_likeness_compares_the_same_head_only() -> None:
    maps = torch.rand(7, 3, 4, generator=torch.Generator().manual_seed(0)).softmax(0)
    heads = torch.stack([map_similarity(maps[:, head]) for head in range(3)])
    torch.testing.assert_close(map_similarity(maps), heads.mean())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-4, 4), min_size=2, max_size=5),
    st.integers(0, 4),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 1.0, 2.0]),
)
def test_smooth_svm_against_its_formula(scores: list[float], own: int, temperature: float, margin: float) -> None:
    own %= len(scores)
    terms = [math.exp((s + margin * (j != own) - scores[own]) / temperature) for j, s in enumerate(scores)]
    loss = smooth_top1_svm(torch.tensor([scores]), torch.tensor([own]), temperature, margin)
    assert loss.item() == pytest.approx(temperature * math.log(sum(terms)), rel=1e-4, abs=1e-5)


def test_smooth_svm_by_hand_and_without_smoothing() -> None:
    logits, classes = torch.tensor([[2.0, 0.5], [2.0, 0.5], [-3.0, 40.0]]), torch.tensor([0, 1, 0])
    # gaps, margin included: 0.5 + 1 - 2, 2 + 1 - 0.5, 40 + 1 + 3
    expected = [math.log(1 + math.exp(-0.5)), math.log(1 + math.exp(2.5)), 44.0]
    torch.testing.assert_close(smooth_top1_svm(logits, classes), torch.tensor(expected))
    hinge = smooth_top1_svm(logits, classes, temperature=1e-3)
    torch.testing.assert_close(hinge, torch.tensor([0.0, 2.5, 44.0]), rtol=0, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(1, 12))
def test_extreme_instances_are_the_ends_of_the_order(scores: list[int], count: int) -> None:
    top, bottom = (rows.tolist() for rows in extreme_instances(torch.tensor(scores).float(), count))
    assert len(top) == min(count, (len(scores) + 1) // 2) and len(bottom) == min(count, len(scores) // 2)
    assert not set(top) & set(bottom)
    assert [scores[row] for row in top] == sorted(scores, reverse=True)[: len(top)]
    assert [scores[row] for row in bottom] == sorted(scores)[: len(bottom)]
