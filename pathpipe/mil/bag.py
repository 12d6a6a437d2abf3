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
        covariates: (Q,) float32 of the patient, e.g. age and sex.

    Raises:
        StoreError: No instances, or rows that don't match.
    """

    features: np.ndarray | Tensor
    xy0: np.ndarray | None = None
    bag_id: str = ""
    patient_id: str = ""
    slide: np.ndarray | None = None
    slide_ids: tuple[str, ...] = ()
    covariates: np.ndarray | None = None

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
class Labels:
    """Targets of a batch, for models that use them in training beyond the task's own loss.

    Attributes:
        kind: Of the target, as in `pathpipe.settings.target`; `several` when there is more than one.
        values: (B, ...) as the task encodes them.
    """

    kind: str
    values: Tensor

    @property
    def classes(self) -> Tensor | None:
        """(B,) int64 class of each bag, -1 unknown; None unless there is a logit a class: ordinal has one a step."""
        return self.values if self.kind == "classification" else None

    def take(self, rows: Tensor) -> Labels:
        """Labels of the given bags, in the given order."""
        return Labels(self.kind, self.values[rows.to(self.values.device)])


@dataclass(frozen=True, eq=False)
class Bags:
    """A batch of B bags, in one of two layouts that every model must answer alike.

    Make one with `Bags.pack` or `Bags.pad`. Values per instance have the layout of `features` and any last dimension.

    Attributes:
        features: float32; packed (T, D), all bags end to end; padded (B, N, D), valid rows first.
        offsets: (B + 1,) int64, on the host in both layouts: bag b has `offsets[b + 1] - offsets[b]` instances.
        mask: Padded only: (B, N) bool, True where an instance is.
        xy0: Level-0 px corners in the same layout, (T, 2) or (B, N, 2) int64; None unless every bag has them.
        covariates: (B, Q) float32; None unless every bag has them.
        labels: In training only.
        slide: (T,) int64, packed and on the host in both layouts: each instance's slide, counted within its bag; None
            where no bag has several.
    """

    features: Tensor
    offsets: Tensor
    mask: Tensor | None = None
    xy0: Tensor | None = None
    covariates: Tensor | None = None
    labels: Labels | None = None
    slide: Tensor | None = None

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
        features = _end_to_end([_tensor(bag.features) for bag in bags], torch.device(device))
        corners = [_tensor(bag.xy0) for bag in bags if bag.xy0 is not None]
        xy0 = torch.cat(corners).to(device) if len(corners) == len(bags) else None
        vectors = [_tensor(bag.covariates) for bag in bags if bag.covariates is not None]
        covariates = torch.stack(vectors).to(device).float() if len(vectors) == len(bags) else None
        return cls(features, _offsets([len(bag) for bag in bags]), None, xy0, covariates, slide=_slides(bags))

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
        return replace(self, features=self.features[self.mask], mask=None, xy0=xy0)

    def to_padded(self) -> Bags:
        """The same bags stacked and filled with zeros."""
        if self.mask is not None:
            return self
        lengths = self.offsets.diff().to(self.features.device)
        mask = torch.arange(max(self.lengths), device=lengths.device) < lengths[:, None]  # (B, N)
        xy0 = None if self.xy0 is None else pad_sequence(self.split(self.xy0), batch_first=True)
        features = pad_sequence(self.split(self.features), batch_first=True)
        return replace(self, features=features, mask=mask, xy0=xy0)

    def split(self, values: Tensor) -> list[Tensor]:
        """Values per instance, cut into one (n_b, ...) tensor a bag, without padding."""
        if self.mask is None:
            return list(values.split(self.lengths))
        return [values[bag, :length] for bag, length in enumerate(self.lengths)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Inverse of `split`: one (n_b, ...) tensor a bag into this batch's layout, zeros on padding."""
        if self.mask is None:
            return torch.cat(list(parts))
        return _widened(pad_sequence(list(parts), batch_first=True), self.mask.shape[1])

    def single(self) -> list[Bags]:
        """Each bag as a packed batch of one."""
        corners = [None] * len(self) if self.xy0 is None else self.split(self.xy0)
        slides = [None] * len(self) if self.slide is None else self.slide.split(self.lengths)
        return [
            Bags(
                features,
                _offsets([len(features)]),
                None,
                xy0,
                None if self.covariates is None else self.covariates[number : number + 1],
                None if self.labels is None else self.labels.take(torch.tensor([number])),
                slide,
            )
            for number, (features, xy0, slide) in enumerate(
                zip(self.split(self.features), corners, slides, strict=True)
            )
        ]

    def with_features(self, features: Tensor) -> Bags:
        """The same instances with other features of the same layout, e.g. their embeddings."""
        return replace(self, features=features)

    def take(self, rows: Sequence[Tensor]) -> Bags:
        """A packed batch of some instances of each bag.

        Args:
            rows: For each bag (k_b,) int64 rows of the bag, k_b >= 1, in the order wanted.
        """
        features = [part[chosen] for part, chosen in zip(self.split(self.features), rows, strict=True)]
        xy0 = None
        if self.xy0 is not None:
            xy0 = torch.cat([part[chosen] for part, chosen in zip(self.split(self.xy0), rows, strict=True)])
        slide = None
        if self.slide is not None:
            parts = zip(self.slide.split(self.lengths), rows, strict=True)
            slide = torch.cat([part[chosen.to(part.device)] for part, chosen in parts])
        offsets = _offsets([len(chosen) for chosen in rows])
        return replace(self, features=torch.cat(features), offsets=offsets, mask=None, xy0=xy0, slide=slide)


def _slides(bags: Sequence[Bag]) -> Tensor | None:
    """Each instance's slide within its bag, where a bag has several."""
    parts = [bag.slide for bag in bags]
    if not any(part is not None and len(bag.slide_ids) > 1 for part, bag in zip(parts, bags, strict=True)):
        return None
    whole = [np.zeros(len(bag), np.int64) if part is None else part for part, bag in zip(parts, bags, strict=True)]
    return torch.from_numpy(np.concatenate(whole).astype(np.int64))


def _widened(padded: Tensor, width: int) -> Tensor:
    """(B, N, ...) with zeros up to N = width."""
    if padded.shape[1] == width:
        return padded
    room = padded.new_zeros(padded.shape[0], width - padded.shape[1], *padded.shape[2:])
    return torch.cat([padded, room], dim=1)


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def _end_to_end(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """(T, D) float32 of the parts; on the host they are widened on their way, without a copy as stored."""
    if device.type != "cpu":
        # Moved as stored (often float16), widened on the device: half the traffic.
        return torch.cat(list(parts)).to(device).float()
    if len(parts) == 1:
        return parts[0].to(device).float()
    if any(part.requires_grad for part in parts):  # asked for by who explains a model
        return torch.cat([part.to(device).float() for part in parts])
    whole = torch.empty(sum(len(part) for part in parts), parts[0].shape[1])
    for place, part in zip(whole.split([len(part) for part in parts]), parts, strict=True):
        place.copy_(part)
    return whole


def _tensor(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values
    # torch warns of arrays it could write to behind their owner's back
    return torch.from_numpy(values if values.flags.writeable else values.copy())
