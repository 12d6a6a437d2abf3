"""One bag of any length: the batch that a graph outside Python is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pathpipe.mil.bag import Bags


class OneBag(Bags):
    """A packed batch of one bag that never says how long it is but by its tensors' shape.

    `Bags` keeps lengths as Python's numbers, which a traced graph would hold as constants.
    """

    @classmethod
    def of(cls, features: Tensor, xy0: Tensor | None = None, covariates: Tensor | None = None) -> OneBag:
        """From features (N, D) float32, corners (N, 2) int64 and covariates (1, Q) float32."""
        return cls(features, torch.tensor([0, 1]), None, xy0, covariates)  # nothing may ask for these offsets

    def __len__(self) -> int:
        return 1

    @property
    def lengths(self) -> Any:
        """The one length; while a graph is recorded it is no int."""
        return (self.features.shape[0],)

    def split(self, values: Tensor) -> list[Tensor]:
        """Values of the one bag: all of them."""
        return [values]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Inverse of `split`."""
        return parts[0]

    def single(self) -> list[Bags]:
        """Itself."""
        return [self]
