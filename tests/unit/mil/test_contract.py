"""Every registered model keeps the contract."""

from __future__ import annotations

import pytest

from pathpipe.mil.registry import MODELS
from pathpipe.testing.contract import ModelContract


class TestRegisteredModels(ModelContract):
    @pytest.fixture(autouse=True, params=MODELS.names())
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.model = request.param
