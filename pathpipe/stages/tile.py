"""Stage `tile`: the grid of one slide, as a tile table and a picture to look at."""

from __future__ import annotations

from pathlib import Path

from pathpipe.errors import StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import read_provenance
from pathpipe.publish import publish
from pathpipe.run import Run
from pathpipe.settings import RunSettings, TileSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.slides.slide import Slide
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.grid import TileGrid, make_grid
from pathpipe.tiles.plan import plan_read
from pathpipe.tiles.table import TileTable, read_tiles, write_tiles
from pathpipe.tissue.given import given_digest, origin0, refuse_useless_folder
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.overlay import draw_overlay
from pathpipe.tissue.polygons import outlines_fingerprint, read_tissue
from pathpipe.tissue.rois import read_rois

OVERLAY_PX = 1400


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The slide, as the tissue stage knew it, the tissue, as edited, and the regions given for it."""
    made = read_provenance(run.tissue(key))
    if made is None:
        raise StoreError("there are no tissue polygons", where=str(run.tissue(key)), hint="run `pathpipe tile` again")
    edited = outlines_fingerprint(run.tissue(key))
    tissue = made.fingerprint if edited is None else fingerprint([made.fingerprint, edited])
    return {**made.inputs, "tissue": tissue, **_given(run, key, settings.tile)}


def _given(run: Run, key: str, settings: TileSettings) -> dict[str, str]:
    before = read_provenance(run.tiles(key))
    known = {}
    for name, folder in (("include", settings.include), ("exclude", settings.exclude)):
        digest = given_digest(folder, key, before.inputs.get(name) if before else None)
        if folder is not None:
            known[name] = digest or ""
    return known


def make(job: Job) -> Made:
    """Lay the grid and draw it."""
    row = job.run.cohort[job.key]
    mask = read_tissue(job.run.tissue(job.key))
    with open_slide(row.path, job.settings.slide.reader) as slide:
        mpp = resolve_mpp(slide, row.mpp, job.settings.slide.mpp_policy)
        plan = plan_read(slide, mpp, job.settings.tile)
        rois = read_rois(job.key, job.settings.tile, origin0(slide, job.settings.tissue))
        grid = make_grid(slide, plan, mask, job.settings.tile, rois)
        facts = SlideFacts(job.key, slide.size0, slide.levels[plan.level].size_px)
        write_tiles(job.target, TileTable(grid, facts), job.provenance)
        _draw(job, slide, mask, grid)
    return _made(grid)


def check(path: Path) -> Made:
    """Read the table back."""
    return _made(read_tiles(path).grid)


def _draw(job: Job, slide: Slide, mask: TissueMask, grid: TileGrid) -> None:
    picture = draw_overlay(slide, mask, grid.xy0, grid.plan.side0, width_px=OVERLAY_PX)
    with publish(job.run.overlay(job.key)) as partial:
        partial.write_bytes(picture)


def preflight(run: Run, settings: RunSettings) -> None:
    """Folders of regions are there and hold some for this cohort."""
    slides = [slide.slide_id for slide in run.cohort.slides]
    made = all(run.tiles(slide_id).exists() for slide_id in slides)
    refuse_useless_folder(settings.tile.include, "--include", slides, made)
    refuse_useless_folder(settings.tile.exclude, "--exclude", slides, made)


def _made(grid: TileGrid) -> Made:
    counts = {"tiles": len(grid.xy0)}
    return Made("empty", grid.empty_reason, counts) if grid.empty_reason else Made("done", None, counts)


STAGE = Stage(
    name="tile",
    version=1,
    packages=("numpy", "h5py"),
    what=sections("slide", "tile"),
    inputs=inputs,
    output=lambda run, key, settings: run.tiles(key),
    make=make,
    check=check,
    preflight=preflight,
)
