"""Settings of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

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
    task_settings: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the kind of target: bins, alpha (survival); ties (cox); loss, delta (regression); "
        "order (ordinal); weights (several targets)",
    )
    slides_of_patient: Literal["merge", "pool"] = Field(
        "merge",
        description="Slides of one patient: merge their tiles into one bag, or pool the predictions of a bag a slide",
    )
    encoders: list[str] = Field(
        default_factory=list, description="Encoders whose features of the same tiles are laid side by side"
    )
    covariates: list[str] = Field(
        default_factory=list, description="Cohort columns (age, sex) that the model takes beside the slides"
    )
    epochs: int = Field(40, ge=1, description="Largest number of epochs")
    min_epochs: int = Field(1, ge=1, description="Epochs before training may stop early")
    patience: int = Field(10, ge=1, description="Stop after this many epochs in which `monitor` was no better")
    monitor: str = Field(
        "loss", description="What chooses the epoch, on validation patients: loss, or a metric of the task, e.g. auroc"
    )
    optimiser: Literal["adamw", "adam", "radam", "sgd"] = Field("adamw", description="Optimiser")
    lr: float = Field(2e-4, gt=0, description="Peak learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay (decoupled in AdamW)")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of SGD")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rate after the warm-up: falls to 0 along a cosine or a line, or stays"
    )
    warmup_epochs: int = Field(1, ge=0, description="Epochs of linear warm-up")
    batch_size: int = Field(4, ge=1, description="Bags per forward pass (packed, not padded)")
    accumulate: int = Field(1, ge=1, description="Forward passes per step: their gradients are added up")
    clip: float | None = Field(None, gt=0, description="Largest norm of a step's gradient; larger ones are scaled down")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Arithmetic of the forward pass in training; fp16 needs a GPU"
    )
    balance: Literal["weights", "sampling", "none"] = Field(
        "weights", description="Rare classes: weigh their loss, draw their bags more often, or neither"
    )
    average: float = Field(
        0.0, ge=0, lt=1, description="Decay of a moving average of the weights, which then validates and predicts"
    )
    max_instances: int | None = Field(
        None, ge=1, description="Random instances drawn from larger bags in each training step"
    )
    instance_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of a bag's instances left out at random in each training step"
    )
    mixup: float = Field(
        0.0,
        ge=0,
        description="Mix features and losses of two bags of a batch, share ~ Beta(mixup, mixup) (0: never)",
    )
    seeds: list[int] = Field(default=[0], min_length=1, description="One model a fold and seed")

    @field_validator("seeds")
    @classmethod
    def _not_below_zero(cls, value: list[int]) -> list[int]:
        if min(value) < 0:
            raise ValueError(f"a seed can't be below 0: {min(value)}")
        return value

    @field_validator("encoders", "covariates", "seeds")
    @classmethod
    def _each_once(cls, value: list[Any]) -> list[Any]:
        twice = next((name for name in value if value.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"`{twice}` stands twice")
        return value

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

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "class_weights" in values:
            now = "weights" if values["class_weights"] else "none"
            raise ValueError(f"class_weights is called balance now (weights, sampling or none): write `balance: {now}`")
        return values

    @model_validator(mode="after")
    def _bags_to_mix_with(self) -> Self:
        if self.mixup and self.batch_size < 2:
            raise ValueError("mixup mixes the bags of a batch: batch_size must be at least 2")
        return self
