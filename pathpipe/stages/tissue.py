"""Stage `tissue`: where the tissue of one slide is, as GeoJSON."""

from __future__ import annotations

from pathlib import Path

from pathpipe.errors import SlideError
from pathpipe.provenance import read_provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.slides.identity import slide_fingerprint
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.tissue.given import find_tissue, given_digest, origin0, refuse_foreign, refuse_useless_folder
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.polygons import read_tissue, write_tissue


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The slide's own fingerprint; the recorded one when the slide has been archived away since."""
    slide = run.cohort[key]
    made = read_provenance(run.tissue(key))
    if not slide.path.exists():
        if made is None:
            raise SlideError("there is no such file", where=str(slide.path), hint="correct `path` in the cohort table")
        digest = made.inputs["slide"]
    else:
        digest = slide_fingerprint(slide.path)
    known = {"slide": digest, "mpp": "" if slide.mpp is None else repr(slide.mpp)}
    given = given_digest(settings.tissue.mask_dir, key, made.inputs.get("mask") if made else None)
    return known if given is None else {**known, "mask": given}


def make(job: Job) -> Made:
    """Segment one slide, or take the outlines given for it."""
    refuse_foreign(job.run.tissue(job.key))
    row = job.run.cohort[job.key]
    with open_slide(row.path, job.settings.slide.reader) as slide:
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
    """A folder of outlines is there and holds some for this cohort."""
    slides = [slide.slide_id for slide in run.cohort.slides]
    made = all(run.tissue(slide_id).exists() for slide_id in slides)
    refuse_useless_folder(settings.tissue.mask_dir, "--mask-dir", slides, made)


STAGE = Stage(
    name="tissue",
    version=2,
    packages=("numpy", "opencv-python-headless", "openslide-python", "openslide-bin", "tiffslide"),
    what=sections("slide", "tissue"),
    inputs=inputs,
    output=lambda run, key, settings: run.tissue(key),
    make=make,
    check=check,
    preflight=preflight,
)
