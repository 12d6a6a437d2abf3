"""Stage `heatmap`: what the models that never saw a patient looked at on each of that patient's slides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathpipe.errors import SettingsError, StoreError
from pathpipe.explain.aims import EVERY, PREDICTED, aims_of, named
from pathpipe.explain.curve_plot import draw_checks
from pathpipe.explain.heatmap import Canvas, draw_heatmap
from pathpipe.explain.probing import Member
from pathpipe.explain.pyramid import Naming, write_pyramid
from pathpipe.explain.qupath import Frame, write_quantiles, write_tiles
from pathpipe.explain.scores import Explanation, Scores, columns_of, cut_slide, explain_bag, write_scores
from pathpipe.explain.tile_sheet import draw_sheet
from pathpipe.explain.truth import Truth, read_truth
from pathpipe.fingerprint import fingerprint, sampled_digest
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json
from pathpipe.registry import suggest
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.stages.chain import train_name
from pathpipe.stages.checking import check_aim, predicted_text
from pathpipe.stages.explaining import load_members, models_of, refuse_other_predictions, slides_with
from pathpipe.stages.opening import opened
from pathpipe.stages.patients import labels_of, task_of
from pathpipe.stages.stage import READERS, Job, Made, Stage, sections
from pathpipe.store.features import Features, read_features
from pathpipe.tissue.given import origin0
from pathpipe.tissue.thumbnail import read_thumbnail

PICTURE, SCORES, SUMMARY = "heatmap.png", "scores.csv", "summary.json"
SHEET, CHECKS, PYRAMID, OBJECTS = "tiles.jpg", "checks.png", "heatmap.ome.tif", "heatmap.geojson"


@dataclass(frozen=True, eq=False)
class _Work:
    """What is at hand while a slide is explained."""

    job: Job
    features: Features
    members: Sequence[Member]
    explanation: Explanation
    canvas: Canvas
    title: str


def what(settings: RunSettings) -> dict[str, Any]:
    """Settings that matter; where QuPath begins a slide, only if there is something for it."""
    values = sections("heatmap")(settings)
    if settings.heatmap.geojson != "none":
        values["tissue"] = {"geojson_origin": settings.tissue.geojson_origin}
    return values


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The features of the patient's slides, the models that score them, tissue and truth of this one."""
    sets = slides_with(run, key, settings)
    if key not in sets:
        raise StoreError("the slide has no features", where=key, hint="`pathpipe extract` says why")
    made = {slide: [one.fingerprint for one in map(read_provenance, paths) if one] for slide, paths in sets.items()}
    models = {path.name: read_provenance(path) for path in models_of(run, key, settings)}
    truth, tissue = run.cohort[key].truth, run.tissue(key)
    return {
        "features": fingerprint(made),
        "models": fingerprint({name: made.fingerprint for name, made in models.items() if made is not None}),
        "truth": sampled_digest(truth) if truth is not None and truth.exists() else "",
        "tissue": sampled_digest(tissue) if settings.heatmap.checks and tissue.exists() else "",
    }


def make(job: Job) -> Made:
    """Score the tiles from stored features; the slide is read for its thumbnail and a sheet of few tiles only."""
    features = read_features(job.run.features(job.settings.extract.encoder, job.key))
    job.target.mkdir()
    if features.empty_reason:
        publish_json(job.target / SUMMARY, {"empty_reason": features.empty_reason})
        publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
        return Made("empty", features.empty_reason)
    settings = job.settings.heatmap
    members = load_members(job.run, job.key, job.settings)
    explanation = explain_bag(members, settings)
    compared = refuse_other_predictions(job.run, job.key, job.settings, members, list(explanation.logits))
    parts = [cut_slide(one, members[0].bag, job.key) for one in explanation.scores]
    row = job.run.cohort[job.key]
    truth = Truth() if row.truth is None or not row.truth.exists() else read_truth(row.truth, settings.truth_class)
    with opened(row, job.settings) as slide:
        canvas = _canvas(slide, features, truth, settings.width_px / 2)
        work = _Work(job, features, members, explanation, canvas, _title(job, explanation))
        explained = [_explained(work, slide, one, suffix) for one, suffix in zip(parts, _suffixes(parts), strict=True)]
    write_scores(job.target / SCORES, parts)
    publish_json(job.target / SUMMARY, _summary(work, parts, explained, compared))
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return check(job.target)


def _canvas(slide: Slide, features: Features, truth: Truth, width_px: float) -> Canvas:
    thumbnail = read_thumbnail(slide, max(slide.size0) / width_px)
    return Canvas(thumbnail, Mpp(*features.plan.mpp0, "features"), features.plan.side0, truth)


def _suffixes(parts: Sequence[Scores]) -> list[str]:
    """What tells the files of the aims apart: nothing for the first."""
    return [name.removeprefix("score").replace("_", "-", 1) for name in columns_of(parts)]


