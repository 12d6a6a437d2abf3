"""One record a stage. `Execution` is *how* (never hashed); all others are *what* (part of every fingerprint)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pathpipe.settings.base import Settings, absolute
from pathpipe.settings.cluster import ClusterSettings
from pathpipe.settings.evaluate import EvaluateSettings
from pathpipe.settings.heatmap import HeatmapSettings
from pathpipe.settings.split import AuditSettings, SplitSettings
from pathpipe.settings.sweep import SweepSettings
from pathpipe.settings.tiles import TileSettings
from pathpipe.settings.train import TrainSettings
from pathpipe.url import Url, is_url


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


class TissueSettings(Settings):
    """Where the tissue is."""

    mpp: float = Field(8.0, gt=0, le=64, description="Resolution of the mask, um/px")
    method: str = Field("otsu", description="Way of finding tissue (`pathpipe tissue-methods` lists them)")
    method_settings: dict[str, Any] = Field(
        default_factory=dict, description="Options of the method (`pathpipe tissue-methods NAME` lists them)"
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
        0.5,
        ge=0,
        le=1,
        description="If quality control would take more than this share of the tissue, keep all of it; ink that has no "
        "tissue on both sides doesn't count",
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
        return absolute(value)


ENCODER_FILE_KINDS = ("torchscript", "onnx")  # encoders that are a file: `kind:FILE`


class ExtractSettings(Settings):
    """Features of every tile."""

    encoder: str = Field(
        "efficientnet-lite0",
        description="Encoder name (`pathpipe encoders` lists them), timm:NAME, torchscript:FILE or onnx:FILE; "
        "NAME@cls, @mean, @cls+mean or @tokens pool a ViT otherwise",
    )
    weights: str | None = Field(None, description="Local checkpoint: .safetensors, .pth, .pt or .bin")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field("fp32", description="Arithmetic of the forward pass")
    dtype: Literal["float16", "float32"] = Field("float16", description="Type of the stored features")
    stain: Literal["none", "macenko", "reinhard"] = Field(
        "none", description="Stain normalisation of H&E tiles before the encoder sees them"
    )
    stain_target: str | None = Field(
        None, description="Picture that tiles shall look like (default: the method's own reference)"
    )

    @field_validator("stain_target")
    @classmethod
    def _whole_path(cls, value: str | None) -> str | None:
        """A picture's place; or what was measured on one, `METHOD:NUMBERS`, as a trained model keeps it."""
        return value if value and value.partition(":")[0] in ("macenko", "reinhard") else absolute(value)

    @model_validator(mode="after")
    def _target_has_a_method(self) -> Self:
        if self.stain_target is not None and self.stain == "none":
            raise ValueError("stain_target needs a method: stain macenko or reinhard")
        return self

    @field_validator("weights")
    @classmethod
    def _whole_weights(cls, value: str | None) -> str | None:
        return absolute(value)

    @model_validator(mode="before")
    @classmethod
    def _file_is_a_place(cls, values: Any) -> Any:
        """`onnx:/data/x.onnx` is called `onnx:x.onnx`, and the file is its weights: a name holds no path."""
        encoder = values.get("encoder") if isinstance(values, dict) else None
        kind, colon, path = str(encoder or "").partition(":")
        if not colon or kind not in ENCODER_FILE_KINDS or not path:
            return values
        return {**values, "encoder": f"{kind}:{Path(path).name}", "weights": values.get("weights") or path}


class EmbedSettings(Settings):
    """One vector a slide."""

    slide_encoder: str = Field("mean", description="Slide encoder (`pathpipe slide-encoders` lists them)")


