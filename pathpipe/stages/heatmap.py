"""Stage `heatmap`: what the models that never saw a patient looked at on each of that patient's slides."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.explain.heatmap import Canvas, draw_heatmap
from pathpipe.explain.scores import Scores, slide_scores
from pathpipe.explain.truth import instance_auroc, read_truth, share_inside
from pathpipe.fingerprint import fingerprint, sampled_digest
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.settings.target import parse_target
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Mpp
from pathpipe.stages.chain import encoders_of, fold_key, train_name
from pathpipe.stages.patients import covariate_values
from pathpipe.stages.split import read_splits
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.stages.train import MODEL
from pathpipe.store.aligned import read_aligned
from pathpipe.store.features import Features, read_features
from pathpipe.tissue.thumbnail import read_thumbnail
from pathpipe.training.checkpoint import load_checkpoint

PICTURE, SCORES, SUMMARY = "heatmap.png", "scores.csv", "summary.json"


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The slide's features, the models that score it, the truth drawn on it."""
    features = [read_provenance(path) for path in _paths(run, key, settings)]
    known = [one.fingerprint for one in features if one is not None]
    if len(known) < len(features):
        raise StoreError("the slide has no features", where=key, hint="`pathpipe extract` says why")
    models = {path.name: read_provenance(path) for path in _models(run, key, settings)}
    truth = run.cohort[key].truth
    return {
        "features": known[0] if len(known) == 1 else fingerprint(known),
        "models": fingerprint({name: made.fingerprint for name, made in models.items() if made is not None}),
        "truth": sampled_digest(truth) if truth is not None and truth.exists() else "",
    }


def _paths(run: Run, key: str, settings: RunSettings) -> list[Path]:
    """The slide's features, by each encoder."""
    return [run.features(name, key) for name in encoders_of(settings)]


def _models(run: Run, key: str, settings: RunSettings) -> list[Path]:
    """The trained folds in which the slide's patient is tested; every fold for a patient of no fold."""
    table = read_splits(run, settings).table
    patient = run.cohort[key].patient_id
    tested = table[(table["patient_id"] == patient) & (table["role"] == "test")]["fold"]
    folds = sorted(int(fold) for fold in (tested if len(tested) else table["fold"].unique()))
    name = train_name(settings)
    return [run.trained(name, fold_key(fold, seed)) for fold in folds for seed in settings.train.seeds]


def make(job: Job) -> Made:
    """Score the tiles from stored features; the slide is read for its thumbnail only."""
    paths = _paths(job.run, job.key, job.settings)
    features = read_features(paths[0]) if len(paths) == 1 else read_aligned(paths)
    job.target.mkdir()
    if features.empty_reason:
        publish_json(job.target / SUMMARY, {"empty_reason": features.empty_reason})
        publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
        return Made("empty", features.empty_reason)
    models = [load_checkpoint(path / MODEL) for path in _models(job.run, job.key, job.settings)]
    cohort = job.run.cohort
    values = covariate_values(cohort, job.settings.train.covariates)
    scores = slide_scores(models, features, values, cohort[job.key].patient_id)
    canvas = _canvas(job, features)
    summary = _summary(job, scores, canvas)
    picture = draw_heatmap(canvas, scores, _title(job, scores, summary), job.settings.heatmap)
    (job.target / PICTURE).write_bytes(picture)
    scores.write(job.target / SCORES)
    publish_json(job.target / SUMMARY, summary)
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return check(job.target)


def _canvas(job: Job, features: Features) -> Canvas:
    row = job.run.cohort[job.key]
    with open_slide(row.path, job.settings.slide.reader) as slide:
        thumbnail = read_thumbnail(slide, max(slide.size0) / (job.settings.heatmap.width_px / 2))
    truth = read_truth(row.truth) if row.truth is not None and row.truth.exists() else []
    mpp = Mpp(*features.plan.mpp0, "features")
    return Canvas(thumbnail, mpp, features.plan.side0, truth)


def _summary(job: Job, scores: Scores, canvas: Canvas) -> dict[str, object]:
    share = share_inside(scores.xy0, canvas.side0, canvas.truth)
    found = instance_auroc(scores.score, share)
    texts = job.run.cohort[job.key].labels or {}
    label = "/".join(texts.get(name, "") for name in parse_target(job.settings.split.target)[0].columns).strip("/")
    return {
        "label": label,
        "kind": scores.target_kind,
        "predicted": scores.classes[scores.predicted],
        "probability": {name: float(p) for name, p in zip(scores.classes, scores.probability, strict=True)},
        "logits": scores.logits.tolist(),
        "models": len(scores.logits),
        "score": scores.kind,
        "tiles": len(scores.xy0),
        "tiles_in_truth": int((share >= 0.5).sum()),
        "score_in_truth": float(np.dot(scores.score, share)) if scores.kind == "attention" else None,
        "instance_auroc": found if math.isfinite(found) else None,
        "empty_reason": None,
    }


def _title(job: Job, scores: Scores, summary: dict[str, object]) -> str:
    label = f", labelled {summary['label']}" if summary["label"] else ""
    return f"{job.key}{label}: {scores.said}"


def read_summary(path: Path) -> dict[str, object]:
    """The numbers beside the picture.

    Raises:
        StoreError: The folder is damaged.
    """
    try:
        summary: dict[str, object] = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"can't be read as a heatmap: {error}", where=str(path)) from None
    if summary.get("empty_reason") is None and not (path / PICTURE).exists():
        raise StoreError("lacks its picture", where=str(path))
    return summary


def check(path: Path) -> Made:
    """Read the numbers back."""
    summary = read_summary(path)
    if summary.get("empty_reason"):
        return Made("empty", str(summary["empty_reason"]))
    counts = {"tiles": float(str(summary["tiles"]))}
    if summary["instance_auroc"] is not None:
        counts["AUROC in truth"] = round(float(str(summary["instance_auroc"])), 3)
    return Made("done", None, counts)


STAGE = Stage(
    name="heatmap",
    version=2,
    packages=("torch", "matplotlib"),
    what=sections("heatmap"),
    inputs=inputs,
    output=lambda run, key, settings: run.heatmap(train_name(settings), key),
    make=make,
    check=check,
)
