"""Attribution: gradients against finite differences, their integral against its sum, occlusion against plain passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.errors import StoreError
from pathpipe.explain.aims import Aim
from pathpipe.explain.attribution import gradient_norm, integrated_gradients, neighbours, occlusion
from pathpipe.explain.probing import Member, Probe
from pathpipe.explain.scores import explain_bag
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.models.mean_max import Mean
from pathpipe.settings import HeatmapSettings
from tests.unit.explain.made_up import aim, bag, member

MODELS = ["abmil", "mean", "transmil"]


def _margin(one: Member, aim: Aim, features: np.ndarray) -> float:
    model = one.model.double()
    bags = Bags.pack([replace(one.bag, features=features)])
    with torch.no_grad():
        found = float(aim.margin(model(replace(bags, features=torch.from_numpy(features))).logits)[0])
    model.float()
    return found


@pytest.mark.parametrize("model", ["abmil", "mean"])
def test_gradients_are_those_of_finite_differences(model: str) -> None:
    one = member(model, given=bag(5))
    features = np.asarray(one.bag.features, np.float64)
    step, expected = 1e-5, np.zeros_like(features)
    for row, column in np.ndindex(*features.shape):
        moved = [features.copy() for _ in range(2)]
        moved[0][row, column] += step
        moved[1][row, column] -= step
        expected[row, column] = (_margin(one, aim(), moved[0]) - _margin(one, aim(), moved[1])) / (2 * step)
    found = gradient_norm(one, [aim()])
    np.testing.assert_allclose(found[0], np.linalg.norm(expected * features, axis=1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model", ["abmil", "mean"])
def test_integrated_gradients_sum_to_what_they_explain(model: str) -> None:
    one = member(model, seed=2)
    aims = [aim("low"), aim("high")]
    found = integrated_gradients(one, aims, steps=400)
    features = np.asarray(one.bag.features, np.float64)
    for row, own in zip(found, aims, strict=True):
        whole = _margin(one, own, features) - _margin(one, own, np.full_like(features, 0.1))
        assert row.sum() == pytest.approx(whole, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("model", MODELS)
def test_occlusion_is_what_a_pass_without_the_tile_loses(model: str) -> None:
    options = {} if model != "transmil" else {"hidden": 16, "heads": 2, "landmarks": 4}
    one = member(model, given=bag(7), options=options)
    found = occlusion(one, [aim("low"), aim("high")], np.arange(7))
    whole = one.forward().logits
    for tile in range(7):
        rest = replace(one, bag=one.bag.take(np.delete(np.arange(7), tile))).forward().logits
        for row, own in enumerate((aim("low"), aim("high"))):
            assert found[row, tile] == pytest.approx(float(own.margin(whole) - own.margin(rest)), abs=1e-5)


def test_a_group_shares_its_loss_equally() -> None:
    one = member(given=bag(6))
    groups = np.array([0, 1, 0, 1, 2, 2])
    found = occlusion(one, [aim()], groups)[0]
    rest = replace(one, bag=one.bag.take(np.array([1, 3, 4, 5]))).forward().logits
    loss = float(aim().margin(one.forward().logits) - aim().margin(rest))
    assert found[[0, 2]].tolist() == pytest.approx([loss / 2] * 2, abs=1e-6)
    assert occlusion(one, [aim()], np.zeros(6, np.int64)).tolist() == [[0.0] * 6]


@given(tiles=st.integers(1, 200), most=st.integers(2, 40), slides=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_groups_are_balanced_and_keep_to_a_slide(tiles: int, most: int, slides: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy0, slide = rng.integers(0, 5000, (tiles, 2)), np.sort(rng.integers(0, slides, tiles)).astype(np.int32)
    groups = neighbours(xy0, slide, most)
    sizes = np.bincount(groups)
    assert sizes.min() > 0 and len(sizes) == min(tiles, max(most, len(np.unique(slide))))
    if tiles > most:
        assert all(len(np.unique(slide[groups == one])) == 1 for one in range(len(sizes)))
    else:
        assert groups.tolist() == list(range(tiles))


def test_groups_are_neighbours() -> None:
    xy0 = np.stack(np.divmod(np.arange(64), 8), axis=1) * 100
    groups = neighbours(xy0, None, 16)
    assert np.bincount(groups).tolist() == [4] * 16
    assert all(np.ptp(xy0[groups == one], axis=0).max() == 100 for one in range(16))


def test_scores_of_each_kind_find_the_tile_that_decides() -> None:
    one = member("mean", given=bag(30))
    torch.manual_seed(1)
    direction = next(one.model.parameters()).detach().sum(0)  # a way in which embeddings grow
    features = np.asarray(one.bag.features).copy() * 0.01
    features[17] = 40 * np.asarray(direction) / float(direction.norm())
    strong = replace(one, bag=replace(one.bag, features=features))
    predicted = explain_bag([strong], HeatmapSettings()).scores[0].aim.name
    for kind in ("instance", "gradient", "integrated", "occlusion"):
        (scores,) = explain_bag(
            [strong], HeatmapSettings.model_validate({"score": kind, "target_class": predicted})
        ).scores
        assert scores.method == kind and int(scores.score.argmax()) == 17, kind


def test_large_bags_are_occluded_in_groups_and_it_is_said() -> None:
    found = explain_bag([member(given=bag(40))], HeatmapSettings(score="occlusion", occlusion_groups=8))
    assert found.scores[0].grouped == 5
    assert len(np.unique(found.scores[0].score)) == 8


def test_a_model_that_cuts_the_gradient_is_refused() -> None:
    class Cut(Mean):
        def forward(self, bags: Bags):  # type: ignore[no-untyped-def]
            return super().forward(bags.with_features(bags.features.detach()))

    one = member("mean")
    cut = Cut(6, 3, one.model.options)  # type: ignore[arg-type]
    cut.name = "cut"
    with pytest.raises(StoreError, match="model `cut` lets no gradient through"):
        gradient_norm(replace(one, model=cut), [aim()])


@pytest.mark.parametrize("model", MODELS)
def test_probing_equals_plain_passes_whatever_the_batches(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {} if model != "transmil" else {"hidden": 16, "heads": 2, "landmarks": 4}
    one = member(model, options=options)
    rng = np.random.default_rng(0)
    subsets = [np.sort(rng.choice(23, size, replace=False)) for size in (1, 5, 23, 2, 9, 14)]
    expected = [replace(one, bag=one.bag.take(rows)).forward().logits[0].numpy() for rows in subsets]
    for floats in (1 << 20, 100, 1):
        monkeypatch.setattr("pathpipe.explain.probing._FLOATS", floats)
        np.testing.assert_allclose(Probe(one).logits(subsets), expected, atol=1e-5)
    some = np.arange(3, 20, 2)
    inside = Probe(one, some).logits([np.array([0, 4])])[0]
    np.testing.assert_allclose(inside, replace(one, bag=one.bag.take(some[[0, 4]])).forward().logits[0], atol=1e-5)
    with pytest.raises(StoreError, match="without tiles"):
        Probe(one).logits([np.array([], np.int64)])


def test_probing_keeps_covariates_and_slides() -> None:
    given = Bag(
        bag(12, slides=2).features,
        bag(12).xy0,
        "P",
        "P",
        bag(12, slides=2).slide,
        ("S0", "S1"),
        np.array([2.0, -1.0], np.float32),
    )
    seen: list[Bags] = []

    class Watched(Mean):
        def forward(self, bags: Bags):  # type: ignore[no-untyped-def]
            seen.append(bags)
            return super().forward(bags)

    one = replace(member("mean"), bag=given)
    watched = Watched(6, 3, one.model.options)  # type: ignore[arg-type]
    Probe(replace(one, model=watched)).logits([np.array([0, 7, 11]), np.array([8])])
    (bags,) = seen
    assert bags.covariates is not None and bags.covariates.tolist() == [[2, -1], [2, -1]]
    assert bags.slide is not None and bags.slide.tolist() == [0, 1, 1, 1]
    assert bags.lengths == (3, 1)
