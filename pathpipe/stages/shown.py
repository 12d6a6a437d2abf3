"""What a report shows of slides: how each ended, small pictures of some, and the heatmaps with what they say."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pathpipe.errors import PathpipeError
from pathpipe.evaluation.curves import Curve
from pathpipe.report.entry import SlideEntry
from pathpipe.report.explained import Explained, chosen
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.settings.target import parse_target
from pathpipe.stages.chain import SLIDE_STAGES, train_name, units
from pathpipe.stages.endings import slide_entry
from pathpipe.stages.heatmap import read_summary
from pathpipe.stages.split import column_by_patient

# The page holds some pictures, small; all of them, whole, are in the run's folder.
SHEET, SHEET_PX = 120, 440
MOST_AIMS = 5
HEATMAP_PX, TILES_PX = 1100, 640
_QUALITY = 78
_MOST_COLUMNS = 20
Pictures = dict[tuple[str, str], tuple[bytes, bytes | None]]


def shown_slides(run: Run, settings: RunSettings) -> tuple[SlideEntry, ...]:
    """Every slide, without its picture."""
    there = _columns(run)
    columns = [name for spec in parse_target(settings.split.target) for name in spec.columns if name in there]
    return tuple(slide_entry(run, slide.slide_id, columns, SLIDE_STAGES) for slide in run.cohort.slides)


def shown_overlays(run: Run, slides: Sequence[SlideEntry]) -> dict[str, bytes]:
    """slide_id -> small picture, of those a person should look at first."""
    pictures = {}
    for entry in sorted(slides, key=lambda one: one.suspicion):
        picture = small(run.overlay(entry.slide_id), SHEET_PX)
        if picture is not None:
            pictures[entry.slide_id] = picture
        if len(pictures) == SHEET:
            break
    return pictures


def small(path: Path, width_px: int) -> bytes | None:
    """A picture as JPEG of at most that width, decoded no larger than that takes; None where it can't be read."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (width_px, width_px))
            reduced = picture.convert("RGB")
    except OSError:
        return None
    reduced.thumbnail((width_px, 10 * width_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    reduced.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def cohort_columns(run: Run) -> dict[str, dict[str, str]]:
    """Column -> patient_id -> its text; of a patient whose slides differ all of them."""
    names = [*(["site"] if any(slide.site for slide in run.cohort.slides) else []), *_columns(run)]
    return {
        name: {patient: " + ".join(text for text in texts if text) for patient, texts in by_patient.items()}
        for name in names[:_MOST_COLUMNS]
        for by_patient in [column_by_patient(run.cohort, name)]
    }


def _columns(run: Run) -> list[str]:
    return list(dict.fromkeys(name for slide in run.cohort.slides for name in slide.labels or {}))


def classes_by_patient(settings: RunSettings, columns: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """patient_id -> class of the first target; empty where it has none."""
    spec = parse_target(settings.split.target)[0]
    if spec.kind not in ("classification", "ordinal"):
        return {}
    return {patient: text for patient, text in columns.get(spec.columns[0], {}).items() if text}


def explained_slides(run: Run, settings: RunSettings) -> tuple[Explained, ...]:
    """All heatmaps of the model, with what they say of themselves."""
    specs = parse_target(settings.split.target)
    labelled = len(specs) == 1 and specs[0].kind in ("classification", "ordinal")
    found: list[Explained] = []
    summary: dict[str, Any]
    for slide_id in units(run, "heatmap", settings):
        folder = run.heatmap(train_name(settings), slide_id)
        try:
            summary = read_summary(folder) if folder.exists() else {"empty_reason": "not made"}
        except PathpipeError:
            continue  # its stage says so
        if not summary.get("empty_reason"):
            found += [_explained(slide_id, summary, one, labelled) for one in summary["explained"]]
    return tuple(found)


def _explained(slide_id: str, summary: Mapping[str, Any], one: Mapping[str, Any], labelled: bool) -> Explained:
    right = one["aim"] == summary["label"] if labelled and one["kind"] == "class" and summary["label"] else None
    curves = one["curves"]
    return Explained(
        slide_id,
        str(summary["label"]),
        str(summary["predicted"]),
        one["aim"],
        one["kind"],
        one["score"],
        math.nan if one["value"] is None else float(one["value"]),
        int(summary["tiles"]),
        right if summary["predicted"] == one["aim"] else None,
        None if one["score_in_truth"] is None else (one["score_in_truth"], one["area_in_truth"]),
        one["instance_auroc"],
        {} if curves is None else {name: curves[name]["gain"] for name in ("deletion", "insertion")},
        {} if curves is None or curves["measure"] != "probability" else _curves(curves),
        one["files"]["picture"],
        one["files"].get("tiles"),
    )


def _curves(curves: Mapping[str, Any]) -> dict[str, Curve]:
    values = {"deletion": curves["deletion"]["values"], "insertion": curves["insertion"]["values"]}
    kept = curves["kept"]
    return {
        "deletion": Curve(kept, values["deletion"][::-1]),
        "insertion": Curve(kept, values["insertion"]),
        "random": Curve(kept, curves["random"]),
    }


def shown_heatmaps(run: Run, settings: RunSettings, explained: Sequence[Explained]) -> Pictures:
    """Small pictures of the heatmaps that a page shows."""
    pictures: Pictures = {}
    for members in list(chosen(explained).values())[:MOST_AIMS]:
        for one in members:
            folder = run.heatmap(train_name(settings), one.slide_id)
            picture = small(folder / one.picture, HEATMAP_PX)
            if picture is not None:
                pictures[one.key] = picture, small(folder / one.sheet, TILES_PX) if one.sheet else None
    return pictures
