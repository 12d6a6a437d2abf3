"""The contract, kept by models whose tiles exchange information before they are pooled."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from pathpipe.mil.bag import Bags
from pathpipe.mil.model import MILModule, MILOutput
from pathpipe.testing.bags import random_bag, witness_bags
from pathpipe.testing.contract import DIM, ModelContract, labelled

BATCH, INSTANCES, STEPS = 16, 30, 120


class MixingContract(ModelContract):
    """Such a model tells 16 bags apart by heart, whatever they hold: it must find the needle in bags never seen."""

    def test_overfits_needles_and_points_at_them(self) -> None:
        """Trained on fresh bags at every step: on new ones AUROC 1, the witness first, and the answer hangs on it."""
        data = witness_bags(count=BATCH * (STEPS + 1), instances=INSTANCES, dim=DIM)
        labels = torch.tensor(data.labels[:BATCH])
        xy0 = random_bag(INSTANCES, DIM).xy0
        bags = [replace(bag, xy0=xy0) for bag in data.bags]
        batches = [bags[BATCH * step : BATCH * (step + 1)] for step in range(STEPS + 1)]
        model = self._trained([labelled(Bags.pack(bags), labels) for bags in batches[:-1]], labels)
        new = Bags.pack(batches[-1])
        with torch.no_grad():
            output = model(new)
        margin = output.logits[:, 1] - output.logits[:, 0]
        assert margin[labels == 1].min() > margin[labels == 0].max()
        witness = data.witness[-BATCH:]
        for scores, row in zip(new.split(_scores(output)), witness, strict=True):
            assert row < 0 or int(scores.argmax()) == row
        row = witness[1]
        replaced = []  # bag n has its tile n replaced
        for tile in range(INSTANCES):
            features = np.array(batches[-1][1].features)
            features[tile] = features[row - 1]
            replaced.append(replace(batches[-1][1], features=features))
        with torch.no_grad():
            logits = model(Bags.pack(replaced)).logits
        assert int((logits[:, 1] - logits[:, 0]).argmin()) == row

    def _trained(self, batches: list[Bags], labels: torch.Tensor) -> MILModule:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.fresh().train()
            optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
            for batch in batches:
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(batch).logits, labels)
                loss.backward()
                optimiser.step()
                if loss.item() < 0.01:  # of bags never seen
                    break
        return model.eval()


def _scores(output: MILOutput) -> torch.Tensor:
    if output.scores is not None:
        return output.scores
    if output.attention is not None:
        return output.attention.mean(-1)
    assert output.instance_logits is not None
    return output.instance_logits[:, 1] - output.instance_logits[:, 0]


class TestTransmil(MixingContract):
    model = "transmil"
    options = MappingProxyType({"hidden": 32, "heads": 4, "landmarks": 16})


class TestRrt(MixingContract):
    model = "rrt"
    options = MappingProxyType({"hidden": 32, "heads": 4, "regions": 4, "kernel": 5})


class TestWikg(MixingContract):
    model = "wikg"
    options = MappingProxyType({"hidden": 32})

    def test_bfloat16_stays_finite(self) -> None:
        _assert_finite_in_bfloat16(self.build(), instances=5_000)


class TestS4Mil(MixingContract):
    model = "s4mil"
    options = MappingProxyType({"hidden": 64})


class TestVit(MixingContract):
    model = "vit"
    options = MappingProxyType({"hidden": 16, "heads": 1})

    # Full attention between 50,000 tiles takes seconds; the class below has such a bag, without the first block.
    @pytest.mark.parametrize("instances", [1, 2, 13, 5_000])
    def test_any_number_of_instances(self, instances: int) -> None:
        super().test_any_number_of_instances(instances)

    def test_bfloat16_stays_finite(self) -> None:
        _assert_finite_in_bfloat16(self.build(), instances=5_000)


class TestVitWithPositions(MixingContract):
    model = "vit"
    options = MappingProxyType({"hidden": 16, "heads": 1, "layers": 1, "position": "sincos"})


def _assert_finite_in_bfloat16(model: MILModule, instances: int) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        output = model(Bags.pack([random_bag(instances, DIM)]))
    assert torch.isfinite(output.logits).all()
    sums = output.attention.float().sum(0)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-2)
