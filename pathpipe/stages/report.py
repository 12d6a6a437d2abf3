"""Stage `report`: one page from all that a run left, whatever there is of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pathpipe.encoders.catalogue import encoder_caution
from pathpipe.errors import PathpipeError, StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import read_provenance
from pathpipe.report.blocks import Card, Page, Section, Table
from pathpipe.report.cohort import cohort_section, sheet_section
from pathpipe.report.compared import comparison_section
from pathpipe.report.entry import SlideEntry
from pathpipe.report.explained import Explained, explained_section
from pathpipe.report.learning import LearningCurve, learning_section
from pathpipe.report.origins import origins_section
from pathpipe.report.page import render_page
from pathpipe.report.results import Result, result_section
from pathpipe.report.split import split_section
from pathpipe.report.words import counted, interval_text, number
from pathpipe.report.work import Absent, absent_section, trouble_section, work_section
from pathpipe.run import Run
from pathpipe.settings import HOW, PLACES, RunSettings, to_yaml
from pathpipe.stages.audit import read_audit
from pathpipe.stages.chain import SLIDE_STAGES, train_name, units
from pathpipe.stages.endings import ending
from pathpipe.stages.explanations import COLUMNS, table
from pathpipe.stages.origins import origins_of, packages_of
from pathpipe.stages.presence import COHORT_STAGES, absence, absent_units
from pathpipe.stages.receipts import bottleneck_of, receipts_of, troubles, work_of
from pathpipe.stages.results import read_comparisons, read_results
from pathpipe.stages.shown import (
    classes_by_patient,
    cohort_columns,
    explained_slides,
    shown_heatmaps,
    shown_overlays,
    shown_slides,
)
from pathpipe.stages.split import split_name, split_notes, split_summary
from pathpipe.stages.stage import Job, Made, Stage
from pathpipe.stages.train import HISTORY, MODEL
from pathpipe.training.checkpoint import load_checkpoint

_PLACES = [f"{section}.{name}" for section, names in PLACES.items() for name in sorted(names)]


@dataclass(frozen=True)
class _Found:
    """What of a run there is to show.

    Attributes:
        absent: Parts that are not, by their stage.
        others: Slides and folds that lack something.
    """

    run: Run
    settings: RunSettings
    slides: tuple[SlideEntry, ...]
    absent: Mapping[str, Absent]
    others: tuple[Absent, ...]
    results: tuple[Result, ...]
    explained: tuple[Explained, ...]

    def has(self, stage: str) -> bool:
        """Whether the artefact of a stage of the whole cohort can be shown."""
        return stage not in self.absent


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """Whatever is there, how each unit ended, and how long it took."""
    outputs = {
        "split": run.split(split_name(settings)),
        "evaluation": run.evaluation(train_name(settings)),
        "explanations": run.explanations(train_name(settings)),
    }
    made = {name: one.fingerprint for name, path in outputs.items() if (one := read_provenance(path)) is not None}
    heatmaps = {
        slide_id: one.fingerprint
        for slide_id in units(run, "heatmap", settings)
        if (one := read_provenance(run.heatmap(train_name(settings), slide_id))) is not None
    }
    endings = {slide.slide_id: list(ending(run, slide.slide_id, SLIDE_STAGES)) for slide in run.cohort.slides}
    said = receipts_of(run, settings)
    work = {stage: {unit: _ending(one) for unit, one in of.items()} for stage, of in said.items()}
    return made | {
        "heatmaps": fingerprint(heatmaps),
        "slides": fingerprint(endings),
        "cohort": fingerprint(run.cohort_csv.read_text(encoding="utf-8")),
        "receipts": fingerprint(work),
        "comparisons": fingerprint(
            {
                name: {target: one.to_dict() for target, one in found.items()}
                for name, found in read_comparisons(run).items()
            }
        ),
    }


def _ending(receipt: Mapping[str, Any]) -> list[Any]:
    """What the page shows of a unit; looking at it again takes a time of its own, which it doesn't show."""
    return [receipt["state"], receipt["seconds"] if receipt["state"] == "done" else 0, receipt.get("reason") or ""]


def make(job: Job) -> Made:
    """Gather and render."""
    run, settings = job.run, job.settings
    absent = {stage: one for stage in COHORT_STAGES if (one := absence(run, stage, settings)) is not None}
    found = _Found(
        run,
        settings,
        shown_slides(run, settings),
        absent,
        tuple(absent_units(run, settings)),
        read_results(run, settings) if "evaluate" not in absent else (),
        explained_slides(run, settings),
    )
    page = Page(
        title=_title(found),
        subtitle=_subtitle(found),
        notices=_notices(settings),
        cards=tuple(_cards(found)),
        sections=tuple(section for section in _sections(found) if section is not None),
        made_by=job.provenance.made_by,
    )
    render_page(page, job.target, job.provenance)
    return Made(
        reason=f"not there yet: {', '.join(one.what for one in [*absent.values(), *found.others])}"
        if absent or found.others
        else None,
        counts={"slides": len(found.slides), "heatmaps": len(found.explained)},
    )


def _title(found: _Found) -> str:
    slides = counted(len(found.slides), "slide")
    known = {name for slide in found.run.cohort.slides for name in slide.labels or {}}
    named = any(name in known for name in re.split(r"[:/,]", found.settings.split.target))
    return f"{found.settings.split.target} from {slides}" if named else slides


def _subtitle(found: _Found) -> str:
    settings = found.settings
    parts = [f"Target `{settings.split.target}`", f"encoder `{settings.extract.encoder}`"]
    parts.append(f"model `{settings.train.model}`")
    if found.results:
        parts.append("every number is on patients the model never saw")
    return " · ".join(parts)


