"""Facts: a run's slides as a list, and all that a page says of one slide, JSON-able."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pathpipe.cohort import SlideRow
from pathpipe.errors import PathpipeError, SlideError
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.slides.slide import Slide
from pathpipe.view.deepzoom import DeepZoom
from pathpipe.view.layers import score_names
from pathpipe.view.predictions import Said, read_said

SCORES, SUMMARY = "scores.csv", "summary.json"
_STAGES = ("tissue", "tile", "extract", "heatmap")


def run_facts(run: Run) -> dict[str, Any]:
    """Every slide with its patient, labels, trouble, and what models said of the patient in a word."""
    try:
        said, problem = read_said(run), None
    except PathpipeError as error:
        said, problem = {}, error.reason
    return {
        "name": run.folder.resolve().name,
        "models": list(said),
        "problem": problem,
        "slides": [_entry(run, row, said) for row in run.cohort.slides],
    }


def _entry(run: Run, row: SlideRow, said: dict[str, Said]) -> dict[str, Any]:
    calls = {model: patients[row.patient_id] for model, patients in said.items() if row.patient_id in patients}
    return {
        "id": row.slide_id,
        "patient": row.patient_id,
        "site": row.site or "",
        "labels": dict(row.labels or {}),
        "trouble": _trouble(run, row.slide_id),
        "said": {model: {"predicted": one["predicted"], "right": one["right"]} for model, one in calls.items()},
    }


def _trouble(run: Run, slide_id: str) -> str:
    """Why a stage failed on a slide or found nothing; empty where all went well."""
    for stage in _STAGES:
        try:
            receipt = json.loads(run.receipt(stage, slide_id).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # never tried, or nobody's loss: truth is the artefacts
            continue
        if receipt.get("state") in ("failed", "empty"):
            return f"{receipt['state']} in {stage}: {receipt.get('reason') or ''}"
    return ""


def slide_facts(run: Run, row: SlideRow, slide: Slide, settings: RunSettings) -> dict[str, Any]:
    """What a page needs to show a slide: pixels, resolution, who reads it, its layers, what models said."""
    deepzoom = DeepZoom(slide.size0)
    return {
        "id": row.slide_id,
        "patient": row.patient_id,
        "size0": list(slide.size0),
        "tile_px": deepzoom.tile_px,
        "overlap_px": deepzoom.overlap_px,
        "top": deepzoom.top,
        "bounds": [slide.bounds.x0, slide.bounds.y0, slide.bounds.w, slide.bounds.h] if slide.bounds else None,
        "file": slide.path.name,
        "reader": slide.reader,
        "vendor": slide.vendor,
        "objective": slide.objective,
        "levels": [list(level.size_px) for level in slide.levels],
        "mpp": _mpp(row, slide, settings),
        "layers": {
            "tissue": run.tissue(row.slide_id).exists(),
            "tiles": run.tiles(row.slide_id).exists(),
            "truth": row.truth is not None,
            "heat": heat_facts(run, row.slide_id),
        },
        "predictions": _predictions(run, row),
    }


def heat_facts(run: Run, slide_id: str) -> dict[str, dict[str, Any]]:
    """Trained model -> names of the scores there are of this slide, and the numbers beside them."""
    parent = run.folder / "heatmaps"
    names = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    found = {}
    for name in names:
        folder = run.heatmap(name, slide_id)
        scores = score_names(folder / SCORES)
        if scores:
            summary = _read(folder / SUMMARY)
            kind = summary.get("score")
            found[name] = {"scores": scores, "kind": kind if isinstance(kind, str) else "score"}
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _mpp(row: SlideRow, slide: Slide, settings: RunSettings) -> dict[str, Any]:
    try:
        mpp = resolve_mpp(slide, row.mpp, settings.slide.mpp_policy)
    except SlideError as error:
        return {"x": None, "y": None, "source": error.what}
    return {"x": mpp.x, "y": mpp.y, "source": mpp.source}


def _predictions(run: Run, row: SlideRow) -> dict[str, Any]:
    try:
        said = read_said(run)
    except PathpipeError:  # the list of slides says what is wrong with it
        return {}
    return {model: patients[row.patient_id] for model, patients in said.items() if row.patient_id in patients}
