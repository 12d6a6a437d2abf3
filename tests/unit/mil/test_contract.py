"""Every registered model keeps the contract."""

from __future__ import annotations

import pytest

from pathpipe.mil.registry import MODELS
from pathpipe.testing.contract import ModelContract

# Models with a class of their own, below or in test_contract_mixing.py: smaller than their defaults, for speed.
OWN = (
    "clam-sb",
    "clam-mb",
    "dsmil",
    "dtfd",
    "acmil",
    "ilra",
    "transmil",
    "rrt",
    "wikg",
    "s4mil",
    "vit",
    "mambamil",
    "2dmamba",
    "ins",
    "gnn-vitcap",
)


class TestRegisteredModels(ModelContract):
    @pytest.fixture(autouse=True, params=[name for name in MODELS.names() if name not in OWN])
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.model = request.param


class TestClamSb(ModelContract):
    model = "clam-sb"
    options = {"hidden": 64, "attention_dim": 32}


class TestClamMb(ModelContract):
    model = "clam-mb"
    options = {"hidden": 64, "attention_dim": 32, "subtyping": True, "instance_loss": "ce"}


class TestDsmil(ModelContract):
    model = "dsmil"
    options = {"hidden": 64}


class TestDsmilWithValuesAndBothStreams(ModelContract):
    model = "dsmil"
    options = {"hidden": 64, "value_layer": True, "average": True}


class TestDtfd(ModelContract):
    model = "dtfd"
    options = {"hidden": 64, "attention_dim": 32}


class TestDtfdOfTiles(ModelContract):
    model = "dtfd"
    options = {"hidden": 64, "attention_dim": 32, "distil": "maxmins"}


class TestAcmil(ModelContract):
    model = "acmil"
    options = {"hidden": 64}


class TestAcmilMultiHead(ModelContract):
    model = "acmil"
    options = {"hidden": 64, "attention": "multi-head"}


class TestIlra(ModelContract):
    model = "ilra"
    options = {"hidden": 64}


class TestIlraWithLatents(ModelContract):
    model = "ilra"
    options = {"hidden": 32, "latents": 2, "norm": True}


class TestAem(ModelContract):
    model = "acmil"
    options = {"hidden": 64}
    wrappers = {"aem": {"weight": 0.1, "schedule": "annealed"}}
