"""Plan: what `tile` and `extract` would make of each slide. Not a stage: it writes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathpipe.cohort import SlideRow
from pathpipe.errors import PathpipeError, SlideError
from pathpipe.settings import RunSettings
from pathpipe.slides.identity import series_uid, slide_fingerprint
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.stages.opening import opened
from pathpipe.stages.tile import lay_grid, refuse_tile_settings
from pathpipe.stages.tissue import refuse_tissue_settings
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.plan import TOLERANCE, ReadPlan, plan_read
from pathpipe.tissue.given import find_tissue, origin0
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.rois import read_rois

SAMPLE = 16  # tiles in a row that a probe reads of one slide
MAX_ERROR = 0.02
MAX_SPREAD = 0.02  # slides whose um/px differ by less count as one resolution

# kind -> meaning of every conflict; docs/formats.md shows the same table and a test compares
CONFLICTS: dict[str, str] = {
    "unreadable": "the slide can't be opened or read",
    "resolution": "it states no um/px, or one that can't be true",
    "too coarse": "it would have to be enlarged by more than `--max-upsample`",
    "enlarged": "it would be enlarged by more than 1% in a cohort of several resolutions",
    "mpp error": "its tiles would miss the um/px asked for by more than 2%",
    "duplicate": "the same content as another slide",
    "given": "outlines, regions or coordinates given for it can't be used",
}


@dataclass(frozen=True)
class Conflict:
    """A reason to look at a slide before a cohort is worked on; `kind` is a key of `CONFLICTS`."""

    slide_id: str
    kind: str
    reason: str
    hint: str | None = None


@dataclass(frozen=True)
class SlidePlan:
    """What is known of a slide, as far as it could be found out.

    Attributes:
        series: What the files of a DICOM slide have in common.
        levels: Size of each level, (width, height) px.
        tissue_um2: Area of tissue.
        tiles: How many tiles it will have, exactly.
        empty_reason: Why it will have none.
        flags: Sentences about its tissue that a person should read.
        sample: Up to `SAMPLE` corners of neighbouring tiles, level-0 px.
        seconds: What finding this out took.
        conflict: What is in the way; whatever comes after it is unknown.
    """

    slide_id: str
    path: str
    fingerprint: str | None = None
    series: str | None = None
    reader: str | None = None
    vendor: str | None = None
    levels: tuple[tuple[int, int], ...] = ()
    mpp: Mpp | None = None
    read: ReadPlan | None = None
    tissue_um2: float | None = None
    tiles: int | None = None
    empty_reason: str | None = None
    flags: tuple[str, ...] = ()
    sample: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0
    conflict: Conflict | None = None

    @property
    def enlarged(self) -> float:
        """How many times a pixel is enlarged: 1 where tiles are shrunk or kept."""
        return 1.0 if self.read is None else max(1.0, max(self.read.mpp0) / self.read.mpp_wanted)


def refuse_settings(slide_ids: Sequence[str], settings: RunSettings) -> None:
    """Raise now what would fail every slide.

    Raises:
        SettingsError: A name or option that doesn't exist, or a folder that holds nothing for this cohort.
    """
    refuse_tissue_settings(slide_ids, settings, made=False)
    refuse_tile_settings(slide_ids, settings, made=False)


def plan_slide(row: SlideRow, settings: RunSettings) -> SlidePlan:
    """Plan one slide: nothing is read but a thumbnail, and nothing is written.

    Raises:
        OSError: The disk fails. What is wrong with the slide itself is in `conflict`.
    """
    started = time.monotonic()
    known: dict[str, Any] = {}
    conflict = _find_out(row, settings, known)
    return SlidePlan(row.slide_id, str(row.path), **known, conflict=conflict, seconds=time.monotonic() - started)


def _find_out(row: SlideRow, settings: RunSettings, known: dict[str, Any]) -> Conflict | None:
    """Fill `known` step by step; the conflict is of the kind that its step can meet."""
    kind = "unreadable"
    try:
        with opened(row, settings) as slide:
            known["fingerprint"] = slide_fingerprint(row.path)
            known["series"] = series_uid(slide)
            known["reader"], known["vendor"] = slide.reader, slide.vendor
            known["levels"] = tuple(level.size_px for level in slide.levels)
            kind = "resolution"
            mpp = known["mpp"] = resolve_mpp(slide, row.mpp, settings.slide.mpp_policy)
            kind = "too coarse"
            if settings.tile.coords_dir is None:
                known["read"] = plan_read(slide, mpp, settings.tile)
            kind = "unreadable"
            mask = find_tissue(row.slide_id, slide, mpp, settings.tissue)
            kind = "given"
            known.update(_count(row.slide_id, slide, mpp, mask, settings))
    except PathpipeError as error:
        here = error.where in (row.path.name, str(row.path), getattr(row.path, "shown", None))
        kind = kind if isinstance(error, SlideError) else "given"
        return Conflict(row.slide_id, kind, error.what if here else error.reason, error.hint)
    return None


def _count(slide_id: str, slide: Slide, mpp: Mpp, mask: TissueMask, settings: RunSettings) -> dict[str, Any]:
    """What the stage `tile` would find, by the functions it calls itself; no pixel is read."""
    rois = read_rois(slide_id, settings.tile, origin0(slide, settings.tissue))
    grid, remark = lay_grid(slide_id, slide, mpp, mask, rois, settings.tile)
    return {
        "read": grid.plan,
        "tissue_um2": mask.area_um2,
        "tiles": len(grid.xy0),
        "empty_reason": grid.empty_reason,
        "flags": (*mask.flags, remark) if remark else mask.flags,
        "sample": _sample(slide, grid),
    }


def _sample(slide: Slide, grid: TileGrid) -> tuple[tuple[int, int], ...]:
    """A run of neighbours, as the stream of tiles reads them, at a place that depends on the slide alone."""
    last = max(0, len(grid.xy0) - SAMPLE)
    first = int(np.random.default_rng([*slide.size0, len(grid.xy0)]).integers(last + 1))
    return tuple((int(x), int(y)) for x, y in grid.xy0[first : first + SAMPLE])


def find_conflicts(plans: Sequence[SlidePlan]) -> list[Conflict]:
    """Everything that is in the way of a cohort, in the order of its slides."""
    first: dict[str, str] = {}
    mpps = [plan.mpp.mean for plan in plans if plan.mpp is not None and plan.read is not None]
    mixed = bool(mpps) and max(mpps) / min(mpps) > 1 + MAX_SPREAD
    found = []
    for plan in plans:
        if plan.conflict is not None:
            found.append(plan.conflict)
        found += _of_reading(plan, mixed)
        if (content := plan.series or plan.fingerprint) is not None:
            other = first.setdefault(content, plan.slide_id)
            if other != plan.slide_id:
                same = "is a file of the same DICOM series as" if plan.series else "has the same content as"
                hint = "leave one of them out: a slide that counts twice can lie in training and test at once"
                found.append(Conflict(plan.slide_id, "duplicate", f"{same} {other}", hint))
    return found


def _of_reading(plan: SlidePlan, mixed: bool) -> list[Conflict]:
    if plan.read is None:
        return []
    found = []
    if mixed and plan.enlarged > 1 + TOLERANCE:
        worst = max(plan.read.mpp0)
        reason = (
            f"has {worst:.4g} um/px: its tiles would be enlarged {plan.enlarged:.2f} times, those of other slides not "
            "or otherwise"
        )
        hint = f"ask for `--mpp {worst:.4g}` or coarser, or leave it out: enlarged tiles are blurred"
        found.append(Conflict(plan.slide_id, "enlarged", reason, hint))
    if plan.read.error > MAX_ERROR:
        effective = " x ".join(f"{value:.4g}" for value in plan.read.mpp_effective)
        reason = f"its tiles would have {effective} um/px, {plan.read.error:.1%} off the {plan.read.mpp_wanted:g}"
        hint = "ask for larger tiles: a read of so few pixels can't be rounded to that um/px"
        found.append(Conflict(plan.slide_id, "mpp error", reason, hint))
    return found
