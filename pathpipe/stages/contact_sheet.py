"""Stage `contact-sheet`: every slide of the cohort on one picture, also those that failed."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from pathpipe.errors import StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import read_provenance
from pathpipe.publish import publish
from pathpipe.report.contact_sheet import PICTURE_PX, draw_page, pages, sheet_title
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.endings import ending, slide_entry
from pathpipe.stages.stage import Job, Made, Stage

STAGES = ("tissue", "tile")


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """Every tile table and how each slide ended."""
    known = {}
    for slide in run.cohort.slides:
        made = read_provenance(run.tiles(slide.slide_id))
        known[slide.slide_id] = [made.fingerprint if made else "", *ending(run, slide.slide_id, STAGES)]
    return {"slides": fingerprint(known)}


def make(job: Job) -> Made:
    """Draw page by page; the first is the artefact, the others lie beside it."""
    run = job.run
    entries = [slide_entry(run, slide.slide_id, (), STAGES) for slide in run.cohort.slides]
    sheets = pages(entries)
    title = sheet_title(entries)
    for number, sheet in enumerate(sheets, start=1):
        page = f" · page {number} of {len(sheets)}" if len(sheets) > 1 else ""
        picture = draw_page(sheet, title + page, lambda slide_id: _overlay(run.overlay(slide_id)))
        comment = json.dumps({"pages": len(sheets), "provenance": job.provenance.to_dict()})
        if number == 1:
            picture.save(job.target, "JPEG", quality=85, comment=comment)
            continue
        with publish(run.contact_sheet(number), job.claim) as partial:
            picture.save(partial, "JPEG", quality=85, comment=comment)
    number = len(sheets) + 1
    while run.contact_sheet(number).exists():  # left by a larger cohort
        run.contact_sheet(number).unlink()
        number += 1
    return Made(counts={"slides": len(entries)})


def _overlay(path: Path) -> Image.Image | None:
    """A slide's overlay without its footer, decoded no larger than it is needed."""
    try:
        with Image.open(path) as picture:
            full = picture.size
            comment = picture.info.get("comment", b"").decode("ascii", "replace")
            picture.draft("RGB", PICTURE_PX)
            small = picture.convert("RGB")
    except OSError:
        return None
    width, _, height = comment.partition("x")
    if not (width.isdigit() and height.isdigit()):
        return small
    scale = small.width / full[0]
    left = (full[0] - int(width)) / 2
    return small.crop((round(left * scale), 0, round((left + int(width)) * scale), round(int(height) * scale)))


def check(path: Path) -> Made:
    """It says what made it, and all of its pages are there."""
    try:
        with Image.open(path) as picture:
            content = json.loads(picture.info["comment"])
            picture.load()
        wanted = [path.with_name(Run.page_name(number)) for number in range(2, content["pages"] + 1)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"isn't a contact sheet of pathpipe, or is damaged ({error!r})", where=str(path)) from None
    if missing := [page.name for page in wanted if not page.exists()]:
        raise StoreError(f"its page {missing[0]} is missing", where=str(path))
    return Made()


STAGE = Stage(
    name="contact-sheet",
    version=1,
    packages=("pillow", "numpy", "matplotlib"),
    what=lambda settings: {},
    inputs=inputs,
    output=lambda run, key, settings: run.contact_sheet(1),
    make=make,
    check=check,
    view=True,
)
