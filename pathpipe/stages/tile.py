"""Stage `tile`: the grid of one slide, as a tile table and a picture to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pathpipe.errors import StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.publish import publish
from pathpipe.run import Run
from pathpipe.settings import RunSettings, TileSettings
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.stages.opening import opened
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.foreign import coords_fingerprint, find_coords, lay_foreign, refuse_useless_coords
from pathpipe.tiles.grid import TileGrid, make_grid
from pathpipe.tiles.plan import plan_read
from pathpipe.tiles.table import TileTable, read_tiles, write_tiles
from pathpipe.tissue.given import given_digest, origin0, refuse_useless_folder
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.overlay import draw_overlay
from pathpipe.tissue.polygons import outlines_fingerprint, read_tissue
from pathpipe.tissue.rois import Rois, read_rois

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
    if settings.coords_dir is not None:
        known["coords"] = _coords_digest(Path(settings.coords_dir), key, before)
    return known


def _coords_digest(folder: Path, key: str, before: Provenance | None) -> str:
    """Of a slide's coordinate file; the recorded one where the whole folder has been archived away since."""
    if not folder.is_dir() and before is not None and "coords" in before.inputs:
        return before.inputs["coords"]
    return coords_fingerprint(find_coords(folder, key))


def make(job: Job) -> Made:
    """Lay the grid and draw it."""
    row = job.run.cohort[job.key]
    mask = read_tissue(job.run.tissue(job.key))
    with opened(row, job.settings) as slide:
        mpp = resolve_mpp(slide, row.mpp, job.settings.slide.mpp_policy)
        rois = read_rois(job.key, job.settings.tile, origin0(slide, job.settings.tissue))
        grid, warning = lay_grid(job.key, slide, mpp, mask, rois, job.settings.tile)
        facts = SlideFacts(job.key, slide.size0, slide.levels[grid.plan.level].size_px)
        write_tiles(job.target, TileTable(grid, facts), job.provenance)
        _draw(job, slide, mask, grid, rois)
    return replace(_made(grid), reason=grid.empty_reason or warning)


def lay_grid(
    slide_id: str, slide: Slide, mpp: Mpp, mask: TissueMask, rois: Rois | None, settings: TileSettings
) -> tuple[TileGrid, str | None]:
    """The grid of a slide, laid or as given, and what a person should know of it."""
    if settings.coords_dir is None:
        return make_grid(slide, plan_read(slide, mpp, settings), mask, settings, rois), None
    found = lay_foreign(find_coords(Path(settings.coords_dir), slide_id), slide, mpp, mask, settings, rois)
    x, y = found.grid.plan.mpp_effective
    if max(abs(x / settings.mpp - 1), abs(y / settings.mpp - 1)) < 0.02:
        return found.grid, None
    return found.grid, f"tiles have {(x * y) ** 0.5:.4g} um/px as their {found.layout} file says, not {settings.mpp:g}"


def check(path: Path) -> Made:
    """Read the table back."""
    return _made(read_tiles(path).grid)


def _draw(job: Job, slide: Slide, mask: TissueMask, grid: TileGrid, rois: Rois | None) -> None:
    picture = draw_overlay(slide, mask, grid.xy0, grid.plan.side0, OVERLAY_PX, rois)
    with publish(job.run.overlay(job.key), job.claim) as partial:
        partial.write_bytes(picture)


def preflight(run: Run, settings: RunSettings) -> None:
    """Refuse what would fail every slide that is still to be done."""
    slides = [slide.slide_id for slide in run.cohort.slides]
    refuse_tile_settings(slides, settings, made=all(run.tiles(slide_id).exists() for slide_id in slides))


def refuse_tile_settings(slides: Sequence[str], settings: RunSettings, made: bool) -> None:
    """Folders of regions and coordinates are there and hold some for this cohort.

    Args:
        made: Whether nothing is left to do.

    Raises:
        SettingsError: They aren't.
    """
    refuse_useless_folder(settings.tile.include, "--include", slides, made)
    refuse_useless_folder(settings.tile.exclude, "--exclude", slides, made)
    if settings.tile.coords_dir is not None and not made:
        refuse_useless_coords(Path(settings.tile.coords_dir), slides)


def _made(grid: TileGrid) -> Made:
    counts = {"tiles": len(grid.xy0)}
    return Made("empty", grid.empty_reason, counts) if grid.empty_reason else Made("done", None, counts)


STAGE = Stage(
    name="tile",
    version=2,
    packages=("numpy", "h5py"),
    what=sections("slide", "tile"),
    inputs=inputs,
    output=lambda run, key, settings: run.tiles(key),
    make=make,
    check=check,
    preflight=preflight,
)
