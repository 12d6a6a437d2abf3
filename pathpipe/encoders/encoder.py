"""The nouns: an encoder's record (facts, no torch), its identity (what made these features), and the encoder itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pathpipe.clock import Clock
from pathpipe.fingerprint import fingerprint

Rgb = tuple[float, float, float]
# cls: class token; mean: mean of the patch tokens; cls+mean: both, concatenated; tokens: the patch tokens, one after
# the other; network: as the network itself pools. Register tokens are never part of any.
Pooling = Literal["cls", "mean", "cls+mean", "tokens", "network"]


class WeightsSource(BaseModel):
    """Where weights come from: a package, a hub repository, an address, or a person who fetches them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str | None = Field(None, description="Installed distribution's import name")
    hub: str | None = Field(None, description="Hugging Face repository")
    url: str | None = Field(None, description="Address of the file itself")
    manual: str | None = Field(None, description="Where a person gets the file")
    file: str | None = Field(None, description="File in the package or repository; its name for a url")
    revision: str | None = Field(None, description="Pinned revision of the repository; None: whatever it holds")

    @model_validator(mode="after")
    def _one_place(self) -> WeightsSource:
        if sum(place is not None for place in (self.package, self.hub, self.url, self.manual)) != 1:
            raise ValueError("weights must name exactly one of package, hub, url, manual")
        if self.manual is None and self.file is None:
            raise ValueError("weights must name a file")
        return self

    @property
    def page(self) -> str:
        """Where a person looks: the repository's page, the file's address, or the words of the entry."""
        if self.hub is not None:
            return f"https://huggingface.co/{self.hub}"
        return self.url or self.manual or f"package {(self.package or '').replace('_', '-')}"


class EncoderRecord(BaseModel):
    """The facts of one encoder. `catalogue.yaml` holds one an entry; a plug-in may offer one.

    What no source states is None, never a guess.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="What people type")
    architecture: str = Field(description="timm's name of the architecture, or of the network `build` makes")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Arguments of its constructor")
    build: str | None = Field(None, description="`module:function` that makes the network, where timm can't")
    layout: str = Field("timm", description="Key layout of the checkpoint")
    dim: int = Field(gt=0, description="Width of a feature")
    parameters: int | None = Field(None, gt=0, description="Number of parameters")
    input_px: int = Field(gt=0, description="Side of the input, px")
    resize_px: int | None = Field(
        None, gt=0, description="Side a tile is resized to before its centre is cut out; None: input_px"
    )
    mpp: float | None = Field(None, gt=0, description="um/px it was trained for; None when not stated")
    tile_px: int | None = Field(None, gt=0, description="Side of the tiles its authors feed; None when not stated")
    mean: Rgb
    std: Rgb
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    pooling: Pooling = "cls"
    weights: WeightsSource
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="Of the weights file, where published")
    licence: str | None = Field(None, description="Of the weights; None when not stated")
    gated: bool = Field(False, description="The licence has to be accepted on the weights' page first")
    domain: str = ""
    paper: str = ""
    note: str | None = Field(None, description="Where the facts are open to doubt")
    caution: str | None = Field(None, description="Said whenever it is used")

    @model_validator(mode="after")
    def _crop_fits(self) -> EncoderRecord:
        if self.resize_px is not None and self.resize_px < self.input_px:
            raise ValueError("resize_px must not be smaller than input_px")
        return self

    @property
    def published(self) -> str:
        """The name its weights go by, whatever the pooling."""
        return self.name.partition("@")[0]

    @property
    def transform(self) -> str:
        """The transform in one line: part of the identity."""
        mean, std = (",".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        crop = f"; centre {self.input_px}" if (self.resize_px or self.input_px) != self.input_px else ""
        resize = f"resize {self.resize_px or self.input_px} {self.interpolation}{crop}"
        return f"{resize}; mean {mean}; std {std}; {self.pooling} pooling"


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

    def embed(self, pixels: npt.NDArray[np.uint8], clock: Clock | None = None) -> npt.NDArray[np.float32]:
        """Encode tiles. Safe from several threads, which take turns on the device.

        Args:
            pixels: (N, H, W, 3) uint8 RGB; any side, resized to the encoder's input.
            clock: Told how long `transfer` and `forward` took.

        Returns:
            (N, D) float32.
        """
        ...

    def probe_batch(self, tile_px: int) -> int:
        """How many tiles of this side make a good batch on the device."""
        ...
