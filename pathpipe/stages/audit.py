"""Stage `audit`: what could make the results of a split look better than they are; a leak stops what comes after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pathpipe.cohort import Cohort
from pathpipe.errors import CohortError, StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.progress import Progress
from pathpipe.provenance import FOLDER_FILE, read_provenance
from pathpipe.publish import publish_json, publish_text
from pathpipe.run import Run, safe_name
from pathpipe.settings import RunSettings
from pathpipe.settings.target import TargetSpec, parse_target
from pathpipe.stages.split import column_by_patient, read_splits, split_name
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.store.features import Features, read_features
from pathpipe.training.audit import Audit, sorted_findings
from pathpipe.training.confounders import find_confounders
from pathpipe.training.leaks import AuditedSlides, Roles, find_leaks

FILE, TEXT = "audit.json", "audit.txt"


def audit_name(settings: RunSettings) -> str:
    """Folder name of an audit: split and encoder."""
    return f"{split_name(settings)}-{safe_name(settings.extract.encoder)}"


def what(settings: RunSettings) -> dict[str, Any]:
    """What is looked for; what is let pass changes no finding."""
    audit = sections("audit")(settings)["audit"]
    audit.pop("allow")
    return {"audit": audit, "target": settings.split.target, "encoder": settings.extract.encoder}


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The features of every slide, the split, and the columns that are looked at."""
    made = {slide_id: read_provenance(path) for slide_id, path in _files(run, settings).items()}
    split = read_provenance(run.split(split_name(settings)))
    if split is None:
        raise StoreError("there is no split", where=str(run.split(split_name(settings))), hint="run `pathpipe split`")
    values = {column: run.cohort.values(column) for column in _columns(settings)}
    values |= {name: run.cohort.labels_by_patient(name) for name in _target_columns(settings)}
    return {
        "features": fingerprint({slide_id: one.fingerprint for slide_id, one in made.items() if one is not None}),
        "patients": fingerprint(dict(run.cohort.patients)),
        "split": split.fingerprint,
        "columns": fingerprint(values),
    }


def make(job: Job) -> Made:
    """Look at everything, write it down."""
    run, settings = job.run, job.settings
    slides = _slides(job)
    splits = read_splits(run, settings)
    findings = find_leaks(slides, splits, settings.audit.duplicate_cosine)
    columns = {column: _by_patient(run.cohort, column) for column in _columns(settings)}
    findings += find_confounders(slides, Roles(splits), columns, _targets(run.cohort, settings), settings.split.seed)
    found = Audit(
        sorted_findings(findings),
        settings.extract.encoder,
        len(slides.slide_ids),
        len(set(slides.patients)),
        len(splits.folds),
    )
    job.target.mkdir()
    publish_json(job.target / FILE, found.to_dict())
    publish_text(job.target / TEXT, found.to_text())
    publish_json(job.target / FOLDER_FILE, job.provenance.to_dict())
    return check(job.target)


def preflight(run: Run, settings: RunSettings) -> None:
    """The columns to look for are there."""
    for column in _columns(settings):
        run.cohort.values(column)


def gate(path: Path, settings: RunSettings) -> None:
    """Nothing is trained on a split that leaks, unless that is asked for."""
    _read(path).refuse_leaks(settings.audit.allow)


def _files(run: Run, settings: RunSettings) -> dict[str, Path]:
    """slide_id -> feature file, of the slides that have one, in order of slide_id."""
    ids = sorted(slide.slide_id for slide in run.cohort.slides)
    files = {slide_id: run.features(settings.extract.encoder, slide_id) for slide_id in ids}
    found = {slide_id: path for slide_id, path in files.items() if path.exists()}
    if not found:
        encoder = settings.extract.encoder
        raise CohortError(f"no slide has features of `{encoder}`", hint="`pathpipe extract` says why")
    return found


def _columns(settings: RunSettings) -> list[str]:
    return list(dict.fromkeys(["site", *settings.audit.columns]))


def _target_columns(settings: RunSettings) -> list[str]:
    return [name for spec in parse_target(settings.split.target) for name in spec.columns]


def _slides(job: Job) -> AuditedSlides:
    """Mean features of the slides that have tiles; each file is read once, and one is in memory at a time."""
    files, patients = _files(job.run, job.settings), job.run.cohort.patients
    kept: list[tuple[str, tuple[str, ...], np.ndarray]] = []
    for number, (slide_id, path) in enumerate(files.items(), start=1):
        features = read_features(path)
        if len(features.features):
            kept.append((slide_id, _digests(features), features.features.mean(axis=0, dtype=np.float32)))
        job.notify(Progress("audit", job.key, number, len(files)))
    if not kept:
        raise CohortError("no slide has tiles, so there is nothing to audit")
    return AuditedSlides(
        tuple(slide_id for slide_id, _, _ in kept),
        tuple(patients[slide_id] for slide_id, _, _ in kept),
        tuple(digests for _, digests, _ in kept),
        np.stack([mean for _, _, mean in kept]),
    )


def _digests(features: Features) -> tuple[str, ...]:
    """Of the slide file, and of what was made of it: files that differ in a byte of metadata hold the same pixels."""
    content = hashlib.blake2b(np.ascontiguousarray(features.features).data, digest_size=16).hexdigest()
    return tuple(
        dict.fromkeys(
            f"{kind} {text}" for kind, text in (("slide", features.slide_fingerprint), ("features", content)) if text
        )
    )


def _by_patient(cohort: Cohort, column: str) -> dict[str, str]:
    """patient_id -> value, "" where slides disagree."""
    return {
        patient: texts[0] if len(texts) == 1 else "" for patient, texts in column_by_patient(cohort, column).items()
    }


def _targets(cohort: Cohort, settings: RunSettings) -> dict[TargetSpec, Mapping[str, tuple[str, ...]]]:
    labels = {name: cohort.labels_by_patient(name) for name in _target_columns(settings)}
    patients = sorted(set(cohort.patients.values()))
    return {
        spec: {patient: tuple(labels[name].get(patient, "") for name in spec.columns) for patient in patients}
        for spec in parse_target(settings.split.target)
    }


def _read(path: Path) -> Audit:
    try:
        return Audit.from_dict(json.loads((path / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StoreError(f"can't be read as an audit: {error!r}", where=str(path)) from None


def read_audit(run: Run, settings: RunSettings) -> Audit:
    """The audit these settings ask for.

    Raises:
        StoreError: There is none, or it is damaged.
    """
    return _read(run.audit(audit_name(settings)))


def check(path: Path) -> Made:
    """Read it back."""
    found = _read(path)
    leaks, warnings = len(found.of("leak")), len(found.of("warning"))
    return Made(counts={"slides": found.slides, "leaks": leaks, "warnings": warnings})


STAGE = Stage(
    name="audit",
    version=2,
    packages=("numpy", "scipy", "scikit-learn"),
    what=what,
    inputs=inputs,
    output=lambda run, key, settings: run.audit(audit_name(settings)),
    make=make,
    check=check,
    preflight=preflight,
    gate=gate,
    view=True,
)
