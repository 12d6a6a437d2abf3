"""What a step draws: bags, instances and mixtures; the same whenever and wherever it is drawn."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.settings import TrainSettings
from pathpipe.training.sampling import (
    Draws,
    ahead,
    classes_to_balance,
    mix,
    order_of_epoch,
    passes_of_epoch,
    steps_of_epoch,
    thin,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_seeds_depend_on_all_they_are_for() -> None:
    seeds = {
        Draws(seed).seed_of(purpose, number)
        for seed in range(3)
        for purpose in ("order", "epoch", "instances", "forward", "step")
        for number in range(20)
    }
    assert len(seeds) == 300 and max(seeds) < 2**63
    assert Draws(1).seed_of("order", 2) == Draws(1).seed_of("order", 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_passes_cover_an_epoch_however_they_are_dealt_out(
    bags: int, batch: int, accumulate: int, size: int, epoch: int
) -> None:
    chosen = TrainSettings(batch_size=batch, accumulate=accumulate)
    order = order_of_epoch(bags, None, _generator())
    shares = [passes_of_epoch(order, chosen, epoch, 0, (rank, size)) for rank in range(size)]
    seen = [index for share in shares for one in share if one.weight for index in one.members.tolist()]
    assert sorted(seen) == list(range(bags))
    steps = steps_of_epoch(bags, chosen)
    for share in shares:
        assert {one.step for one in share} == set(range(epoch * steps, (epoch + 1) * steps))
        assert [one.step for one in share if one.first] == [one.step for one in share if one.last]
    for step in range(epoch * steps, (epoch + 1) * steps):
        passes = [one for share in shares for one in share if one.step == step]
        assert sum(one.weight for one in passes) == pytest.approx(1)
        assert sum(len(one.members) for one in passes if one.weight) == passes[0].bags
    alone = passes_of_epoch(order, chosen, epoch)
    numbers = sorted(one.number for share in shares for one in share if one.weight)
    assert numbers == [one.number for one in alone]
    if steps > 1:
        assert [one.number for one in passes_of_epoch(order, chosen, epoch, 1)] == [
            one.number for one in alone if one.step > epoch * steps
        ]


def test_balanced_draws_give_each_class_the_same_chance() -> None:
    classes = torch.tensor([0] * 90 + [1] * 9 + [2] + [-1] * 5)
    drawn = order_of_epoch(len(classes), classes, _generator()).repeat(1)
    assert (classes[drawn] >= 0).all() and len(drawn) == 105
    counts = Counter(
        int(value) for epoch in range(60) for value in classes[order_of_epoch(105, classes, _generator(epoch))]
    )
    for number in range(3):
        assert counts[number] / (60 * 105) == pytest.approx(1 / 3, abs=0.03)


def test_only_classes_can_be_balanced_by_draws() -> None:
    assert classes_to_balance("classification", torch.tensor([1, 0])).tolist() == [1, 0]
    with pytest.raises(SettingsError, match="regression has no classes"):
        classes_to_balance("regression", torch.tensor([0.1]))


def test_a_thinned_bag_keeps_its_order_and_is_drawn_anew() -> None:
    bag = Bag(np.arange(200.0).reshape(100, 2), xy0=np.arange(200).reshape(100, 2))
    generator = _generator()
    some = TrainSettings(max_instances=10)
    first, second = (thin(bag, some, generator) for _ in range(2))
    rows = np.asarray(first.features)[:, 0]
    assert (np.diff(rows) > 0).all() and len(first) == 10
    assert first.xy0 is not None and (first.xy0[:, 0] == rows).all()
    assert rows.tolist() != np.asarray(second.features)[:, 0].tolist()
    assert thin(bag, TrainSettings(max_instances=100), generator) is bag
    assert thin(bag, TrainSettings(), generator) is bag


def test_instance_dropout_leaves_its_share_and_at_least_one() -> None:
    bag, generator = Bag(np.arange(3000.0)[:, None]), _generator()
    kept = np.mean([len(thin(bag, TrainSettings(instance_dropout=0.3), generator)) for _ in range(20)])
    assert kept == pytest.approx(2100, rel=0.02)
    both = thin(bag, TrainSettings(instance_dropout=0.5, max_instances=50), generator)
    assert len(both) == 50 and (np.diff(np.asarray(both.features)[:, 0]) > 0).all()
    single = Bag(np.ones((1, 1)))
    assert all(len(thin(single, TrainSettings(instance_dropout=0.99), generator)) == 1 for _ in range(50))


def test_mixed_bags_by_hand() -> None:
    bags = Bags.pack([Bag(torch.full((length, 1), float(10**index))) for index, length in enumerate((2, 5, 3))])
    mixed, mixture = mix(bags, 0.4, _generator(3))
    assert sorted(mixture.partner.tolist()) == [0, 1, 2] and mixture.partner.tolist() != [0, 1, 2]
    assert (mixture.share >= 0.5).all() and (mixture.share <= 1).all() and len(set(mixture.share.tolist())) == 3
    for index, part in enumerate(mixed.split(mixed.features)):
        share, other = mixture.share[index].item(), int(mixture.partner[index])
        expected = share * 10**index + (1 - share) * 10**other
        torch.testing.assert_close(part, torch.full((mixed.lengths[index], 1), expected))
    assert mixed.lengths == (2, 5, 3)


def test_a_larger_partner_is_sampled_without_replacement_and_a_smaller_one_repeated() -> None:
    small, large = Bag(torch.zeros(4, 1)), Bag(torch.arange(1.0, 10.0)[:, None])
    for seed in range(20):
        mixed, mixture = mix(Bags.pack([small, large]), 1.0, _generator(seed))
        if mixture.partner.tolist() != [1, 0]:
            continue
        theirs = mixed.split(mixed.features)[0][:, 0] / (1 - mixture.share[0])
        assert len(theirs.round(decimals=3).unique()) == 4 and theirs.round().min() >= 1
        return
    raise AssertionError("no draw swapped the two")


def test_covariates_are_mixed_alike() -> None:
    bags = Bags.pack([Bag(torch.ones(2, 1), covariates=np.array([value], np.float32)) for value in (0.0, 8.0, 100.0)])
    mixed, mixture = mix(bags, 1.0, _generator(1))
    own = torch.tensor([0.0, 8.0, 100.0])
    expected = mixture.share * own + (1 - mixture.share) * own[mixture.partner]
    assert mixed.covariates is not None
    torch.testing.assert_close(mixed.covariates[:, 0], expected)


def test_reads_ahead_in_order_and_not_further_than_needed() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        assert threading.current_thread() is not threading.main_thread()
        return item * item

    taken = ahead(range(10), make)
    assert next(taken) == (0, 0)
    time.sleep(0.05)
    assert made == [0, 1]
    assert [*taken] == [(item, item * item) for item in range(1, 10)]


def test_a_failure_while_reading_ahead_reaches_the_trainer() -> None:
    def make(item: int) -> int:
        if item == 3:
            raise ValueError("row 3")
        return item

    with pytest.raises(ValueError, match="row 3"):
        list(ahead(range(10), make))
