"""The nouns: the tiles of a slide, what a slide encoder needs of them, its card, and the encoder itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from pathpipe.errors import SettingsError

TOLERANCE = 0.02  # of a tile's side, um: scanners' um/px differ by as much


@dataclass(frozen=True)
class SlideTiles:
    """The features of one slide's tiles and where they lie.

    Attributes:
        features: (N, D) float16 or float32, N at least 1.
        xy0: (N, 2) int64 top left corners, level-0 px.
        side0: (width, height) of a tile, level-0 px.
        mpp0: um/px of level 0, (x, y).
        encoder: Name of the tile encoder.
        tile_um: Side of a tile, um.
    """

    features: npt.NDArray[np.floating[Any]]
    xy0: npt.NDArray[np.int64]
    side0: tuple[float, float]
    mpp0: tuple[float, float]
    encoder: str
    tile_um: float


class SlideNeeds(BaseModel):
    """The input contract: features of another encoder or of other tiles would give a vector that means nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoders: tuple[str, ...] = Field((), description="Tile encoders it was trained on; none: any")
    tile_px: int | None = Field(None, gt=0, description="Side of its tiles, px")
    mpp: float | None = Field(None, gt=0, description="um/px of its tiles")

    @property
    def tile_um(self) -> float | None:
        """Side of its tiles, um; None: any."""
        return None if self.tile_px is None or self.mpp is None else self.tile_px * self.mpp

    def check(self, name: str, encoder: str, tile_um: float) -> None:
        """Refuse features it wasn't made for.

        Raises:
            SettingsError: Another tile encoder, or tiles of another size on the glass.
        """
        if self.encoders and encoder not in self.encoders:
            wanted = " or ".join(f"`{one}`" for one in self.encoders)
            raise SettingsError(
                f"needs features of {wanted}, these are of `{encoder}`",
                where=f"slide encoder `{name}`",
                hint=self.command,
            )
        if self.tile_um is not None and abs(tile_um / self.tile_um - 1) > TOLERANCE:
            raise SettingsError(
                f"needs tiles of {self.tile_um:g} um ({self.tile_px} px at {self.mpp:g} um/px), "
                f"these are of {tile_um:g} um",
                where=f"slide encoder `{name}`",
                hint=self.command,
            )

    @property
    def command(self) -> str:
        """What makes fitting features."""
        parts = [f"--encoder {self.encoders[0]}" if self.encoders else ""]
        if self.tile_um is not None:
            parts.append(f"--mpp {self.mpp:g} --tile-px {self.tile_px}")
        return f"`pathpipe embed SOURCE -o NEW_RUN {' '.join(filter(None, parts))} --slide-encoder ...`"


class SlideCard(BaseModel):
    """The facts of one slide encoder. What no source states is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    needs: SlideNeeds = SlideNeeds()
    dim: int | None = Field(None, gt=0, description="Width of an embedding; None: it follows the features'")
    weights: str | None = Field(None, description="Page with the weights; None: it has none")
    revision: str | None = None
    licence: str | None = None
    gated: bool = False
    code: str | None = Field(None, description="Its authors' code")
    paper: str = ""
    note: str | None = None


class SlideEncoder(Protocol):
    """Tiles to one vector. A class made with the device's name; see docs/plugins.md.

    Attributes:
        card: Its facts.
        identity: JSON-able: what decides the vector, e.g. name, version, digest of the weights.
    """

    card: SlideCard
    identity: Mapping[str, Any]

    def embed(self, tiles: SlideTiles) -> npt.NDArray[np.float32]:
        """One slide.

        Returns:
            (E,) float32.
        """
        ...
