"""Stage `report`: one page from all that a run left."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
from PIL import Image

from pathpipe.encoders.catalogue import encoder_caution
from pathpipe.errors import StoreError
from pathpipe.evaluation.baseline import NAME as BASELINE
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import read_provenance
from pathpipe.report.data import HeatmapView, LearningCurve, ReportData
from pathpipe.report.entry import SlideEntry
from pathpipe.report.page import render_report
from pathpipe.run import Run
from pathpipe.settings import PLACES, RunSettings, to_yaml
from pathpipe.settings.target import parse_target
from pathpipe.stages.chain import SLIDE_STAGES, train_name, units
from pathpipe.stages.endings import ending, slide_entry
from pathpipe.stages.evaluate import read_evaluation
from pathpipe.stages.heatmap import PICTURE, read_summary
from pathpipe.stages.patients import labels_of
from pathpipe.stages.split import read_splits
from pathpipe.stages.stage import Job, Made, Stage
from pathpipe.stages.train import HISTORY, MODEL
from pathpipe.training.checkpoint import load_checkpoint

# The page holds some pictures, small; all of them, whole, are in the run's folder.
GALLERY, SHEET = 24, 120
GALLERY_PX, SHEET_PX = 1200, 720
_PLACES = [f"{section}.{name}" for section, names in PLACES.items() for name in sorted(names)]


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The evaluation, every heatmap, and how each slide ended."""
    evaluation = read_provenance(run.evaluation(train_name(settings)))
    if evaluation is None:
        raise StoreError("there is no evaluation", where=train_name(settings), hint="run `pathpipe evaluate`")
    heatmaps = {
        slide_id: made.fingerprint
        for slide_id in units(run, "heatmap", settings)
        if (made := read_provenance(run.heatmap(train_name(settings), slide_id))) is not None
    }
    endings = {slide.slide_id: list(ending(run, slide.slide_id, SLIDE_STAGES)) for slide in run.cohort.slides}
    return {
        "evaluation": evaluation.fingerprint,
        "heatmaps": fingerprint(heatmaps),
        "slides": fingerprint(endings),
        "cohort": fingerprint(run.cohort_csv.read_text(encoding="utf-8")),
    }


def make(job: Job) -> Made:
    """Gather and render."""
    run, settings = job.run, job.settings
    name = train_name(settings)
    found = read_evaluation(run.evaluation(name))
    data = ReportData(
        title=f"{settings.split.target} from {len(run.cohort)} slides",
        target=settings.split.target,
        notices=_notices(settings),
        slides=_slides(run, settings),
        classes=found.model.classes,
        split=_split(run, settings, found.model.classes),
        curves=_curves(run, settings),
        model_name=settings.train.model,
        model=found.model,
        baseline_name=BASELINE,
        baseline=found.baseline,
        baseline_note=found.baseline_note,
        confidence=settings.evaluate.confidence,
        heatmaps=_heatmaps(run, settings),
        settings_yaml=to_yaml(settings, leave_out=("execution", "cohort", *_PLACES)),
        made_by=job.provenance.made_by,
        hashes=_hashes(job),
    )
    render_report(data, job.target, job.provenance)
    return Made(counts={"slides": len(data.slides), "heatmaps": len(data.heatmaps)})


def _notices(settings: RunSettings) -> tuple[str, ...]:
    caution = encoder_caution(settings.extract.encoder)
    notices = [settings.notice] if settings.notice else []
    if caution:
        notices.append(f"The encoder `{settings.extract.encoder}` is {caution}.")
    return tuple(notices)


def _slides(run: Run, settings: RunSettings) -> tuple[SlideEntry, ...]:
    """Every slide; pictures for those a person should look at first."""
    target = parse_target(settings.split.target)[0].columns[0]
    entries = [slide_entry(run, slide.slide_id, target, SLIDE_STAGES) for slide in run.cohort.slides]
    first = {entry.slide_id for entry in sorted(entries, key=lambda entry: entry.suspicion)[:SHEET]}
    return tuple(
        replace(entry, overlay=_small(run.overlay(entry.slide_id), SHEET_PX))
        if entry.slide_id in first and run.overlay(entry.slide_id).exists()
        else entry
        for entry in entries
    )


def _small(path: Path, width_px: int) -> bytes:
    """A picture as JPEG of at most that width."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((width_px, 10 * width_px))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=82)
        return buffer.getvalue()


def _split(run: Run, settings: RunSettings, classes: tuple[str, ...]) -> tuple[tuple[int, str, tuple[int, ...]], ...]:
    table = read_splits(run, settings).table
    texts = {patient: label[0] for patient, label in labels_of(run.cohort, settings.split.target).items()}
    labels = table["patient_id"].map(texts)
    rows = []
    for fold in sorted(table["fold"].unique()):
        for role in ("train", "val", "test"):
            members = labels[(table["fold"] == fold) & (table["role"] == role)]
            counts = tuple(int((members == name).sum()) for name in classes) or (len(members),)
            rows.append((int(fold), role, counts))
    return tuple(rows)


def _curves(run: Run, settings: RunSettings) -> tuple[LearningCurve, ...]:
    curves = []
    for unit in units(run, "train", settings):
        folder = run.trained(train_name(settings), unit)
        history = pd.read_csv(folder / HISTORY)
        best = load_checkpoint(folder / MODEL).best_epoch
        name = unit.replace("-", " ")
        curves.append(LearningCurve(name, tuple(history["train_loss"]), tuple(history["val_loss"]), best))
    return tuple(curves)


def _heatmaps(run: Run, settings: RunSettings) -> tuple[HeatmapView, ...]:
    views = []
    for slide_id in units(run, "heatmap", settings):
        folder = run.heatmap(train_name(settings), slide_id)
        if not folder.exists() or (summary := read_summary(folder)).get("empty_reason"):
            continue
        found = summary["instance_auroc"]
        caption = f"{slide_id}: {summary['tiles']} tiles, {summary['score']}"
        if found is not None:
            caption += f"; it ranks tiles inside the truth with AUROC {float(str(found)):.2f}"
        views.append((found is None, HeatmapView(slide_id, caption, _small(folder / PICTURE, GALLERY_PX))))
    views.sort(key=lambda pair: pair[0])  # slides with truth first, in the cohort's order
    return tuple(view for _, view in views[:GALLERY])


def _hashes(job: Job) -> dict[str, str]:
    hashes = {f"input {name}": value for name, value in job.provenance.inputs.items()}
    first = load_checkpoint(job.run.trained(train_name(job.settings), units(job.run, "train", job.settings)[0]) / MODEL)
    return {**hashes, **{f"encoder {name}": str(value) for name, value in first.encoder.items()}}


def check(path: Path) -> Made:
    """It says what made it, so it was written whole."""
    if read_provenance(path) is None:
        raise StoreError("isn't a report of pathpipe", where=str(path))
    return Made()


STAGE = Stage(
    name="report",
    version=1,
    packages=("matplotlib", "jinja2", "torch", "timm", "numpy", "h5py", "openslide-python", "openslide-bin"),
    what=lambda settings: settings.model_dump(mode="json", exclude={"execution": True, "cohort": True, **PLACES}),
    inputs=inputs,
    output=lambda run, key, settings: run.report,
    make=make,
    check=check,
    view=True,
)
