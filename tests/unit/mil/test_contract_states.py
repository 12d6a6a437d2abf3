"""The contract kept by state-space models, INS and GNN-ViTCap."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.model import MILModule
from pathpipe.testing.bags import random_bag, witness_bags
from pathpipe.testing.contract import DIM, SIZES, ModelContract


class StateContract(ModelContract):
    """Their norms make all tiles as loud as a needle: it is sought in more and smaller bags, and in new ones.

    An attention that starts out low on the needle learns the bags by heart instead; the widths here don't.
    """

    steps = 40

    def build(self, outputs: int = 2, seed: int = 0) -> MILModule:
        """Norms keep their scale: with weights near 0 what the tiles tell each other would drown in rounding."""
        model = super().build(outputs, seed)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                with torch.no_grad():
                    module.weight.add_(1.0)
        return model

    def test_overfits_needles_and_points_at_them(self) -> None:
        data = witness_bags(count=64, instances=12, dim=DIM)
        known, labels = Bags.pack(data.bags[:48]), torch.tensor(data.labels)
        model, new = self.fit(known, labels[:48], steps=self.steps), Bags.pack(data.bags[48:])
        with torch.no_grad():
            output = model(new)
        margin = output.logits[:, 1] - output.logits[:, 0]
        assert margin[labels[48:] == 1].min() > margin[labels[48:] == 0].max()
        assert output.attention is not None
        for attention, witness in zip(new.split(output.attention), data.witness[48:], strict=True):
            assert witness < 0 or int(attention.argmax()) == witness


class TestMambaMIL(StateContract):
    model = "mambamil"
    options = {"hidden": 48, "state": 4, "layers": 1, "type": "mamba"}


class TestBiMambaMIL(StateContract):
    model = "mambamil"
    options = {"hidden": 48, "state": 4, "layers": 1, "type": "bimamba"}


class TestSRMambaMIL(StateContract):
    model = "mambamil"
    options = {"hidden": 32, "state": 4, "rate": 3}


class Test2DMamba(StateContract):
    model = "2dmamba"
    options = {"state": 4}
    steps = 20

    def bags(self) -> list[Bag]:
        """Bags with a hole behind their first tile: the token of empty cells must be felt."""
        return [_with_hole(size) for size in SIZES]


class Test2DMambaOfAllCells(Test2DMamba):
    options = {"hidden": 16, "state": 4, "attend": "cells"}
    test_overfits_needles_and_points_at_them = None  # type: ignore[assignment]  # those grids are full: as above


class TestIns(ModelContract):
    model = "ins"
    options = {"hidden": 128, "queue": 256, "tiles": 32}


class TestGnnVitCap(ModelContract):
    model = "gnn-vitcap"
    options = {"hidden": 64}


def _with_hole(size: int) -> Bag:
    bag = random_bag(size + 1, DIM, seed=1, name=f"bag-{size}")
    return bag.take(np.delete(np.arange(size + 1), 1))
