"""What a report shows: plain values, ready to print. `stages/report.py` fills it from a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pathpipe.evaluation.evaluation import Evaluation
from pathpipe.report.entry import SlideEntry


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
        split: Rows of (fold, role, patients by class in the order of `classes`, or all patients).
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
