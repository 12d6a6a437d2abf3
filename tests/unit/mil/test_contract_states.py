"""The contract kept by state-space models, INS and GNN-ViTCap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.model import MILModule
from pathpipe.testing.bags import random_bag, witness_bags
from pathpipe.testing.contract import DIM, SIZES, ModelContract

SMALL = {"hidden": 16, "state": 4}


class StateContract(ModelContract):
    """A state carries a needle on to other tiles, and attention may rest on those: it need not name the needle.

    That the decision rests on it shows when it is taken away.
    """

    def build(self, outputs: int = 2, seed: int = 0) -> MILModule:
        """Norms keep their scale: with weights near 0 what the tiles tell each other would drown in rounding."""
        model = super().build(outputs, seed)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                with torch.no_grad():
                    module.weight.add_(1.0)
        return model

    def test_overfits_needles_and_points_at_them(self) -> None:
        data = witness_bags(dim=DIM)
        batch, labels = Bags.pack(data.bags), torch.tensor(data.labels)
        model = self.fit(batch, labels, steps=25)
        margin = _margins(model, data.bags)
        assert margin[labels == 1].min() > margin[labels == 0].max()
        middle = (margin[labels == 1].min() + margin[labels == 0].max()) / 2
        needles = [(bag, row) for bag, row in zip(data.bags, data.witness, strict=True) if row >= 0]
        assert (_margins(model, [_without(bag, row) for bag, row in needles]) < middle).all()
        for other in (1, 50, 100):
            rest = [_without(bag, (row + other) % len(bag)) for bag, row in needles]
            assert (_margins(model, rest) > middle).all()


class TestMambaMIL(StateContract):
    model = "mambamil"
    options = {**SMALL, "hidden": 32, "layers": 1, "type": "mamba"}


class TestBiMambaMIL(StateContract):
    model = "mambamil"
    options = {**SMALL, "hidden": 32, "layers": 1, "type": "bimamba"}


class TestSRMambaMIL(StateContract):
    model = "mambamil"
    options = {**SMALL, "hidden": 32, "rate": 3}


class Test2DMamba(StateContract):
    model = "2dmamba"
    options = {**SMALL, "hidden": 32}

    def bags(self) -> list[Bag]:
        """Bags with a hole behind their first tile: the token of empty cells must be felt."""
        return [_with_hole(size) for size in SIZES]


class Test2DMambaOfAllCells(Test2DMamba):
    options = {**SMALL, "hidden": 32, "attend": "cells"}


class TestIns(ModelContract):
    model = "ins"
    options = {"hidden": 128, "queue": 256, "tiles": 32}


class TestGnnVitCap(ModelContract):
    model = "gnn-vitcap"
    options = {"hidden": 64}


def _with_hole(size: int) -> Bag:
    return _without(random_bag(size + 1, DIM, seed=1, name=f"bag-{size}"), 1)


def _without(bag: Bag, row: int) -> Bag:
    return bag.take(np.delete(np.arange(len(bag)), row))


def _margins(model: MILModule, bags: Sequence[Bag]) -> Tensor:
    with torch.no_grad():
        logits = model(Bags.pack(bags)).logits
    return logits[:, 1] - logits[:, 0]
