"""Settings of a sweep: what is varied, how often, and by what candidates are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pathpipe.settings.base import Settings
from pathpipe.settings.train import TrainSettings

# they say what the patients are, or how often one model is trained; or would change what is compared
_FIXED = ("name", "model", "encoders", "covariates", "slides_of_patient", "task_settings", "seeds", "monitor")


class Span(Settings):
    """Numbers between two bounds."""

    low: float = Field(description="Smallest")
    high: float = Field(description="Largest")
    log: bool = Field(False, description="Whether orders of magnitude are equally likely")
    whole: bool = Field(False, description="Whether only whole numbers")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError("low must be smaller than high")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("whole needs whole bounds")
        return self


Choice = list[bool | int | float | str | None]
Space = dict[str, Span | Choice]


class SweepSettings(Settings):
    """A search for a model and its options, by validation patients only."""

    trials: int = Field(20, ge=1, description="Candidates tried in all; a study that is there already is gone on with")
    objective: str = Field(
        "auto", description="Validation metric that candidates are compared by: loss, or a metric of the task (auto)"
    )
    only_fold: int | None = Field(None, ge=0, description="Choose by this fold alone (default: the mean over all)")
    prune: bool = Field(True, description="Give candidates up that are below the median after a fold")
    seed: int = Field(0, ge=0, description="Seed of the search")
    side_by_side: int = Field(
        1,
        ge=1,
        le=256,
        description="Candidates proposed together and tried at once; each learns from those before them",
    )
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Models to choose from, each with a space of its own options (YAML)"
    )
    space: dict[str, Any] = Field(
        default_factory=dict,
        description="Keys of `train`, each with a list of values, or {low, high, log, whole}",
    )

    @field_validator("models", mode="before")
    @classmethod
    def _without_options(cls, given: Any) -> Any:
        if isinstance(given, list):
            return {str(name): {} for name in given}
        return {name: options or {} for name, options in given.items()} if isinstance(given, Mapping) else given

    @field_validator("space")
    @classmethod
    def _known_keys(cls, given: dict[str, Any]) -> dict[str, Any]:
        for key in given:
            name, _, rest = key.partition(".")
            nested = name in ("model_settings", "wrappers")
            if name not in TrainSettings.model_fields or name in _FIXED or bool(rest) != nested:
                raise ValueError(f"`{key}` can't be varied; write e.g. lr, model_settings.hidden or wrappers.aem.value")
        return given

    @model_validator(mode="after")
    def _spans_and_choices(self) -> Self:
        for space in (self.space, *self.models.values()):
            parse_space(space)
        return self


def parse_space(given: Mapping[str, Any]) -> Space:
    """Key -> what it may be.

    Raises:
        ValueError: Neither values nor bounds.
    """
    return {key: _parsed(key, value) for key, value in given.items()}


def _parsed(key: str, value: Any) -> Span | Choice:
    if isinstance(value, Mapping):
        return Span.model_validate(dict(value))
    if (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(one, bool | int | float | str | None) for one in value)
    ):
        return list(value)
    raise ValueError(f"`{key}` needs a list of values, or {{low: ..., high: ...}}")
