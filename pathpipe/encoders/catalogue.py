"""The catalogue: names to records. Built-in entries, any timm model as `timm:NAME`, and those of other packages."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from pathpipe.encoders.encoder import EncoderRecord, WeightsSource
from pathpipe.encoders.files import file_record, is_file_encoder
from pathpipe.errors import SettingsError
from pathpipe.registry import Registry, suggest

TIMM = "timm:"
PLUGINS = Registry("encoder", {})
_FILE = Path(__file__).with_name("catalogue.yaml")


@cache
def _builtin() -> dict[str, EncoderRecord]:
    entries = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: EncoderRecord(name=name, **entry) for name, entry in entries.items() if not name.startswith(".")}


def encoder_names() -> list[str]:
    """All names but those that have no end: `timm:NAME`, `torchscript:FILE`, `onnx:FILE`."""
    return [*_builtin(), *PLUGINS.names()]


def encoder_record(name: str, weights: str | None = None) -> EncoderRecord:
    """The record of a name; nothing is downloaded, and nothing loaded but a file that is the encoder itself.

    Args:
        weights: Where the file of `torchscript:FILE` or `onnx:FILE` lies, if elsewhere; of no concern to others.

    Raises:
        SettingsError: There is no such encoder, or a plug-in offers something else than an `EncoderRecord`.
        MissingError: It is a file that isn't there.
    """
    if name in _builtin():
        return _builtin()[name]
    if is_file_encoder(name):
        return file_record(name, weights)
    if "@" in name:
        from pathpipe.encoders.pooling import pooled_otherwise  # needs torch, which a list of names doesn't

        base, _, pooling = name.rpartition("@")
        return pooled_otherwise(encoder_record(base), pooling)
    if name.startswith(TIMM):
        return _timm_record(name)
    if name in PLUGINS:
        record = PLUGINS[name]
        if not isinstance(record, EncoderRecord):
            raise SettingsError(
                f"encoder `{name}` of package {PLUGINS.source(name)} is a {type(record).__name__}",
                hint="an entry point of group pathpipe.encoders must name an EncoderRecord",
            )
        return record
    raise SettingsError(
        f"there is no encoder `{name}`", hint=f"{suggest(name, encoder_names())}; any timm model is `timm:NAME`"
    )


def encoder_caution(name: str) -> str | None:
    """What has to be said whenever an encoder is used; needs neither its weights nor its file."""
    return None if is_file_encoder(name) else encoder_record(name).caution


@cache
def _timm_record(name: str) -> EncoderRecord:
    import timm
    import torch

    architecture = name.removeprefix(TIMM)
    if not timm.is_model(architecture):
        close = suggest(architecture.partition(".")[0], timm.list_models())
        raise SettingsError(f"timm has no model `{architecture}`", hint=close[:200])
    with torch.device("meta"):  # shapes only: no memory, no time
        model = timm.create_model(architecture, pretrained=False, num_classes=0)
    config = model.pretrained_cfg
    token = getattr(model, "global_pool", None) == "token"
    hub = config.get("hf_hub_id")
    weights = (
        WeightsSource(hub=hub, file="model.safetensors")
        if hub
        else WeightsSource(manual="timm names no published weights for this architecture")
    )
    try:
        return EncoderRecord(
            name=name,
            architecture=architecture,
            # some networks widen what they have pooled (MobileNetV3, HGNet, VGG)
            dim=model.num_features if token else model.head_hidden_size,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            input_px=config["input_size"][-1],
            mean=config["mean"],
            std=config["std"],
            interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
            pooling="cls" if token else "network",
            weights=weights,
            licence=config.get("license") or None,
            domain="as its training data",
            caution="a general-purpose network unless you give pathology weights with --weights",
        )
    except ValidationError as error:
        raise SettingsError(f"`{name}` can't be used as an encoder: {error.errors()[0]['msg']}") from None
