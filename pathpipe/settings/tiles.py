"""The settings of the grid of tiles, where one thing can be said in two ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pathpipe.settings.base import Settings, absolute


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


class TileSettings(Settings):
    """The grid of tiles, in physical units."""

    mpp: float = Field(0.5, ge=0.05, le=40, description="Resolution of a tile, um/px")
    tile_px: int = Field(256, ge=8, le=8192, description="Side of a tile, px at that resolution")
    tile_um: float | None = Field(
        None, gt=0, description="Side of a tile in um, resized to tile_px: says mpp in another way"
    )
    overlap_px: int = Field(0, ge=0, description="Overlap of neighbours, px at that resolution")
    stride_px: int | None = Field(
        None, ge=1, description="Step from tile to tile, px at that resolution: says overlap_px in another way"
    )
    border: Literal["drop", "pad"] = Field(
        "drop", description="Tiles that reach past the slide's right or lower border: drop them, or pad them with white"
    )
    min_tissue: float = Field(0.25, ge=0, le=1, description="Smallest share of tissue in a tile that is kept")
    include: str | None = Field(
        None, description="Folder of SLIDE.geojson regions: only tiles inside them are kept; a slide without gets none"
    )
    include_class: str | None = Field(None, description="Only regions of this class count as included (default: all)")
    min_roi: float = Field(
        0.5, gt=0, le=1, description="A tile is kept when at least this share of it lies in included regions"
    )
    exclude: str | None = Field(None, description="Folder of SLIDE.geojson regions: tiles on them are left out")
    exclude_class: str | None = Field(None, description="Only regions of this class count as excluded (default: all)")
    max_excluded: float = Field(
        0.0, ge=0, lt=1, description="A tile is left out when more than this share of it lies in excluded regions"
    )
    max_tiles: int | None = Field(None, ge=1, description="Keep at most this many tiles, spread over the tissue")
    region_tiles: int = Field(
        0,
        ge=0,
        le=256,
        description="Take tiles as whole regions of N x N, each kept for its own tissue (0: no regions)",
    )
    coords_dir: str | None = Field(
        None, description="Folder of coordinate files of CLAM, TRIDENT, hs2p, STAMP or pathpipe to take the tiles from"
    )
    decode: Literal["scaled", "exact"] = Field(
        "scaled",
        description="Where no level is near: let the JPEG decoder shrink by 2, 4 or 8 (fast), or decode every pixel",
    )
    max_upsample: float = Field(
        1.1, ge=1, description="Refuse slides that would have to be enlarged by more than this factor"
    )

    @field_validator("include", "exclude", "coords_dir")
    @classmethod
    def _whole_path(cls, value: str | None) -> str | None:
        return absolute(value)

    @field_validator("include_class", "exclude_class")
    @classmethod
    def _some_class(cls, value: str | None) -> str | None:
        return value or None  # an empty one takes back what a run remembers

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        """Of two keys for one thing, the one that isn't given follows from the other."""
        if not isinstance(values, Mapping):
            return values
        tile_px = values.get("tile_px", cls.model_fields["tile_px"].default)
        tile_um, stride_px = values.get("tile_um"), values.get("stride_px")
        derived: dict[str, float] = {}
        if _positive(tile_um) and _positive(tile_px):
            derived["mpp"] = tile_um / tile_px
        if _positive(stride_px) and _positive(tile_px):
            derived["overlap_px"] = max(0, tile_px - stride_px)
        return {**derived, **values}

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.tile_um is not None and not math.isclose(self.mpp, self.tile_um / self.tile_px, rel_tol=1e-6):
            raise ValueError(
                f"mpp {self.mpp:g} and tile_um {self.tile_um:g} disagree: {self.tile_um:g} um in {self.tile_px} px are "
                f"{self.tile_um / self.tile_px:g} um/px; give one of the two"
            )
        if self.stride_px is not None and self.overlap_px != max(0, self.tile_px - self.stride_px):
            raise ValueError(
                f"overlap_px {self.overlap_px} and stride_px {self.stride_px} disagree for tiles of {self.tile_px} px; "
                "give one of the two"
            )
        for folder in ("include", "exclude"):  # the shares have defaults, and a run remembers them
            if getattr(self, folder) is None and getattr(self, f"{folder}_class") is not None:
                raise ValueError(f"{folder}_class says nothing without {folder}: give the folder of regions")
        if self.overlap_px >= self.tile_px:
            raise ValueError("overlap_px must be smaller than tile_px")
        if self.region_tiles and self.step_px != self.tile_px:
            raise ValueError("region_tiles needs tiles side by side: leave out overlap_px and stride_px")
        if self.max_tiles is not None and self.max_tiles < self.region_tiles**2:
            raise ValueError(f"max_tiles {self.max_tiles} leaves no whole region of {self.region_tiles**2} tiles")
        if self.coords_dir is not None:
            laid = {"tile_um": self.tile_um, "stride_px": self.stride_px, "overlap_px": self.overlap_px}
            laid |= {"region_tiles": self.region_tiles, "border": self.border == "pad"}
            extra = [name for name, value in laid.items() if value]
            if extra:
                raise ValueError(f"coords_dir says where the tiles lie: leave out {extra[0]}")
        return self

    @classmethod
    def superseded(cls, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, str]:
        """See `Settings.superseded`: what follows from tile_um or stride_px follows anew when tile_px changes."""
        gone: dict[str, str] = {}
        for said, derived in (("tile_um", "mpp"), ("stride_px", "overlap_px")):
            if derived in above:
                if said not in above and below.get(said) is not None:
                    gone[said] = derived
            elif above.get(said) is not None or ("tile_px" in above and below.get(said) is not None):
                gone[derived] = said
        return gone

    @property
    def step_px(self) -> int:
        """Step from tile to tile, px at `mpp`."""
        return self.tile_px - self.overlap_px if self.stride_px is None else self.stride_px
