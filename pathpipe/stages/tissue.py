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
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.polygons import read_tissue, write_tissue
from pathpipe.tissue.segment import segment


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
    return {"slide": digest, "mpp": "" if slide.mpp is None else repr(slide.mpp)}


def make(job: Job) -> Made:
    """Segment one slide."""
    row = job.run.cohort[job.key]
    with open_slide(row.path, job.settings.slide.reader) as slide:
        mpp = resolve_mpp(slide, row.mpp, job.settings.slide.mpp_policy)
        mask = segment(slide, mpp, job.settings.tissue)
    write_tissue(job.target, mask, job.provenance)
    return _made(mask)


def check(path: Path) -> Made:
    """Read the polygons back."""
    return _made(read_tissue(path))


def _made(mask: TissueMask) -> Made:
    counts = {"tissue_mm2": round(mask.area_um2 / 1e6, 4)}
    if mask.empty_reason:
        return Made("empty", mask.empty_reason, counts)
    return Made("done", "; ".join(mask.flags) or None, counts)


STAGE = Stage(
    name="tissue",
    version=2,
    packages=("numpy", "opencv-python-headless", "openslide-python", "openslide-bin", "tiffslide"),
    what=sections("slide", "tissue"),
    inputs=inputs,
    output=lambda run, key, settings: run.tissue(key),
    make=make,
    check=check,
)
