"""Settings of the evaluation: which numbers, with which intervals, for whom."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pathpipe.settings.base import Settings


class EvaluateSettings(Settings):
    """Metrics with intervals."""

    bootstrap: int = Field(2000, ge=100, description="Bootstrap draws over patients; exchanges of a permutation test")
    interval: Literal["percentile", "bca"] = Field(
        "bca", description="Bootstrap intervals: percentiles of the draws, or those corrected for bias and skewness"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the intervals; tests are at 1 - this")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap")
    threshold: str = Field(
        "youden",
        description="How the threshold of two classes is chosen on validation: youden, sensitivity=X or specificity=X",
    )
    horizons: list[float] = Field(
        default_factory=list,
        description="Times, in the target's unit, at which survival is asked about (default: quartiles of the training "
        "patients' events)",
    )
    subgroups: list[str] = Field(
        default_factory=list, description="Cohort columns, e.g. site, sex, scanner, whose groups are measured each"
    )

    @field_validator("threshold")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        if value == "youden":
            return value
        wanted, equals, text = value.partition("=")
        try:
            level = float(text)
        except ValueError:
            level = 0.0
        if wanted not in ("sensitivity", "specificity") or not equals or not 0 < level <= 1:
            raise ValueError("must be `youden`, `sensitivity=X` or `specificity=X`, X above 0 and at most 1")
        return f"{wanted}={level:g}"

    @field_validator("horizons")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if any(not 0 < time < float("inf") for time in value):
            raise ValueError("must be times above 0")
        return sorted(set(value))

    @field_validator("subgroups")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        return list(dict.fromkeys(value))