def _notices(settings: RunSettings) -> tuple[str, ...]:
    caution = encoder_caution(settings.extract.encoder)
    notices = [settings.notice] if settings.notice else []
    if caution:
        notices.append(f"The encoder `{settings.extract.encoder}` is {caution}.")
    return tuple(notices)


def _cards(found: _Found) -> list[Card]:
    """The numbers to see first."""
    cards = []
    for result in found.results[:3]:
        name, one = next(iter(result.model.metrics.items()))
        of = f" of {result.target}" if len(found.results) > 1 else ""
        level = f"{100 * result.confidence:.0f}% interval {interval_text(one)}"
        cards.append(Card(number(one.value), f"{name}{of}, {level}"))
        other = result.baseline.metrics.get(name) if result.baseline else None
        if other is not None:
            cards.append(Card(number(other.value), f"{name} of {result.baseline_name}, {interval_text(other)}"))
    if found.results:
        counts = found.results[0].model.patients
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        many = f": {said}" if len(counts) > 1 else ""
        cards.append(Card(f"{sum(counts.values()):,}", f"patients measured{many}"))
    states = [slide.state for slide in found.slides]
    parts = ["slides done", *(f"{states.count(s)} {s}" for s in ("empty", "failed", "stale") if s in states)]
    tiles = sum(slide.tiles or 0 for slide in found.slides)
    done = f"{states.count('done'):,} of {len(states):,}"
    return [*cards, Card(done, " · ".join([*parts, counted(tiles, "tile")]))]


def _sections(found: _Found) -> list[Section | None]:
    run, settings = found.run, found.settings
    said = receipts_of(run, settings)
    columns = cohort_columns(run)
    overlays = shown_overlays(run, found.slides)
    return [
        absent_section([*found.absent.values(), *found.others]),
        trouble_section(troubles(run, said), _lost(found.slides)),
        *(result_section(one, at, len(found.results) > 1) for at, one in enumerate(found.results)),
        *_comparisons(run),
        _explanations(found),
        cohort_section(found.slides, columns, classes_by_patient(settings, columns), settings.split.target),
        sheet_section(found.slides, overlays, "tiles/"),
        _split(found),
        learning_section(_curves(run, settings)),
        work_section(work_of(run, settings, said), bottleneck_of(said, settings.execution)),
        origins_section(_commands(), to_yaml(settings, leave_out=(*HOW, *_PLACES)),
                        origins_of(run, settings), packages_of(run, settings)),
    ]  # fmt: skip


def _lost(slides: Sequence[SlideEntry]) -> list[str]:
    """Patients of whom no slide has a result."""
    kept = {slide.patient_id for slide in slides if slide.state == "done"}
    return list(dict.fromkeys(slide.patient_id for slide in slides if slide.patient_id not in kept))


def _comparisons(run: Run) -> list[Section]:
    """Of models, as they lie in the run."""
    return [
        comparison_section(f"Models compared: {name.replace('-vs-', ' and ')}", one, f"-{at}" if at else "")
        for at, (name, one) in enumerate(read_comparisons(run).items())
    ]


def _explanations(found: _Found) -> Section | None:
    run, settings = found.run, found.settings
    rows = table(run, settings) if found.has("explanations") else []
    checks = Table("checks", tuple(COLUMNS), tuple(tuple(row) for row in rows)) if rows else None
    pictures = shown_heatmaps(run, settings, found.explained)
    return explained_section(found.explained, pictures, checks, f"heatmaps/{train_name(settings)}/")


def _split(found: _Found) -> Section | None:
    run, settings = found.run, found.settings
    if not found.has("split"):
        return None
    notes, kept_out = split_notes(run.split(split_name(settings)))
    audit = read_audit(run, settings) if found.has("audit") else None
    return split_section(split_summary(run, settings), notes, kept_out, audit)


def _curves(run: Run, settings: RunSettings) -> tuple[LearningCurve, ...]:
    """Of the folds and seeds that are there."""
    curves = []
    try:
        keys = units(run, "train", settings)
    except PathpipeError:
        return ()
    for key in keys:
        folder = run.trained(train_name(settings), key)
        if not folder.exists():
            continue
        history = pd.read_csv(folder / HISTORY)
        measures = {str(name): tuple(history[name]) for name in history if str(name).startswith("val_")}
        loss = measures.pop("val_loss")
        best = load_checkpoint(folder / MODEL).best_epoch
        _, fold, _, seed = key.split("-")
        curves.append(LearningCurve(int(fold), int(seed), tuple(history["train_loss"]), loss, best, measures))
    return tuple(curves)


def _commands() -> list[str]:
    """What makes the same from the run's own two files."""
    return [
        "# with cohort.csv and settings.yaml of this run:",
        "pathpipe report cohort.csv --config settings.yaml -o RUN",
        "# or step by step, each going on from what is there:",
        *(
            f"pathpipe {name} {'cohort.csv --config settings.yaml -o RUN' if name == 'tile' else 'RUN'}"
            for name in ("tile", "extract", "split", "audit", "train", "evaluate", "heatmap", "report")
        ),
    ]


def check(path: Path) -> Made:
    """It says what made it, so it was written whole."""
    if read_provenance(path) is None:
        raise StoreError("isn't a report of pathpipe", where=str(path))
    return Made()


STAGE = Stage(
    name="report",
    version=2,
    packages=("matplotlib", "jinja2", "torch", "timm", "numpy", "h5py", "openslide-python", "openslide-bin"),
    what=lambda settings: settings.model_dump(mode="json", exclude={**HOW, **PLACES}),
    inputs=inputs,
    output=lambda run, key, settings: run.report,
    make=make,
    check=check,
    view=True,
    always=True,
)
