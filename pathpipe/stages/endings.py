"""How each slide of a run ended, from its receipts and artefacts: what views of a run show."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pathpipe.errors import StoreError
from pathpipe.report.entry import SlideEntry
from pathpipe.run import Run
from pathpipe.tiles.table import read_tiles
from pathpipe.tissue.polygons import read_tissue
from pathpipe.tissue.suspicion import suspicion

T = TypeVar("T")


def ending(run: Run, slide_id: str, stages: Sequence[str]) -> tuple[str, str, str, str]:
    """(state, stage, reason, hint) of a slide: the first of the stages that didn't go well."""
    for stage in stages:
        try:
            receipt = json.loads(run.receipt(stage, slide_id).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if receipt["state"] in ("failed", "stale", "empty"):
            return receipt["state"], stage, shortened(run, slide_id, receipt["reason"]), receipt["hint"] or ""
    return "done", "", "", ""


def shortened(run: Run, key: str, reason: str | None) -> str:
    """A reason without the folders that files lie in: views say the same wherever a run is."""
    slide = next((one for one in run.cohort.slides if one.slide_id == key), None)
    for folder in ([slide.path.parent] if slide else []) + [run.folder]:
        reason = (reason or "").replace(f"{folder}/", "")
    return reason or ""


def slide_entry(run: Run, slide_id: str, columns: Sequence[str], stages: Sequence[str]) -> SlideEntry:
    """A slide with its numbers, without its picture.

    Args:
        columns: Cohort columns whose values are shown with it.
        stages: The stages that count.
    """
    row = run.cohort[slide_id]
    state, stage, reason, hint = ending(run, slide_id, stages)
    tissue, tiles = _there(read_tissue, run.tissue(slide_id)), _there(read_tiles, run.tiles(slide_id))
    return SlideEntry(
        slide_id=slide_id,
        patient_id=row.patient_id,
        label=" / ".join((row.labels or {}).get(name, "") for name in columns),
        state=state,
        stage=stage,
        reason=reason,
        hint=hint,
        tiles=len(tiles.grid.xy0) if tiles else None,
        tissue_mm2=tissue.area_um2 / 1e6 if tissue else None,
        mpp=f"{tissue.mpp.mean:.4g} ({tissue.mpp.source})" if tissue else "",
        flags=tissue.flags if tissue else (),
        doubt=suspicion(tissue) if tissue else 0.0,
    )


def _there(read: Callable[[Path], T], path: Path) -> T | None:
    """What a file holds; None where there is none or it is damaged, which its stage has said of it."""
    try:
        return read(path) if path.exists() else None
    except StoreError:
        return None