class Execution(Settings):
    """How the work is done; never changes a result."""

    on: Literal["local", "ray", "slurm"] = Field(
        "local", description="Where the work is done: on this machine, on a Ray cluster, or in Slurm's queue"
    )
    shard: str | None = Field(
        None, pattern=r"^\d+/\d+$", description="Do only part I of N of the units, I from 0 to N-1, e.g. 3/16"
    )
    help_others: bool = Field(
        False, description="With --shard: when through, take slides of other parts that nobody has begun"
    )
    dry_run: bool = Field(False, description="Print what would be done, and submitted, and stop")
    workers: int = Field(0, ge=0, description="Processes over slides or folds (0: chosen from the cores)")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    with_encoders: list[str] = Field(
        default_factory=list, description="Further encoders of the catalogue to feed with the same tiles, decoded once"
    )
    gpus: str | None = Field(
        None, pattern=r"^(all|\d+(,\d+)*)$", description="GPUs to use, each by its own process: `all`, or numbers: 0,1"
    )
    folds_per_gpu: int = Field(1, ge=1, le=16, description="Folds and seeds trained at once on each GPU")
    save_every_s: float = Field(
        30.0, ge=0, description="Seconds between savings of a training, which goes on from the last when cut off"
    )
    log: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        default_factory=list, description="Who follows a training beside history.csv: tensorboard, wandb, mlflow"
    )
    tiles_per_batch: int = Field(
        0, ge=0, description="Tiles per forward pass; halved where they don't fit (0: probed on a GPU, 64 on a CPU)"
    )
    compile: bool = Field(False, description="Let torch.compile fuse the encoder, or what trains: slow to start")
    channels_last: bool = Field(False, description="Memory order that convolutional encoders like")
    read_threads: int = Field(2, ge=1, description="Threads that read and decode the tiles of a slide")
    stage_dir: str | None = Field(
        None, description="Folder on a local disk to copy each slide to while it is encoded, for slow storage and URLs"
    )
    remote_block_kb: int = Field(
        1024, ge=64, le=65_536, description="Fetched at once of a slide that is read by its URL, KiB"
    )
    remote_cache_mb: int = Field(128, ge=1, description="Of such a slide kept in memory while it is open, MiB")
    stage_gb: float = Field(100.0, gt=0, description="Room that all processes together may take there, 1e9 bytes")
    publish_to: str | None = Field(
        None, description="Bucket prefix where finished features are also written, as Zarr: s3://bucket/prefix"
    )
    slides_in_flight: int = Field(
        2,
        ge=1,
        le=16,
        description="Slides worked on at once by a process that encodes: one is read while one is encoded",
    )
    offline: bool = Field(False, description="Never ask the network for weights (also PATHPIPE_OFFLINE=1)")
    stale: Literal["refuse", "remake", "keep"] = Field(
        "refuse", description="Results made from other settings or inputs: refuse, remake or keep them"
    )
    lease_s: float = Field(
        300.0,
        ge=120,
        le=86_400,
        description="Seconds of silence after which a worker on another machine counts as dead; it gives a sign of "
        "life ten times as often",
    )
    max_failures: int = Field(0, ge=0, description="Failed slides tolerated before the exit code is 1")

    @field_validator("publish_to")
    @classmethod
    def _bucket(cls, prefix: str | None) -> str | None:
        if prefix is not None and (not is_url(prefix) or Url(prefix).is_web):
            raise ValueError(f"`{prefix}` is no bucket: give a URL such as s3://bucket/prefix")
        return prefix

    @field_validator("shard")
    @classmethod
    def _within(cls, shard: str | None) -> str | None:
        if shard is not None:
            number, count = map(int, shard.split("/"))
            if number >= count:
                raise ValueError(f"`{shard}`: parts of {count} are numbered from 0 to {count - 1}")
        return shard


# Where something lies. What lies there is an input of its stage, known by content; the place is in no fingerprint.
PLACES: dict[str, set[str]] = {
    "tissue": {"mask_dir"},
    "tile": {"include", "exclude", "coords_dir"},
    "extract": {"weights", "stain_target"},
    "split": {"test_list", "folds_from"},
}
# Sections and fields that say how and on what, not what is made.
HOW: dict[str, bool] = {"execution": True, "cluster": True, "cohort": True}


class RunSettings(Settings):
    """All sections together: the content of a YAML file and of a run's own settings.yaml."""

    cohort: str | None = Field(None, description="Cohort table, folder of slides or one slide")
    notice: str | None = Field(None, description="A sentence that stands above the report")
    slide: SlideSettings = SlideSettings()
    tissue: TissueSettings = TissueSettings()
    tile: TileSettings = TileSettings()
    extract: ExtractSettings = ExtractSettings()
    embed: EmbedSettings = EmbedSettings()
    split: SplitSettings = SplitSettings()
    audit: AuditSettings = AuditSettings()
    train: TrainSettings = TrainSettings()
    sweep: SweepSettings = SweepSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    heatmap: HeatmapSettings = HeatmapSettings()
    execution: Execution = Execution()
    cluster: ClusterSettings = ClusterSettings()

    def with_execution(self, **changes: Any) -> RunSettings:
        """The same settings carried out in another way: fields of `execution`, none of which changes a result."""
        return self.model_copy(update={"execution": self.execution.model_copy(update=changes)})
