"""Faithfulness: curves against plain passes, and scores that are known to be right, wrong or random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from pathpipe.explain import faithfulness
from pathpipe.explain.faithfulness import artefact_shares, deletion_insertion
from pathpipe.explain.probing import Member
from pathpipe.mil.bag import Bags
from pathpipe.mil.model import MILOutput
from pathpipe.slides.slide import Mpp
from pathpipe.tasks.regression import RegressionTask
from pathpipe.tissue.mask import TissueMask
from tests.unit.explain.made_up import TASK, aim, bag, member


class _Sum(torch.nn.Module):
    """Its class `high` speaks with the mean of the first feature."""

    name = "sum"

    def forward(self, bags: Bags) -> MILOutput:
        means = torch.stack([part[:, 0].mean() for part in bags.split(bags.features)])
        return MILOutput(torch.stack([torch.zeros_like(means), torch.zeros_like(means), 4 * means], dim=1))


def _made(tiles: int = 40) -> tuple[Member, np.ndarray]:
    """A member whose truth is the first feature."""
    one = member(given=bag(tiles))
    return replace(one, model=_Sum()), np.asarray(one.bag.features)[:, 0].astype(np.float64)  # type: ignore[arg-type]


def test_curves_are_those_of_plain_passes() -> None:
    one, score = _made(21)
    found = deletion_insertion([one], [aim()], score, 2)
    assert found is not None and (found.tiles, found.of_tiles, found.measure) == (21, 21, "probability")
    order = np.argsort(-score)
    assert np.array(found.kept) * 21 == pytest.approx(np.arange(1, 22))

    def value(rows: np.ndarray) -> float:
        return float(aim().value(replace(one, bag=one.bag.take(rows)).forward().logits)[0])

    insertion = [value(order[:count]) for count in range(1, 22)]
    deletion = [value(order[21 - count :]) for count in range(21, 0, -1)]
    assert found.insertion.values == pytest.approx(insertion, abs=1e-6)
    assert found.deletion.values == pytest.approx(deletion, abs=1e-6)
    for curve, values in ((found.insertion, insertion), (found.deletion, deletion)):
        assert curve.area == pytest.approx((np.sum(values) - (values[0] + values[-1]) / 2) / 20, abs=1e-6)


def test_right_scores_beat_random_orders_and_reversed_ones_lose() -> None:
    one, score = _made()
    right = deletion_insertion([one], [aim()], score, 10)
    wrong = deletion_insertion([one], [aim()], -score, 10)
    assert right is not None and wrong is not None
    for name in ("deletion", "insertion"):
        good, bad = getattr(right, name), getattr(wrong, name)
        assert good.gain > 0.05 and good.beaten == 1
        assert bad.gain < -0.05 and bad.beaten == 0
        assert good.low < good.random < good.high
    assert right.deletion.area < right.deletion.low and right.insertion.area > right.insertion.high


def test_random_scores_gain_nothing_on_average() -> None:
    one, _ = _made()
    rng = np.random.default_rng(5)
    gains = [
        found.insertion.gain
        for seed in range(30)
        if (found := deletion_insertion([one], [aim()], rng.random(40), 5, seed)) is not None
    ]
    assert stats.ttest_1samp(gains, 0).pvalue > 0.01


def test_the_interval_is_a_t_interval_of_the_random_areas() -> None:
    one, score = _made()
    found = deletion_insertion([one], [aim()], score, 6)
    assert found is not None
    curve = found.insertion
    reach = (curve.high - curve.low) / 2
    assert (curve.high + curve.low) / 2 == pytest.approx(curve.random)
    assert found.insertion.low == found.deletion.low  # the same random orders
    middle = np.asarray(found.random)
    kept = np.asarray(found.kept)
    area = ((middle[1:] + middle[:-1]) / 2 * np.diff(kept)).sum() / (kept[-1] - kept[0])
    assert curve.random == pytest.approx(area) and reach > 0


def test_numbers_are_followed_by_their_distance_from_the_whole() -> None:
    task = RegressionTask("age:regression", "age", mean=50.0, std=10.0)
    one = member("mean", 3, task, bag(15))
    (age,) = [aim("age", task)]
    found = deletion_insertion([one], [age], np.arange(15.0), 3)
    assert found is not None and found.measure == "closeness"
    assert found.insertion.values[-1] == 0 == found.deletion.values[0]
    assert max(found.insertion.values) == 0
    first = float(age.value(replace(one, bag=one.bag.take(np.array([14]))).forward().logits)[0])
    whole = float(age.value(one.forward().logits)[0])
    assert found.insertion.values[0] == pytest.approx(-abs(first - whole), abs=1e-5)


def test_large_bags_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faithfulness, "MOST_TILES", 25)
    one, score = _made(60)
    found = deletion_insertion([one], [aim()], score, 5)
    again = deletion_insertion([one], [aim()], score, 5)
    assert found is not None and found == again
    assert (found.tiles, found.of_tiles) == (25, 60)
    assert found.insertion.beaten == 1 and found.deletion.beaten == 1


def test_one_tile_has_no_curve() -> None:
    one, score = _made(1)
    assert deletion_insertion([one], [aim()], score, 5) is None


def test_ensembles_are_averaged() -> None:
    members = [member("mean", seed) for seed in range(2)]
    score = np.arange(23.0)
    both = deletion_insertion(members, [aim(), aim()], score, 3)
    each = [deletion_insertion([one], [aim()], score, 3) for one in members]
    assert both is not None and each[0] is not None and each[1] is not None
    mean = (np.array(each[0].insertion.values) + np.array(each[1].insertion.values)) / 2
    assert both.insertion.values == pytest.approx(mean.tolist())
    assert TASK.classes[2] == "high"


def test_artefacts_get_their_share() -> None:
    pen, blur = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    pen[:, :4] = True  # the left half
    blur[:4] = True  # the upper half
    mask = TissueMask(
        np.ones((8, 8), bool),
        (100.0, 100.0),
        Mpp(0.5, 0.5, "test"),
        artefacts={"pen": pen, "blur": blur, "edge": ~pen & pen},
    )
    xy0 = np.array([[0, 0], [400, 0], [0, 400], [400, 400]])
    found = artefact_shares(mask, xy0, (400.0, 400.0), np.array([0.6, 0.1, 0.2, 0.1]))
    assert found["pen"] == pytest.approx({"score": 0.8, "area": 0.5})
    assert found["blur"] == pytest.approx({"score": 0.7, "area": 0.5})
    assert found["any"] == pytest.approx({"score": 0.9, "area": 0.75})
    assert "edge" not in found
    half = artefact_shares(mask, np.array([[200, 400]]), (400.0, 400.0), np.ones(1))
    assert half["pen"]["score"] == pytest.approx(0.5) and half["blur"]["score"] == 0
    assert artefact_shares(replace(mask, artefacts={}), xy0, (400.0, 400.0), np.ones(4) / 4) == {}
