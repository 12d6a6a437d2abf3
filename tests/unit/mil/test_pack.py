"""PackMIL: sampling, hyperslides and their targets, the downsampler."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.downsample import Downsampler
from pathpipe.mil.hyperslide import asymmetric, class_mixture, focal, isup_mixture, packs
from pathpipe.mil.registry import Recipe, build_model, recipe_of
from pathpipe.mil.wrappers.pack import Pack, PackOptions, _divided
from pathpipe.testing.bags import random_bag
from pathpipe.testing.contract import ModelContract, labelled

SIZES = (40, 9, 25, 1)


class TestPackOnAbmil(ModelContract):
    # the one instance that decides is merged with others, or in the other branch; without merging see below
    test_overfits_needles_and_points_at_them = None  # type: ignore[assignment]

    model = "abmil"
    wrappers = {"pack": {"downsample": 2, "keep": 0.7}}


class TestPackOnMax(ModelContract):
    model = "max"
    wrappers = {"pack": {"residual_loss": "focal", "keep": 0.9}}


def _pack(**options: Any) -> Pack:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(Recipe("abmil", {"hidden": 16, "dropout": 0.0}, {"pack": options}), 8, 6)
    assert isinstance(model, Pack)
    return model.train()


def _batch(sizes: tuple[int, ...] = SIZES) -> Bags:
    bags = Bags.pack([random_bag(size, 8, seed=3) for size in sizes])
    return labelled(bags, torch.arange(len(sizes)))


@given(st.integers(1, 300), st.floats(0.05, 0.95), st.integers(0, 60), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_the_two_parts_are_the_whole_slide(length: int, keep: float, smallest: int, largest: int) -> None:
    options = PackOptions(keep=keep, smallest=smallest, largest=largest)
    parts = _divided(length, options, torch.device("cpu"))
    main, residual = parts.main.tolist(), parts.residual.tolist()
    first = int(length * keep)
    assert main == sorted(main) and residual == sorted(residual)
    if length < smallest or first == 0:
        assert main == residual and len(main) == min(length, largest)
    else:
        assert not set(main) & set(residual)
        assert (len(main), len(residual)) == (min(first, largest), min(length - first, largest))
        if length <= largest:
            assert sorted(main + residual) == list(range(length))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(50, 120))
@settings(max_examples=60, deadline=None)
def test_packs_hold_all_bags_in_order_and_never_too_much(lengths: list[int], room: int) -> None:
    found = packs(lengths, room)
    assert [bag for members in found for bag in members] == list(range(len(lengths)))
    assert all(sum(lengths[bag] for bag in members) <= room for members in found)
    for earlier, later in pairwise(found):  # a pack ends only where the next bag doesn't fit
        assert sum(lengths[bag] for bag in earlier) + lengths[later[0]] > room


def test_targets_of_hyperslides() -> None:
    classes = torch.tensor([0, 0, 1])
    assert class_mixture(classes, torch.ones(3), 2).tolist() == [1.0, 0.5]
    assert class_mixture(classes, torch.tensor([100, 50, 300]), 2).tolist() == [0.5, 1.0]
    value = focal(torch.tensor([0.3, -0.7]), torch.tensor([1.0, 0.5]))
    assert value.item() == pytest.approx(0.0389092536, abs=1e-8)


@pytest.mark.parametrize(
    ("grades", "counts", "expected"),
    [
        ([0, 0], [1, 1], [1 / 3, 2 / 3, 0, 0, 0, 0]),
        ([0, 5], [100, 300], [0, 0, 0, 0, 0.5, 0.5]),
        ([2, 3], [1, 1], [0, 0, 1, 0, 0, 0]),
        ([4, 5], [1, 3], [0, 0, 0, 0, 0, 1]),
    ],
)
def test_grades_of_hyperslides(grades: list[int], counts: list[int], expected: list[float]) -> None:
    found = isup_mixture(torch.tensor(grades), torch.tensor(counts))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_asymmetric_loss_by_hand() -> None:
    logits, target = torch.tensor([0.2, 1.0, -0.5]), torch.tensor([0.0, 0.9, 0.1])
    share = math.exp(1.0) / (math.exp(0.2) + math.exp(1.0) + math.exp(-0.5))
    assert asymmetric(logits, target).item() == pytest.approx(-(1 - share) * math.log(share), abs=1e-6)


def test_other_slides_leave_a_slide_alone_but_not_the_hyperslides() -> None:
    model, bags = _pack(), _batch((40, 30, 20))
    shifted = bags.features.clone()
    shifted[40:70] += 3.0  # the second slide
    torch.manual_seed(1)
    plain = model(bags)
    torch.manual_seed(1)
    other = model(replace(bags, features=shifted))
    assert torch.equal(plain.logits[[0, 2]], other.logits[[0, 2]])
    assert not torch.equal(plain.logits[1], other.logits[1])
    first, second = (output.auxiliary["hyperslides"].logits for output in (plain, other))
    assert not torch.isclose(first, second).any()  # one pack holds all three


def test_hyperslides_share_their_targets_by_tiles() -> None:
    model = _pack(keep=0.5, largest=20)
    hyper = model(_batch((40, 10, 30))).auxiliary["hyperslides"]
    assert hyper.share is not None and hyper.share.tolist() == [20, 5, 15]  # what each slide left over
    assert hyper.bag.tolist() == [0, 1, 2] and hyper.weight == 0.2
    assert torch.equal(hyper.logits[1], hyper.logits[2])  # 20 fill a pack, 5 and 15 the next
    assert not torch.equal(hyper.logits[0], hyper.logits[1])


def test_slides_without_a_class_say_nothing_of_a_hyperslide() -> None:
    bags = _batch((40, 30))
    losses = []
    for classes in (torch.tensor([2, -1]), torch.tensor([2, 2])):
        torch.manual_seed(1)
        losses.append(_pack(residual_loss="focal")(labelled(bags, classes)).losses["hyperslides"].item())
    assert losses[0] == losses[1]
    nothing = _pack(residual_loss="focal")(labelled(bags, torch.tensor([-1, -1]))).losses["hyperslides"]
    assert nothing.item() == 0.0


def test_the_downsampler() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert sum(p.numel() for p in Downsampler(1024, 4).parameters()) == 2_230_529
        for merge in ("random", "random-per-token", "max"):
            net = Downsampler(6, 3, floor=2, merge=merge)
            for length, merged in ((7, 3), (9, 3), (10, 4), (6, 6), (1, 1)):
                rows = torch.randn(length, 6)
                assert len(net.train()(rows)) == merged
                weighted = rows + net.attend(rows).softmax(0) * rows
                expected = net.after(torch.nn.functional.gelu(net.before[0](weighted)))
                torch.testing.assert_close(net.eval()(rows), expected)


def test_the_downsampler_starts_as_the_published_one() -> None:
    torch.manual_seed(0)
    model = build_model(Recipe("abmil", {}, {"pack": {"downsample": 2}}), 256, 2)
    assert isinstance(model, Pack) and model.downsampler is not None
    for layer in (model.downsampler.before[0], model.downsampler.after):
        assert isinstance(layer, torch.nn.Linear) and not layer.bias.any()
        assert layer.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)  # Xavier, normal


def test_merging_keeps_columns_of_neighbours() -> None:
    torch.manual_seed(0)
    net, tokens = Downsampler(4, 2), torch.arange(24.0).view(6, 4)
    merged = net._merged(tokens)
    wide = torch.tensor([[0, 4, 1, 5, 2, 6, 3, 7]])
    assert merged.shape == (3, 4)
    columns = [wide[0].tolist().index(int(value)) for value in merged[0]]
    assert columns == sorted(columns)  # the same columns of every token, in order
    assert torch.equal(merged[1], wide[0, columns] + 8) and torch.equal(merged[2], wide[0, columns] + 16)
    assert torch.equal(Downsampler(4, 2, merge="max")._merged(tokens), tokens.view(3, 2, 4).amax(1))


def test_predicts_by_all_tiles_and_stays_only_with_its_downsampler() -> None:
    model, bags = _pack().eval(), _batch()
    assert model.deployed() is model.base
    assert torch.equal(model(bags).logits, model.base(bags).logits)

    model = _pack(downsample=4).eval()
    shown = model.deployed()
    assert recipe_of(shown) == recipe_of(model)
    assert torch.equal(shown(bags).logits, model(bags).logits)
    assert not torch.allclose(model(bags).logits, model.base(bags).logits)


def test_refusals() -> None:
    with pytest.raises(SettingsError, match="need 6 classes, there are 3"):
        build_model(Recipe("abmil", {}, {"pack": {"residual_loss": "isup"}}), 8, 3)
    with pytest.raises(SettingsError, match=r"can't merge tiles for `2dmamba`.*pack.downsample=1"):
        build_model(Recipe("2dmamba", {}, {"pack": {"downsample": 2}}), 8, 3)
    with pytest.raises(SettingsError, match=r"can't merge tiles for `vit`"):
        build_model(Recipe("vit", {"position": "sincos"}, {"pack": {"downsample": 2}}), 8, 3)
    build_model(Recipe("vit", {}, {"pack": {"downsample": 2}}), 8, 3)
    model = _pack(residual_loss="focal")
    with pytest.raises(SettingsError, match="need one class a slide"):
        model(replace(_batch(), labels=None))
    assert model.card.needs_classes and not _pack().card.needs_classes


def test_largest_class_of_a_mixture_is_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        classes, counts = torch.tensor(rng.integers(0, 4, 5)), torch.tensor(rng.integers(1, 90, 5))
        found = class_mixture(classes, counts, 4)
        summed = [sum(int(n) for c, n in zip(classes, counts, strict=True) if c == k) for k in range(4)]
        assert found.tolist() == pytest.approx([value / max(summed) for value in summed])
