"""The contract kept by state-space models, INS and GNN-ViTCap."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.model import MILModule
from pathpipe.testing.bags import random_bag, witness_bags
from pathpipe.testing.contract import DIM, SIZES, ModelContract

SMALL = {"hidden": 16, "state": 4}


class StateContract(ModelContract):
    """A state carries a needle on to the tiles behind it, so attention may rest on one of those."""

    strides: tuple[int, ...] = (1,)

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
        model = self.fit(batch, labels, steps=40)
        with torch.no_grad():
            output = model(batch)
        margin = output.logits[:, 1] - output.logits[:, 0]
        assert margin[labels == 1].min() > margin[labels == 0].max()
        assert output.attention is not None
        for attention, witness in zip(batch.split(output.attention), data.witness, strict=True):
            near = {witness + stride * step for stride in self.strides for step in range(5)}
            assert witness < 0 or int(attention.argmax()) in near


class TestMambaMIL(StateContract):
    model = "mambamil"
    options = {**SMALL, "hidden": 32, "layers": 1, "type": "mamba"}


class TestBiMambaMIL(StateContract):
    model = "mambamil"
    options = {**SMALL, "hidden": 32, "layers": 1, "type": "bimamba"}
    strides = (1, -1)


class TestSRMambaMIL(StateContract):
    model = "mambamil"
    options = {**SMALL, "hidden": 32, "rate": 3}
    strides = (1, 3)


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
    bag = random_bag(size + 1, DIM, seed=1, name=f"bag-{size}")
    return bag.take(np.delete(np.arange(size + 1), 1))
