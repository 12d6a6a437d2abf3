"""The demo cohort: small pyramidal slides of real pixels, half of them with regions of another tissue set in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pathpipe.publish import publish, publish_text
from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.samples.painting import Image, Painting, Polygon, Recipe, paint
from pathpipe.slides.open import open_slide
from pathpipe.slides.writer import shrink, write_svs

PATIENTS = 24
TWO_SLIDES = (3, 8)  # patients with a second slide: one of each label
BLANK_PATIENT = 20
PEN_PATIENT = 6
MPPS = (0.499, 0.2528, 0.499, 0.3417)  # not round on purpose: real scanners aren't
_BUNDLED_MPP = 0.499


def build_demo_cohort(folder: Path, notify: Callable[[int, int], None], seed: int = 0) -> Path:
    """Write slides, truth polygons and the table of the demo cohort.

    Slides that are there already are kept: each is a function of `seed` and its number alone.

    Args:
        folder: Gets `slides/*.svs`, `truth/*.geojson` and `cohort.csv`.
        notify: Called with (slides done, slides in all).

    Returns:
        The path of the table: slide_id, path, patient_id, site, truth, implant (`absent` or `present`).
    """
    plans = _plans()
    tissue, other = _textures()
    rows = []
    for number, (slide_id, patient, recipe) in enumerate(plans):
        slide = folder / "slides" / f"{slide_id}.svs"
        truth = folder / "truth" / f"{slide_id}.geojson"
        if not (slide.exists() and truth.exists()):
            mpp = MPPS[number % len(MPPS)]
            rng = np.random.default_rng([seed, number])
            painting = paint(recipe, _at(tissue, mpp), _at(other, mpp), mpp, rng)
            _write(slide, truth, painting, mpp, recipe.foreign)
        rows.append(
            {
                "slide_id": slide_id,
                "path": slide.relative_to(folder).as_posix(),
                "patient_id": f"P{patient:02d}",
                "site": f"site-{'ABC'[patient % 3]}",
                "truth": truth.relative_to(folder).as_posix(),
                "implant": "present" if recipe.foreign else "absent",
            }
        )
        notify(number + 1, len(plans))
    table = folder / "cohort.csv"
    publish_text(table, pd.DataFrame(rows).to_csv(index=False))
    return table


def _plans() -> list[tuple[str, int, Recipe]]:
    rng = np.random.default_rng(20)
    plans = []
    for patient in range(1, PATIENTS + 1):
        foreign = patient % 2 == 1
        for part in "ab" if patient in TWO_SLIDES else "a":
            size_um = (float(rng.uniform(1000, 1300)), float(rng.uniform(850, 1050)))
            recipe = Recipe(
                size_um,
                implants=int(rng.integers(1, 4)),
                foreign=foreign,
                blank=patient == BLANK_PATIENT,
                pen=patient == PEN_PATIENT,
            )
            plans.append((f"D{patient:02d}{part}", patient, recipe))
    return plans


def _textures() -> tuple[Image, Image]:
    """The bundled H&E slide and scikit-image's IHC picture, both taken as 0.499 um/px."""
    from skimage.data import immunohistochemistry

    with open_slide(BUNDLED_SLIDE) as slide:
        tissue = slide.read((780, 1740), 0, (900, 1200))  # tissue to the edges: no bare glass inside
    return tissue, np.ascontiguousarray(immunohistochemistry()[..., :3])


def _at(image: Image, mpp: float) -> Image:
    if mpp == _BUNDLED_MPP:
        return image
    factor = _BUNDLED_MPP / mpp
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def _write(slide: Path, truth: Path, painting: Painting, mpp: float, foreign: bool) -> None:
    outlines = painting.implants if foreign else ()
    publish_text(truth, json.dumps(_geojson(outlines)) + "\n")
    with publish(slide) as partial:
        levels = [painting.image, shrink(painting.image, 4)]
        write_svs(partial, levels, mpp, objective=20 if mpp > 0.4 else 40)


def _geojson(outlines: tuple[Polygon, ...]) -> dict[str, object]:
    features = [
        {
            "type": "Feature",
            "properties": {"objectType": "annotation", "classification": {"name": "implant"}},
            "geometry": {
                "type": "Polygon",
                "coordinates": [np.round(np.vstack([outline, outline[:1]]), 1).tolist()],
            },
        }
        for outline in outlines
    ]
    return {"type": "FeatureCollection", "features": features}