def _explained(work: _Work, slide: Slide, scores: Scores, suffix: str) -> dict[str, Any]:
    """Write the files of one aim.

    Returns:
        What the summary says of it.
    """
    job, settings, plan = work.job, work.job.settings.heatmap, work.features.plan
    files: dict[str, Any] = {"picture": _name(PICTURE, suffix)}
    (job.target / files["picture"]).write_bytes(draw_heatmap(work.canvas, scores, work.title, settings))
    if settings.top_tiles:
        files["tiles"] = _name(SHEET, suffix)
        sheet = draw_sheet(slide, plan, scores, settings.top_tiles, work.title)
        (job.target / files["tiles"]).write_bytes(sheet)
    if settings.ome_tiff:
        files["ome_tiff"] = _name(PYRAMID, suffix)
        canvas = _canvas(slide, work.features, work.canvas.truth, min(settings.ome_px, max(slide.size0)))
        naming = Naming(job.key, slide.size0, f"{job.provenance.fingerprint} {scores.aim.label}")
        write_pyramid(job.target / files["ome_tiff"], canvas, scores, naming, settings)
    if settings.geojson != "none":
        path = job.target / _name(OBJECTS, suffix)
        frame = Frame(plan.side0, plan.stride0, origin0(slide, job.settings.tissue))
        if settings.geojson == "tiles":
            paths = write_tiles(path, scores, frame, settings.colours, job.provenance)
            files["geojson"] = [one.name for one in paths]
        else:
            write_quantiles(path, scores, frame, settings.colours, job.provenance)
            files["geojson"] = [path.name]
    said = check_aim(job, work.members, work.explanation, scores, work.canvas)
    if said.get("curves") is not None:
        files["checks"] = _name(CHECKS, suffix)
        drawn = draw_checks(said["curves"], said["artefacts"], work.title, scores.aim.label)
        (job.target / files["checks"]).write_bytes(drawn)
        said["curves"] = said["curves"].to_dict()
    return {"aim": scores.aim.label, "kind": scores.aim.kind, "score": scores.kind, "files": files, **said}


def _name(name: str, suffix: str) -> str:
    stem, _, ending = name.partition(".")
    return f"{stem}{suffix}.{ending}"


def _summary(
    work: _Work, parts: Sequence[Scores], explained: Sequence[dict[str, Any]], compared: int
) -> dict[str, object]:
    job, found, first = work.job, work.explanation, parts[0]
    return {
        "label": _label(job),
        "predicted": predicted_text(found),
        "probability": {aim.label: found.value(aim) for aim in found.aims if aim.kind == "class"},
        "values": {aim.label: found.value(aim) for aim in found.aims},
        "logits": found.logits.tolist(),
        "models": len(found.logits),
        "models_compared": compared,
        "score": first.kind,
        "method": first.method,
        "tiles": len(first.xy0),
        "tiles_of_patient": len(work.members[0].bag),
        "tiles_sharing_a_score": first.grouped,
        "tiles_in_truth": explained[0]["tiles_in_truth"],
        "score_in_truth": explained[0]["score_in_truth"],
        "instance_auroc": explained[0]["instance_auroc"],
        "columns": columns_of(parts),
        "explained": list(explained),
        "empty_reason": None,
    }


def _label(job: Job) -> str:
    texts = labels_of(job.run.cohort, job.settings.split.target).get(job.run.cohort[job.key].patient_id, ())
    return ", ".join(text or "unknown" for text in texts)


def _title(job: Job, found: Explanation) -> str:
    label = _label(job)
    return f"{job.key}{f', labelled {label}' if label else ''}: predicted {predicted_text(found, numbers=True)}"


def read_summary(path: Path) -> dict[str, Any]:
    """The numbers beside the picture.

    Raises:
        StoreError: The folder is damaged.
    """
    try:
        summary: dict[str, Any] = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        files = [] if summary.get("empty_reason") else [one["files"] for one in summary["explained"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"can't be read as a heatmap: {error!r}", where=str(path)) from None
    wanted = [
        name for one in files for entry in one.values() for name in ([entry] if isinstance(entry, str) else entry)
    ]
    missing = [name for name in (*wanted, *([SCORES] if files else [])) if not (path / name).exists()]
    if missing:
        raise StoreError(f"lacks its {missing[0]}", where=str(path))
    return summary


def check(path: Path) -> Made:
    """Read the numbers back."""
    summary = read_summary(path)
    if summary.get("empty_reason"):
        return Made("empty", str(summary["empty_reason"]))
    counts = {"tiles": float(summary["tiles"])}
    if summary["instance_auroc"] is not None:
        counts["AUROC in truth"] = round(float(summary["instance_auroc"]), 3)
    return Made("done", None, counts)


def preflight(run: Run, settings: RunSettings) -> None:
    """The colours exist, and so does the class to explain."""
    import matplotlib

    if settings.heatmap.colours not in matplotlib.colormaps:
        hint = suggest(settings.heatmap.colours, list(matplotlib.colormaps))
        raise SettingsError(f"there are no colours `{settings.heatmap.colours}`", where="heatmap.colours", hint=hint)
    if settings.heatmap.target_class not in (PREDICTED, EVERY):
        task = task_of(labels_of(run.cohort, settings.split.target), settings)
        named(aims_of(task), settings.heatmap.target_class)


STAGE = Stage(
    name="heatmap",
    version=2,
    packages=("torch", "numpy", "scipy", "matplotlib", "pillow", *READERS),
    what=what,
    inputs=inputs,
    output=lambda run, key, settings: run.heatmap(train_name(settings), key),
    make=make,
    check=check,
    preflight=preflight,
)
