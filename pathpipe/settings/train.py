"""Settings of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from pathpipe.settings.base import Settings


class TrainSettings(Settings):
    """Training of a MIL model, per fold and seed."""

    name: str | None = Field(None, description="Name of the result (default: model-target-encoder)")
    model: str = Field("abmil", description="MIL model (`pathpipe models` lists them)")
    model_settings: dict[str, Any] = Field(
        default_factory=dict, description="Options of the model (`pathpipe models NAME` lists them)"
    )
    wrappers: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Wrappers of the model, from the inside out: NAME, NAME=VALUE or NAME.OPTION=VALUE "
        "(`pathpipe models` lists them)",
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

    @field_validator("wrappers", mode="before")
    @classmethod
    def _spell_out(cls, given: Any) -> Any:
        """In YAML a wrapper may be given without options, or with its one value alone."""
        if not isinstance(given, Mapping):
            return given
        named = {name: {} if options is None else options for name, options in given.items()}
        return {
            name: options if isinstance(options, Mapping) else {"value": options} for name, options in named.items()
        }
