"""Stage `tissue`: where the tissue of one slide is, as GeoJSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pathpipe.errors import MissingError, SlideError
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.slides.identity import is_there, slide_fingerprint
from pathpipe.slides.open import refuse_unknown_reader
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.stages.opening import opened
from pathpipe.stages.stage import READERS, Job, Made, Stage, sections
from pathpipe.tissue.given import find_tissue, given_digest, origin0, refuse_foreign, refuse_useless_folder
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.method import tissue_method
from pathpipe.tissue.polygons import read_tissue, write_tissue


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The slide's own fingerprint; the recorded one when the slide has been archived away since."""
    slide = run.cohort[key]
    made = read_provenance(run.tissue(key))
    try:
        digest = slide_fingerprint(slide.path)
    except SlideError:
        if made is None or is_there(slide.path):
            raise
        digest = made.inputs["slide"]
    known = {"slide": digest, "mpp": "" if slide.mpp is None else repr(slide.mpp)}
    method = _method_fingerprint(settings, made)
    known = {**known, "method": method} if method else known
    given = given_digest(settings.tissue.mask_dir, key, made.inputs.get("mask") if made else None)
    return known if given is None else {**known, "mask": given}


def _method_fingerprint(settings: RunSettings, made: Provenance | None) -> str:
    """Of the way of finding tissue; where its file is out of reach, the one recorded in tissue that is there."""
    try:
        return tissue_method(settings.tissue.method, settings.tissue.method_settings).fingerprint()
    except MissingError:
        if made is None or "method" not in made.inputs:
            raise
        return made.inputs["method"]


def make(job: Job) -> Made:
    """Segment one slide, or take the outlines given for it."""
    refuse_foreign(job.run.tissue(job.key))
    row = job.run.cohort[job.key]
    with opened(row, job.settings) as slide:
        mpp = resolve_mpp(slide, row.mpp, job.settings.slide.mpp_policy)
        mask = find_tissue(job.key, slide, mpp, job.settings.tissue)
        write_tissue(job.target, mask, job.provenance, origin0(slide, job.settings.tissue))
    return _made(mask)


def check(path: Path) -> Made:
    """Read the polygons back."""
    return _made(read_tissue(path))


def _made(mask: TissueMask) -> Made:
    counts = {"tissue_mm2": round(mask.area_um2 / 1e6, 4)}
    if mask.empty_reason:
        return Made("empty", mask.empty_reason, counts)
    given = ["outlines as given"] if mask.method == "given" else []
    return Made("done", "; ".join([*given, *mask.flags]) or None, counts)


def preflight(run: Run, settings: RunSettings) -> None:
    """Refuse what would fail every slide that is still to be done."""
    slides = [slide.slide_id for slide in run.cohort.slides]
    refuse_tissue_settings(slides, settings, made=all(run.tissue(slide_id).exists() for slide_id in slides))


def refuse_tissue_settings(slides: Sequence[str], settings: RunSettings, made: bool) -> None:
    """Reader and way of finding tissue are there and can do it; a folder of outlines holds some for this cohort.

    Args:
        made: Whether nothing is left to do, so that only names have to be right.

    Raises:
        SettingsError: They aren't.
    """
    method = tissue_method(settings.tissue.method, settings.tissue.method_settings)
    if not made:
        refuse_unknown_reader(settings.slide.reader)
        method.preflight(settings.tissue.mpp)
    refuse_useless_folder(settings.tissue.mask_dir, "--mask-dir", slides, made)


STAGE = Stage(
    name="tissue",
    version=3,
    packages=("numpy", "opencv-python-headless", *READERS),
    what=sections("slide", "tissue"),
    inputs=inputs,
    output=lambda run, key, settings: run.tissue(key),
    make=make,
    check=check,
    preflight=preflight,
)
