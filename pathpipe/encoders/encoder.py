"""The nouns: an encoder's record (facts, no torch), its identity (what made these features), and the encoder itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pathpipe.fingerprint import fingerprint

Rgb = tuple[float, float, float]


class WeightsSource(BaseModel):
    """Where weights come from: a package, a hub repository, or a person who fetches them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str | None = Field(None, description="Installed distribution's import name")
    hub: str | None = Field(None, description="Hugging Face repository")
    file: str | None = Field(None, description="File in the package or repository")
    revision: str | None = Field(None, description="Pinned revision of the repository")
    manual: str | None = Field(None, description="Where a person gets the file")

    @model_validator(mode="after")
    def _one_place(self) -> WeightsSource:
        if sum(place is not None for place in (self.package, self.hub, self.manual)) != 1:
            raise ValueError("weights must name exactly one of package, hub, manual")
        if self.manual is None and self.file is None:
            raise ValueError("weights must name a file")
        return self


class EncoderRecord(BaseModel):
    """The facts of one encoder. `catalogue.yaml` holds one an entry; a plug-in may offer one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="What people type")
    architecture: str = Field(description="timm's name of the architecture")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Arguments of its constructor")
    layout: Literal["timm", "efficientnet-pytorch"] = Field("timm", description="Key layout of the checkpoint")
    dim: int = Field(gt=0, description="Width of a feature")
    parameters: int = Field(gt=0, description="Number of parameters")
    input_px: int = Field(gt=0, description="Side of the input, px")
    mpp: float | None = Field(None, description="um/px it was trained for; None when not stated")
    mean: Rgb
    std: Rgb
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    pooling: Literal["token", "average"] = "token"
    weights: WeightsSource
    sha256: str | None = Field(None, description="Of the weights file, where published")
    licence: str
    gated: bool = False
    domain: str = ""
    paper: str = ""
    caution: str | None = Field(None, description="Said whenever it is used")

    @property
    def transform(self) -> str:
        """The transform in one line: part of the identity."""
        mean, std = (",".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return f"resize {self.input_px} {self.interpolation}; mean {mean}; std {std}; {self.pooling} pooling"


@dataclass(frozen=True)
class EncoderIdentity:
    """What made a feature: two files are comparable only if all of this is equal."""

    name: str
    revision: str
    weights_sha256: str
    transform: str
    dim: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    @property
    def fingerprint(self) -> str:
        """Hash of all of it."""
        return fingerprint(self.to_dict())


class Encoder(Protocol):
    """Pixels to vectors.

    Attributes:
        device: torch device it runs on, as text.
    """

    record: EncoderRecord
    identity: EncoderIdentity
    device: str

    def embed(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode tiles.

        Args:
            pixels: (N, H, W, 3) uint8 RGB; any side, resized to the encoder's input.

        Returns:
            (N, D) float32.
        """
        ...
