"""Settings of heatmaps: which score, for what, drawn how, written as what, and how it is put to the test."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pathpipe.settings.base import Settings

ScoreKind = Literal["auto", "attention", "instance", "gradient", "integrated", "occlusion"]


class HeatmapSettings(Settings):
    """Pictures of what a model looked at."""

    score: ScoreKind = Field(
        "auto",
        description="Score of a tile: attention; instance (what the model says of the tile alone); gradient (length of "
        "gradient x features); integrated (integrated gradients); occlusion (what is lost without the tile); auto is "
        "the first of attention, instance and gradient that the model has",
    )
    target_class: str = Field(
        "predicted",
        description="What is explained: predicted (the most probable class of every target), every (class by class), "
        "or the name of one class, label or number",
    )
    scale: Literal["percentile", "raw"] = Field("percentile", description="Rank within the slide, or raw score")
    colours: str = Field("inferno", description="Matplotlib colour map")
    opacity: float = Field(0.55, ge=0, le=1, description="Opacity of the scores over the slide")
    width_px: int = Field(1400, ge=200, le=8000, description="Width of the picture")
    top_tiles: int = Field(
        8, ge=0, le=64, description="Tiles that score highest, and as many lowest, on a sheet (0: no sheet)"
    )
    geojson: Literal["none", "tiles", "quantiles"] = Field(
        "none",
        description="Objects for QuPath: tiles (each with its measurements), or quantiles (tiles of a tenth merged)",
    )
    ome_tiff: bool = Field(False, description="Also write a pyramidal OME-TIFF: the picture, and the scores as float32")
    ome_px: int = Field(4096, ge=256, le=32768, description="Longest side of the OME-TIFF's finest level, about, px")
    occlusion_groups: int = Field(
        256, ge=2, le=65536, description="Most groups of neighbouring tiles that occlusion leaves out in turn"
    )
    checks: bool = Field(
        True, description="Test the explanation: deletion and insertion of tiles, attention on artefacts"
    )
    check_orders: int = Field(
        10, ge=2, le=1000, description="Random orders that deletion and insertion are compared with"
    )
    truth_class: str | None = Field(
        None, description="Class of the true regions or points that count (default: all there are)"
    )
