"""What a report shows: plain values, ready to print. `stages/report.py` fills it from a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pathpipe.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class SlideEntry:
    """One slide of the cohort.

    Attributes:
        state: `done`, `empty`, `failed` or `stale`.
        stage: Where it ended, for all but `done`.
        overlay: JPEG of tissue and tiles.
    """

    slide_id: str
    patient_id: str
    label: str
    state: str
    stage: str = ""
    reason: str = ""
    hint: str = ""
    tiles: int | None = None
    tissue_mm2: float | None = None
    mpp: str = ""
    overlay: bytes | None = None

    @property
    def suspicion(self) -> tuple[int, float]:
        """Sorts what a person should look at first: trouble, then the least tissue."""
        return (0 if self.state != "done" else 1, self.tissue_mm2 or 0.0)


@dataclass(frozen=True)
class LearningCurve:
    """Losses of one fold and seed, one value an epoch."""

    name: str
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    best_epoch: int


@dataclass(frozen=True)
class HeatmapView:
    """One heatmap: JPEG and the sentence under it."""

    slide_id: str
    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class ReportData:
    """All of it.

    Attributes:
        notices: Sentences that stand above everything.
        split: Rows of (fold, role, patients by class in the order of `classes`).
        baseline_note: Why there is no baseline.
        made_by: Package -> version.
        hashes: Name -> fingerprint.
    """

    title: str
    target: str
    notices: tuple[str, ...]
    slides: tuple[SlideEntry, ...]
    classes: tuple[str, ...]
    split: tuple[tuple[int, str, tuple[int, ...]], ...]
    curves: tuple[LearningCurve, ...]
    model_name: str
    model: Evaluation
    baseline_name: str
    baseline: Evaluation | None
    baseline_note: str | None
    confidence: float
    heatmaps: tuple[HeatmapView, ...]
    settings_yaml: str
    made_by: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
