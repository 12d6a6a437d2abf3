"""Pooling slides: patients weigh the same, slides know nothing of each other, and nothing changes for single slides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pathpipe.mil.bag import Bag, Bags, Labels
from pathpipe.mil.model import TrainContext
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.mil.wrappers.pool_slides import PoolSlides
from pathpipe.testing.bags import random_bag

POOL: Mapping[str, Mapping[str, object]] = {"pool-slides": {}}


def _patient(lengths: list[int], name: str = "P") -> Bag:
    """A patient with slides of these lengths."""
    bag = random_bag(sum(lengths), 5, seed=len(name) + sum(lengths), name=name)
    slide = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return replace(bag, slide=slide, slide_ids=tuple(f"{name}{at}" for at in range(len(lengths))))


def _slides(bag: Bag) -> list[Bag]:
    assert bag.slide is not None
    return [
        replace(bag.take(np.flatnonzero(bag.slide == at)), slide=None, slide_ids=()) for at in range(len(bag.slide_ids))
    ]


def _model(model: str = "gated-abmil", **options: object) -> PoolSlides:
    torch.manual_seed(0)
    built = build_model(Recipe(model, {"hidden": 8, "dropout": 0.0, **options}, POOL), 5, 3)
    assert isinstance(built, PoolSlides)
    return built


PATIENTS = [_patient([4, 7, 2], "A"), _patient([3], "BB"), _patient([6, 5], "CCC")]


@pytest.mark.parametrize("padded", [False, True])
def test_logits_are_the_mean_over_slides(padded: bool) -> None:
    model = _model().eval()
    batch = Bags.pad(PATIENTS) if padded else Bags.pack(PATIENTS)
    output = model(batch)
    for row, patient in enumerate(PATIENTS):
        parts = [model.base(Bags.pack([slide])) for slide in _slides(patient)]
        torch.testing.assert_close(output.logits[row], torch.stack([part.logits[0] for part in parts]).mean(0))
        maps = torch.cat([part.attention for part in parts]) / len(parts)
        torch.testing.assert_close(output.attention_per_bag(batch)[row], maps)
        raw = torch.cat([part.instance_logits for part in parts])
        torch.testing.assert_close(batch.split(output.instance_logits)[row], raw)
    assert output.weight == 1 and not output.auxiliary


def test_rows_of_slides_may_be_mixed() -> None:
    model, bag = _model().eval(), PATIENTS[0]
    order = np.random.default_rng(0).permutation(len(bag))
    here, there = model(Bags.pack([bag])), model(Bags.pack([bag.take(order)]))
    torch.testing.assert_close(here.logits, there.logits)
    assert here.attention is not None and there.attention is not None
    torch.testing.assert_close(here.attention[torch.from_numpy(order)], there.attention)


def test_patients_weigh_the_same_in_training() -> None:
    model = _model().train()
    targets = torch.tensor([0, 2, 1])
    batch = replace(Bags.pack(PATIENTS), labels=Labels("classification", targets))
    output = model(batch)

    def criterion(logits: Tensor, bag: Tensor | None, share: Tensor | None) -> Tensor:
        losses = cross_entropy(logits, targets if bag is None else targets[bag], reduction="none")
        return losses.mean() if share is None else (share * losses).sum() / share.sum()

    expected = []
    for patient, target in zip(PATIENTS, targets, strict=True):
        logits = torch.cat([model.base(Bags.pack([slide])).logits for slide in _slides(patient)])
        expected.append(cross_entropy(logits, target.expand(len(logits))))
    torch.testing.assert_close(output.total_loss(criterion), torch.stack(expected).mean())


def test_branches_of_the_model_follow_their_slides() -> None:
    torch.manual_seed(0)
    model = build_model(Recipe("acmil", {"hidden": 8}, POOL), 5, 3).train()
    batch = replace(Bags.pack(PATIENTS), labels=Labels("classification", torch.tensor([0, 2, 1])))
    output = model(batch)
    branches = [name for name in output.auxiliary if name != "slides"]
    assert branches
    for name in branches:
        further = output.auxiliary[name]
        assert further.share is not None
        total = torch.zeros(3).index_add(0, further.bag, further.share)
        torch.testing.assert_close(total, total[:1].expand(3))


def test_classes_of_slides_are_their_patients() -> None:
    torch.manual_seed(0)
    model = build_model(Recipe("clam-sb", {"instances": 2}, POOL), 5, 3).train()
    batch = replace(Bags.pack(PATIENTS), labels=Labels("classification", torch.tensor([0, 2, 1])))
    assert all(loss.isfinite() for loss in model(batch).losses.values())
    model.pre_step(batch, TrainContext(0, 1, 0, 1, torch.Generator()))


def test_patients_with_one_slide_are_left_as_they_are() -> None:
    model, bags = _model().eval(), [random_bag(4, 5, seed=1), _patient([6])]
    batch = Bags.pack(bags)
    assert batch.slide is None
    assert torch.equal(model(batch).logits, model.base(batch).logits)


def test_slides_are_kept_through_a_batch() -> None:
    batch = Bags.pack(PATIENTS)
    assert batch.slide is not None and batch.slide.tolist()[:5] == [0, 0, 0, 0, 1]
    assert [one.slide.tolist() if one.slide is not None else None for one in batch.single()][1] == [0, 0, 0]
    taken = batch.take([torch.tensor([12, 0]), torch.tensor([1]), torch.tensor([5, 6, 7])])
    assert taken.slide is not None and taken.slide.tolist() == [2, 0, 0, 0, 1, 1]
    assert batch.to_padded().to_packed().slide is batch.slide


def test_it_stays_when_the_model_is_deployed() -> None:
    torch.manual_seed(0)
    model = build_model(Recipe("abmil", {"hidden": 8}, {"aem": {}, **POOL}), 5, 3).eval()
    deployed = model.deployed()
    assert isinstance(model, PoolSlides) and isinstance(deployed, PoolSlides)
    assert [deployed.name, deployed.base.name, model.base.name] == ["pool-slides", "abmil", "aem"]
    assert torch.equal(deployed(Bags.pack(PATIENTS)).logits, model(Bags.pack(PATIENTS)).logits)
    assert {value.data_ptr() for value in deployed.state_dict().values()} == {
        value.data_ptr() for value in model.state_dict().values()
    }
