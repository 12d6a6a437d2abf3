"""Cluster: what a worker of each stage asks of Ray or Slurm. Never changes a result."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from pathpipe.registry import suggest
from pathpipe.settings.base import Settings

# What a worker may be for: the stages, and two commands that are no stage.
_STAGES = (
    "tissue",
    "tile",
    "contact-sheet",
    "extract",
    "embed",
    "split",
    "audit",
    "train",
    "evaluate",
    "heatmap",
    "explanations",
    "report",
    "predict",
    "sweep",
)


class ClusterSettings(Settings):
    """What a worker needs, for every stage; `stages` says where one stage needs something else.

    A worker is a process that takes one unit (a slide, a fold) after the other: an actor of Ray, or an element of a
    Slurm array.
    """

    worker_gpus: float | None = Field(
        None,
        ge=0,
        le=16,
        description="GPUs of each worker that encodes or trains; on Ray 0.5 lets two share one "
        "(default: 1 on Ray where there is one, none asked for on Slurm)",
    )
    worker_cpus: int | None = Field(
        None, ge=1, description="Processor cores of each worker (default: 4; on Ray 1 for tiles, or as nodes have)"
    )
    worker_memory_gb: float | None = Field(None, gt=0, description="Memory of each worker, 1e9 bytes")
    worker_hours: float | None = Field(
        None, gt=0, description="Time limit of each worker on Slurm; one that reaches it goes on in the queue again"
    )
    at_once: int = Field(0, ge=0, description="Workers at the same time (0: as there is room on Ray, 16 on Slurm)")
    partition: str | None = Field(None, description="Slurm: partition")
    account: str | None = Field(None, description="Slurm: account that is charged")
    qos: str | None = Field(None, description="Slurm: quality of service")
    setup: list[str] = Field(
        default_factory=list, description="Shell lines before the work, e.g. `module load cuda` (Slurm)"
    )
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables of the workers")
    sbatch: list[str] = Field(default_factory=list, description="Further options of sbatch, e.g. --gres=gpu:a100:1")
    stages: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="What one stage needs instead, e.g. extract.worker_gpus=1"
    )

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        return {name: str(value) for name, value in values.items()} if isinstance(values, dict) else values

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, values in stages.items():
            if name not in _STAGES:
                raise ValueError(f"there is no stage `{name}`: {suggest(name, list(_STAGES))}")
            if "stages" in values:
                raise ValueError(f"`{name}` can't have `stages` of its own")
            cls.model_validate(values)
        return stages

    def of(self, stage: str) -> ClusterSettings:
        """What a worker of `stage` needs."""
        own = self.stages.get(stage, {})
        values = {**self.model_dump(exclude={"stages"}), **own}
        return ClusterSettings.model_validate(values)
