"""Stage `explanations`: whether the explanations of a cohort hold, with intervals by patient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pathpipe.errors import StoreError
from pathpipe.explain.cohort import Measured, summarise
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import train_name, units
from pathpipe.stages.heatmap import read_summary
from pathpipe.stages.stage import Job, Made, Stage

FILE = "explanations.json"
COLUMNS = ("of the explanations", "mean", "low", "high", "patients")


def what(settings: RunSettings) -> dict[str, Any]:
    """How intervals are made."""
    return {"evaluate": settings.evaluate.model_dump(mode="json", include={"bootstrap", "confidence", "seed"})}


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """Every heatmap."""
    made = {
        slide_id: one.fingerprint
        for slide_id in units(run, "heatmap", settings)
        if (one := read_provenance(run.heatmap(train_name(settings), slide_id))) is not None
    }
    return {"heatmaps": fingerprint(made)}


def make(job: Job) -> Made:
    """Gather what the heatmaps say of themselves."""
    settings = job.settings.evaluate
    rows = summarise(list(_measured(job)), settings.bootstrap, settings.confidence, settings.seed)
    content = {
        "name": train_name(job.settings),
        "confidence": settings.confidence,
        "rows": [row.to_dict() for row in rows],
    }
    job.target.mkdir()
    publish_json(job.target / FILE, content)
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return check(job.target)


def _measured(job: Job) -> Iterator[Measured]:
    """Slide by slide, of what is explained first."""
    name = train_name(job.settings)
    for slide_id in units(job.run, "heatmap", job.settings):
        folder = job.run.heatmap(name, slide_id)
        if not folder.exists() or (summary := read_summary(folder)).get("empty_reason"):
            continue
        first = summary["explained"][0]
        numbers: dict[str, float] = {}
        for curve in ("deletion", "insertion"):
            if first["curves"] is not None:
                numbers[f"{curve}, gain over random order"] = first["curves"][curve]["gain"]
        for kind, share in first["artefacts"].items():
            numbers[f"score on artefacts ({kind}), beyond their area"] = share["score"] - share["area"]
        if first["score_in_truth"] is not None:
            numbers["score inside the truth, beyond its area"] = first["score_in_truth"] - first["area_in_truth"]
        if first["instance_auroc"] is not None:
            numbers["AUROC of tiles inside the truth"] = first["instance_auroc"]
        yield Measured(job.run.cohort[slide_id].patient_id, numbers)


def read_explanations(path: Path) -> dict[str, Any]:
    """The summary of a cohort.

    Raises:
        StoreError: It is damaged.
    """
    try:
        content: dict[str, Any] = json.loads((path / FILE).read_text(encoding="utf-8"))
        rows = content["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"can't be read as a summary of explanations: {error!r}", where=str(path)) from None
    if not isinstance(rows, list):
        raise StoreError("holds no rows", where=str(path))
    return content


def table(run: Run, settings: RunSettings) -> list[list[Any]]:
    """Its rows, as text for people."""
    rows = read_explanations(run.explanations(train_name(settings)))["rows"]
    return [[row["name"], *(_number(row, part) for part in ("mean", "low", "high")), row["patients"]] for row in rows]


def _number(row: dict[str, Any], part: str) -> str:
    sign = "" if row["name"].startswith("AUROC") else "+"  # what is a difference says which way
    return f"{row[part]:{sign}.3f}"


def check(path: Path) -> Made:
    """Read it back."""
    return Made(counts={"measures": len(read_explanations(path)["rows"])})


STAGE = Stage(
    name="explanations",
    version=1,
    packages=("numpy", "scipy"),
    what=what,
    inputs=inputs,
    output=lambda run, key, settings: run.explanations(train_name(settings)),
    make=make,
    check=check,
    view=True,
)
