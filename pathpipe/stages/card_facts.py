"""Card facts: what a run knows of a model, gathered for its card."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathpipe.encoders.catalogue import encoder_record
from pathpipe.errors import PathpipeError
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.report.model_card import Cohort, Licence, Performance
from pathpipe.report.words import counted
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.settings.target import TargetSpec, parse_target
from pathpipe.stages.split import FILE
from pathpipe.tasks.labels import holds
from pathpipe.training.checkpoint import Checkpoint
from pathpipe.training.splits import Splits

_EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Origin:
    """Where a model file lies.

    Attributes:
        run: Its run; None where it was moved out.
        name: Of the training.
        made: Provenance of its fold; None likewise.
    """

    run: Run | None
    name: str
    made: Provenance | None


def origin_of(file: Path) -> Origin:
    """Of RUN/train/NAME/FOLD/model.pt, or of a model.pt elsewhere."""
    fold = file.absolute().parent
    run = fold.parent.parent.parent
    if fold.parent.parent.name != "train" or not Run.exists(run):
        return Origin(None, file.stem, None)
    return Origin(Run(run), fold.parent.name, read_provenance(fold))


def cohort_facts(origin: Origin) -> Cohort | None:
    """What the model was made from; None where its run isn't there."""
    if origin.run is None or origin.made is None:
        return None
    cohort, split = origin.run.cohort, origin.made.settings["split"]
    columns = {spec: [_by_patient(origin.run, name) for name in spec.columns] for spec in parse_target(split["target"])}
    labelled = {patient for known in columns.values() for values in known for patient in values}
    sites = cohort.values("site")
    named = {slide: site or "not stated" for slide, site in sites.items()}
    per_site = Counter(named.values())
    rows = [
        (site, count, len({cohort.patients[slide] for slide, own in named.items() if own == site}))
        for site, count in sorted(per_site.items())
    ]
    labels = [row for spec, known in columns.items() for row in _label_rows(spec, known)]
    counts = {"slides": len(cohort), "patients": len(set(cohort.patients.values())), "labelled patients": len(labelled)}
    return Cohort(counts, labels, rows, _folds(origin.run, origin.made))


def _folds(run: Run, made: Provenance) -> str:
    split, drawn = made.settings["split"], f", seed {made.settings['split']['seed']}"
    whole = "Sites were not kept apart." if split["by_site"] == "ignored" else f"Sites: {split['by_site']}."
    folder = next((one for one in run.splits() if _fingerprint(one) == made.inputs.get("split")), None)
    if folder is None:  # another split lies there now
        return f"{counted(int(split['folds']), 'fold')} by patient{drawn}. {whole}"
    splits = Splits.read(folder / FILE)
    if folder.name.endswith("-given"):  # the file isn't among the settings: it is known by its content
        drawn, whole = ", given and not drawn", ""
    tested = {splits.patients(fold, "test") for fold in splits.folds}
    fixed = " All test the same patients." if len(tested) == 1 and len(splits.folds) > 1 else ""
    return f"{counted(len(splits.folds), 'fold')} by patient{drawn}.{fixed} {whole}".rstrip()


def _fingerprint(folder: Path) -> str | None:
    made = read_provenance(folder)
    return made.fingerprint if made is not None else None


def _by_patient(run: Run, column: str) -> dict[str, str]:
    try:
        return run.cohort.labels_by_patient(column)
    except PathpipeError:  # the cohort's table was changed since
        return {}


def _label_rows(spec: TargetSpec, known: list[dict[str, str]]) -> list[tuple[str, Any, Any]]:
    """Rows of target, value and patients."""
    if spec.timed:
        times, events = known
        seen = sum(holds(text, patient, spec.columns[1]) != spec.censoring for patient, text in events.items())
        numbers = [float(text) for text in times.values()]
        spread = f"times {min(numbers):g} to {max(numbers):g}, median {np.median(numbers):g}" if numbers else "times"
        return [
            (str(spec), "event", seen),
            (str(spec), "censored", len(events) - seen),
            (str(spec), spread, len(times)),
        ]
    if spec.kind == "regression":
        numbers = [float(text) for text in known[0].values()]
        spread = f"{min(numbers):g} to {max(numbers):g}, median {np.median(numbers):g}" if numbers else ""
        return [(str(spec), spread, len(numbers))]
    rows: list[tuple[str, Any, Any]] = []
    for column, values in zip(spec.columns, known, strict=True):
        rows += [(column, value, count) for value, count in sorted(Counter(values.values()).items())]
    return rows


def performance_facts(origin: Origin) -> Performance | None:
    """What its evaluation measured; None where there is none."""
    path = origin.run.evaluation(origin.name) / _EVALUATION if origin.run else None
    if path is None or not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    first = parse_target(content["target"])[0]
    # each label of several has its own numbers
    name = str(content["model_target"]) if first.kind == "multilabel" else first.name
    models = {name: content["model"], **content.get("others", {})}
    rows = [
        (target, metric, one["value"], one["low"], one["high"])
        for target, model in models.items()
        for metric, one in model["metrics"].items()
    ]
    baseline = content.get("baseline")
    if baseline:
        called = f"{name}, {content.get('baseline_name', 'baseline')}"
        rows += [(called, metric, one["value"], one["low"], one["high"]) for metric, one in baseline["metrics"].items()]
    notes = [str(note) for model in models.values() for note in model.get("notes", [])]
    cuts = [value for value in (content["model"].get("thresholds") or {}).values() if value is not None]
    if cuts:
        said = ", ".join(f"{value:.3f}" for value in cuts)
        notes.append(
            f"Measures of right and wrong calls are at each fold's own threshold ({said}), chosen on validation; "
            "`pathpipe predict` and these files call nothing by a threshold: the most probable class is named."
        )
    folds = len(content["model"]["folds"])
    return Performance(rows, float(content["confidence"]), tuple(dict.fromkeys(notes)), folds)


def licence_facts(checkpoint: Checkpoint) -> list[Licence]:
    """Of each encoder, from the catalogue."""
    parts = checkpoint.encoder.get("parts") or [checkpoint.encoder]
    return [_licence(str(one.get("name"))) for one in parts]


def _licence(name: str) -> Licence:
    try:
        record = encoder_record(name)
    except PathpipeError:
        return Licence(name, None, None, "", None, False)
    return Licence(name, record.licence, record.weights.page, record.paper, record.caution, record.gated)


def settings_facts(checkpoint: Checkpoint, origin: Origin) -> list[tuple[str, Any]]:
    """Settings that differ from the defaults: of preprocessing, split and training; and the tiles' size always."""
    kept = origin.made.settings if origin.made else checkpoint.preprocessing
    plain = RunSettings().model_dump(mode="json")
    rows = []
    for section, values in kept.items():
        for name, value in values.items():
            always = (section, name) in _ALWAYS
            if always or value != plain.get(section, {}).get(name):
                rows.append((f"`{section}.{name}`", "none" if value is None else value))
    return rows


_ALWAYS = {("tile", "mpp"), ("tile", "tile_px"), ("train", "model"), ("train", "epochs"), ("train", "lr")}
