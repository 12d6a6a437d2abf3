"""One record a stage. `Execution` is *how* (never hashed); all others are *what* (part of every fingerprint)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pathpipe.settings.base import Settings


class SlideSettings(Settings):
    """How slides are opened and how their resolution is found."""

    reader: str = Field("auto", description="Reader: auto, or one that `pathpipe doctor --readers` lists")
    mpp_policy: str = Field(
        "error",
        description="When a slide states no um/px: `error`; `objective` (10 / objective power); `default=X`",
    )

    @field_validator("mpp_policy")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        if value in ("error", "objective"):
            return value
        try:
            default = float(value.removeprefix("default="))
        except ValueError:
            raise ValueError("must be `error`, `objective` or `default=X` with X in um/px") from None
        if not 0.05 <= default <= 40:
            raise ValueError("the default must lie between 0.05 and 40 um/px")
        return f"default={default:g}"


Policy = Literal["exclude", "flag", "off"]


def _absolute(folder: str | None) -> str | None:
    """A run remembers where a folder lies, whichever folder it is gone on with from."""
    return str(Path(folder).expanduser().absolute()) if folder else None


class TissueSettings(Settings):
    """Where the tissue is."""

    mpp: float = Field(8.0, gt=0, le=64, description="Resolution of the mask, um/px")
    method: str = Field("otsu", description="Way of finding tissue (docs/tissue.md lists them)")
    method_settings: dict[str, Any] = Field(
        default_factory=dict, description="Options of the method (docs/tissue.md lists them)"
    )
    min_area_um2: float = Field(20_000.0, ge=0, description="Smaller pieces of tissue are dropped, um2")
    max_hole_um2: float = Field(10_000.0, ge=0, description="Smaller holes are filled, um2")
    close_um: float = Field(32.0, ge=0, description="Gaps up to this width are closed, um")
    pen: Policy = Field("exclude", description="Pen marks (black, blue, green, red): exclude, flag or off")
    shadow: Policy = Field(
        "exclude", description="Shade at the slide's border, areas not scanned: exclude, flag or off"
    )
    edge: Policy = Field("exclude", description="Coverslip edges, rims of bubbles, fibres: exclude, flag or off")
    blur: Policy = Field("flag", description="Areas out of focus: exclude, flag or off")
    max_rejected: float = Field(
        0.5, ge=0, le=1, description="If quality control would take more than this share of the tissue, keep all of it"
    )
    mask_dir: str | None = Field(
        None, description="Folder of SLIDE.geojson outlines that replace detection; other slides are detected as usual"
    )
    geojson_origin: Literal["slide", "bounds"] = Field(
        "slide",
        description="What GeoJSON calls (0, 0), written or given: the slide's corner, or that of its scanned bounds, "
        "where QuPath begins MRXS and other bounded slides",
    )

    @field_validator("mask_dir")
    @classmethod
    def _whole_path(cls, value: str | None) -> str | None:
        return _absolute(value)


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
    edge: Literal["drop", "pad"] = Field(
        "drop", description="Tiles that reach past the right or lower edge: leave them out, or fill them up with white"
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
        return _absolute(value)

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
        if self.overlap_px >= self.tile_px:
            raise ValueError("overlap_px must be smaller than tile_px")
        if self.region_tiles and self.step_px != self.tile_px:
            raise ValueError("region_tiles needs tiles side by side: leave out overlap_px and stride_px")
        if self.max_tiles is not None and self.max_tiles < self.region_tiles**2:
            raise ValueError(f"max_tiles {self.max_tiles} leaves no whole region of {self.region_tiles**2} tiles")
        if self.coords_dir is not None:
            laid = {"tile_um": self.tile_um, "stride_px": self.stride_px, "overlap_px": self.overlap_px}
            laid |= {"region_tiles": self.region_tiles, "edge": self.edge == "pad"}
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


ENCODER_FILE_KINDS = ("torchscript", "onnx")  # encoders that are a file: `kind:FILE`


class ExtractSettings(Settings):
    """Features of every tile."""

    encoder: str = Field(
        "efficientnet-lite0",
        description="Encoder name (`pathpipe encoders` lists them), timm:NAME, torchscript:FILE or onnx:FILE",
    )
    weights: str | None = Field(None, description="Local checkpoint: .safetensors, .pth, .pt or .bin")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Arithmetic of the forward pass")
    dtype: Literal["float16", "float32"] = Field("float16", description="Type of the stored features")

    @model_validator(mode="before")
    @classmethod
    def _file_is_a_place(cls, values: Any) -> Any:
        """`onnx:/data/x.onnx` is called `onnx:x.onnx`, and the file is its weights: a name holds no path."""
        encoder = values.get("encoder") if isinstance(values, dict) else None
        kind, colon, path = str(encoder or "").partition(":")
        if not colon or kind not in ENCODER_FILE_KINDS or not path:
            return values
        return {**values, "encoder": f"{kind}:{Path(path).name}", "weights": values.get("weights") or path}


class SplitSettings(Settings):
    """Cross-validation folds, always by patient."""

    target: str = Field("label", description="Cohort column to predict")
    folds: int = Field(5, ge=2, le=50, description="Number of folds")
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of each fold's training patients kept for validation"
    )
    seed: int = Field(0, ge=0, description="Seed of the assignment")


class TrainSettings(Settings):
    """Training of a MIL model, per fold and seed."""

    name: str | None = Field(None, description="Name of the result (default: model-target-encoder)")
    model: str = Field("abmil", description="MIL model (`pathpipe models` lists them)")
    model_settings: dict[str, Any] = Field(
        default_factory=dict, description="Options of the model (`pathpipe models NAME` lists them)"
    )
    epochs: int = Field(40, ge=1, description="Largest number of epochs")
    patience: int = Field(10, ge=1, description="Stop after this many epochs without a better validation loss")
    lr: float = Field(2e-4, gt=0, description="Peak learning rate (AdamW, cosine decay)")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay")
    warmup_epochs: int = Field(1, ge=0, description="Epochs of linear warm-up")
    batch_size: int = Field(4, ge=1, description="Bags per step (packed, not padded)")
    max_instances: int | None = Field(
        None, ge=1, description="Random instances drawn from larger bags in each training step"
    )
    class_weights: bool = Field(True, description="Weigh classes by inverse frequency in the training fold")
    seeds: list[int] = Field(default=[0], min_length=1, description="One model a fold and seed")


class EvaluateSettings(Settings):
    """Metrics with intervals."""

    bootstrap: int = Field(2000, ge=100, description="Bootstrap draws over patients")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the intervals")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap")


class HeatmapSettings(Settings):
    """Pictures of what a model looked at."""

    scale: Literal["percentile", "raw"] = Field("percentile", description="Rank within the slide, or raw score")
    colours: str = Field("inferno", description="Matplotlib colour map")
    opacity: float = Field(0.55, ge=0, le=1, description="Opacity of the scores over the slide")
    width_px: int = Field(1400, ge=200, le=8000, description="Width of the picture")


class Execution(Settings):
    """How the work is done; never changes a result."""

    workers: int = Field(0, ge=0, description="Processes over slides (0: chosen from the cores)")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    tiles_per_batch: int = Field(64, ge=1, description="Tiles per forward pass")
    read_threads: int = Field(2, ge=1, description="Threads that read and decode tiles")
    offline: bool = Field(False, description="Never ask the network for weights (also PATHPIPE_OFFLINE=1)")
    stale: Literal["refuse", "remake", "keep"] = Field(
        "refuse", description="Results made from other settings or inputs: refuse, remake or keep them"
    )
    max_failures: int = Field(0, ge=0, description="Failed slides tolerated before the exit code is 1")


# Where something lies. What lies there is an input of its stage, known by content; the place is in no fingerprint.
PLACES: dict[str, set[str]] = {
    "tissue": {"mask_dir"},
    "tile": {"include", "exclude", "coords_dir"},
    "extract": {"weights"},
}


class RunSettings(Settings):
    """All sections together: the content of a YAML file and of a run's own settings.yaml."""

    cohort: str | None = Field(None, description="Cohort table, folder of slides or one slide")
    notice: str | None = Field(None, description="A sentence that stands above the report")
    slide: SlideSettings = SlideSettings()
    tissue: TissueSettings = TissueSettings()
    tile: TileSettings = TileSettings()
    extract: ExtractSettings = ExtractSettings()
    split: SplitSettings = SplitSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    heatmap: HeatmapSettings = HeatmapSettings()
    execution: Execution = Execution()
