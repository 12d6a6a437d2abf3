"""Bags: the tiles of one patient, and batches of them, packed end to end or padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pathpipe.errors import StoreError


@dataclass(frozen=True, eq=False)
class Bag:
    """The instances of one patient, or of one slide.

    Attributes:
        features: (N, D) array or tensor of any float type, N >= 1. Kept as stored; float32 only in a batch.
        xy0: (N, 2) int64 upper left corners, level-0 px.
        bag_id: Name shown to people.
        patient_id: The unit of splitting.
        slide: (N,) int32 index into `slide_ids`, for bags of several slides.
        slide_ids: The slides, in the order of their rows.

    Raises:
        StoreError: No instances, or rows that don't match.
    """

    features: np.ndarray | Tensor
    xy0: np.ndarray | None = None
    bag_id: str = ""
    patient_id: str = ""
    slide: np.ndarray | None = None
    slide_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.features.ndim != 2:
            raise StoreError(f"features have shape {tuple(self.features.shape)}, not (N, D)", where=self.bag_id)
        if len(self.features) == 0:
            raise StoreError("the bag has no instances", where=self.bag_id, hint="leave empty slides out")
        for name, rows in (("xy0", self.xy0), ("slide", self.slide)):
            if rows is not None and len(rows) != len(self.features):
                raise StoreError(f"{len(self.features)} features but {len(rows)} rows of {name}", where=self.bag_id)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Width D of a feature."""
        return int(self.features.shape[1])

    def take(self, rows: np.ndarray) -> Bag:
        """The bag of the given instances, in the given order."""
        return replace(
            self,
            features=self.features[rows],
            xy0=None if self.xy0 is None else self.xy0[rows],
            slide=None if self.slide is None else self.slide[rows],
        )


@dataclass(frozen=True, eq=False)
class Bags:
    """A batch of B bags, in one of two layouts that every model must answer alike.

    Make one with `Bags.pack` or `Bags.pad`. Values per instance have the layout of `features` and any last dimension.

    Attributes:
        features: float32; packed (T, D), all bags end to end; padded (B, N, D), valid rows first.
        offsets: (B + 1,) int64, on the host in both layouts: bag b has `offsets[b + 1] - offsets[b]` instances.
        mask: Padded only: (B, N) bool, True where an instance is.
        xy0: Level-0 px corners in the same layout, (T, 2) or (B, N, 2) int64; None unless every bag has them.
    """

    features: Tensor
    offsets: Tensor
    mask: Tensor | None = None
    xy0: Tensor | None = None

    @classmethod
    def pack(cls, bags: Sequence[Bag], device: torch.device | str = "cpu") -> Bags:
        """Lay bags end to end.

        Raises:
            StoreError: No bags, or bags of different widths.
        """
        if not bags:
            raise StoreError("a batch needs at least one bag")
        narrow = next((bag for bag in bags if bag.dim != bags[0].dim), None)
        if narrow is not None:
            raise StoreError(
                f"bags {bags[0].bag_id} and {narrow.bag_id} have {bags[0].dim} and {narrow.dim} features a tile",
                hint="use one encoder for all slides",
            )
        # Moved as stored (often float16), widened on the device: half the traffic.
        features = torch.cat([_tensor(bag.features) for bag in bags]).to(device).float()
        corners = [_tensor(bag.xy0) for bag in bags if bag.xy0 is not None]
        xy0 = torch.cat(corners).to(device) if len(corners) == len(bags) else None
        return cls(features, _offsets([len(bag) for bag in bags]), None, xy0)

    @classmethod
    def pad(cls, bags: Sequence[Bag], device: torch.device | str = "cpu") -> Bags:
        """Stack bags, the shorter ones filled with zeros at their end."""
        return cls.pack(bags, device).to_padded()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Number of instances of each bag."""
        return tuple(self.offsets.diff().tolist())

    @property
    def is_packed(self) -> bool:
        """Whether the layout is packed."""
        return self.mask is None

    def to_packed(self) -> Bags:
        """The same bags end to end."""
        if self.mask is None:
            return self
        xy0 = None if self.xy0 is None else self.xy0[self.mask]
        return Bags(self.features[self.mask], self.offsets, None, xy0)

    def to_padded(self) -> Bags:
        """The same bags stacked and filled with zeros."""
        if self.mask is not None:
            return self
        lengths = self.offsets.diff().to(self.features.device)
        mask = torch.arange(max(self.lengths), device=lengths.device) < lengths[:, None]  # (B, N)
        xy0 = None if self.xy0 is None else pad_sequence(self.split(self.xy0), batch_first=True)
        return Bags(pad_sequence(self.split(self.features), batch_first=True), self.offsets, mask, xy0)

    def split(self, values: Tensor) -> list[Tensor]:
        """Values per instance, cut into one (n_b, ...) tensor a bag, without padding."""
        if self.mask is None:
            return list(values.split(self.lengths))
        return [values[bag, :length] for bag, length in enumerate(self.lengths)]


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def _tensor(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values
    # torch warns of arrays it could write to behind their owner's back
    return torch.from_numpy(values if values.flags.writeable else values.copy())
